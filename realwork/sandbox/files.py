"""Folders of this machine as tar archives, made and read in memory.

Guarantees: the same folder gives the same bytes, whoever owns it and whenever it was written; names, contents, modes,
empty folders, symbolic and hard links are kept and nothing is left out, except owners, times and extended attributes;
links are never followed; nothing here is extracted on the host.
"""

import io
import posixpath
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path

from realwork.errors import InputError

MAX_PROBLEMS = 20
_MTIME = 946_684_800
"""1 January 2000: build tools and zip files dislike zero."""


def pack_folder(path: Path, name: str) -> bytes:
    """A tar of the folder at `path`, in which it is called `name`; all belongs to root.

    Raises:
        InputError: it is not a folder, cannot be read, or contains a socket, a FIFO, a device, or a relative link that
            leads out of where it is copied to; all of them at once.
    """
    if not path.is_dir():
        raise InputError(f"{path} is not a folder")
    buffer = io.BytesIO()
    problems: list[str] = []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, path.resolve(), name, {}, problems)
    if problems:
        raise InputError(f"{path} cannot be copied", problems=problems[:MAX_PROBLEMS])
    return buffer.getvalue()


def _add(
    archive: tarfile.TarFile, path: Path, name: str, seen: dict[tuple[int, int], str], problems: list[str]
) -> None:
    """Add what stands at `path`, or say why not; `seen` has the first name of every file with several."""
    try:
        problem = _add_entry(archive, path, name, seen)
        if problem:
            problems.append(problem)
        elif path.is_dir() and not path.is_symlink():
            for child in sorted(path.iterdir()):
                _add(archive, child, f"{name}/{child.name}", seen, problems)
    except OSError as error:
        problems.append(f"{path} cannot be read: {error}")


def _add_entry(archive: tarfile.TarFile, path: Path, name: str, seen: dict[tuple[int, int], str]) -> str | None:
    """Add what stands at `path` itself; null, or why it cannot be."""
    found = path.lstat()
    entry = tarfile.TarInfo(name)
    entry.mode = stat.S_IMODE(found.st_mode)
    entry.mtime = _MTIME
    first = seen.setdefault((found.st_dev, found.st_ino), name) if found.st_nlink > 1 else name
    if stat.S_ISREG(found.st_mode) and first != name:
        entry.type = tarfile.LNKTYPE
        entry.linkname = first
        archive.addfile(entry)
    elif stat.S_ISREG(found.st_mode):
        content = path.read_bytes()
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    elif stat.S_ISDIR(found.st_mode):
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    elif stat.S_ISLNK(found.st_mode):
        entry.type = tarfile.SYMTYPE
        entry.linkname = str(path.readlink())
        if posixpath.normpath(posixpath.join(posixpath.dirname(name), entry.linkname)).split("/")[0] == "..":
            return f"{path} is a link to {entry.linkname}, out of where it is copied to: make it absolute"
        archive.addfile(entry)
    else:
        return f"{path} is neither a file, a folder nor a link, and cannot be copied into a sandbox"
    return None


def first_name(archive: bytes) -> str | None:
    """What a tar made by `pack_folder` unpacks to, null when it is empty."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        entry = tar.next()
    return entry.name.partition("/")[0] if entry is not None else None


def pack_file(name: str, content: bytes) -> bytes:
    """A tar of one file of that name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def pack_files(files: Mapping[str, bytes]) -> bytes:
    """A tar of one folder `.` with these files, by their paths below it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        top = tarfile.TarInfo(".")
        top.type, top.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(top)
        for path, content in files.items():
            entry = tarfile.TarInfo(f"./{path}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def regular_files(archive: bytes) -> list[tuple[str, bytes]]:
    """Name and content of every regular file in a tar made by `pack_folder`, in its order."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for entry in tar:
            content = tar.extractfile(entry) if entry.isreg() or entry.islnk() else None
            if content is not None:
                found.append((entry.name, content.read()))
    return found

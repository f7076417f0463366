"""Files below a folder of this machine, for the local sandbox.

Guarantees: nothing waits on a FIFO, a socket or a device; what an archive holds lands below its directory or nowhere.
"""

import io
import os
import shutil
import stat
import tarfile
from fnmatch import fnmatchcase
from pathlib import Path

from realwork.errors import FileError
from realwork.sandbox.base import FileContent, Keep


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, with its parents.

    Raises:
        FileError: it cannot be, because of what is there.
    """
    try:
        if path.is_dir():
            raise FileError(f"{path}: is a directory")
        if path.exists() and not path.is_file():
            raise FileError(f"{path}: is not a regular file")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: {error}") from error


def read_start(path: Path, limit_bytes: int) -> FileContent:
    """The first bytes of a regular file.

    Raises:
        FileError: there is none.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: {error}") from error
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise FileError(f"{path}: {'is a directory' if stat.S_ISDIR(found.st_mode) else 'is not a regular file'}")
        with os.fdopen(file, "rb", closefd=False) as opened:
            content = opened.read(limit_bytes)
    finally:
        os.close(file)
    return FileContent(content=content, size_bytes=max(found.st_size, len(content)))


def unpack(archive: bytes, directory: Path) -> None:
    """Unpack a tar made by `pack_folder` below `directory`.

    Raises:
        FileError: a link inside leads out of it, or a file cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for entry in tar:
                if entry.name != ".":
                    _unpack_entry(tar, entry, directory)
    except (OSError, tarfile.TarError) as error:
        raise FileError(f"{directory}: {error}") from error


def pack(directory: Path) -> bytes:
    """A tar of what stands below `directory`, its entries beginning with `./`; sockets are left out.

    Memory: all of it, as whoever uses a local sandbox trusts what runs there.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        if directory.is_dir():
            tar.add(directory, ".")
    return buffer.getvalue()


def clear(directory: Path, keep: Keep) -> None:
    """Delete everything below `directory` but what is to be kept.

    Raises:
        FileError: something cannot be deleted.
    """
    try:
        for folder, folders, files in os.walk(directory, topdown=False):
            at = Path(folder).relative_to(directory)
            if at.parts and at.parts[0] in keep.folders:
                continue
            for name in (*files, *folders):
                path = Path(folder) / name
                is_folder = path.is_dir() and not path.is_symlink()
                if not is_folder and not any(fnmatchcase(name, pattern) for pattern in keep.names):
                    path.unlink()
                elif is_folder and (at / name).as_posix() not in keep.folders and not any(path.iterdir()):
                    path.rmdir()
    except OSError as error:
        raise FileError(f"{directory}: {error}") from error


def _unpack_entry(tar: tarfile.TarFile, entry: tarfile.TarInfo, directory: Path) -> None:
    target = _place(directory, entry.name)
    if target.is_symlink() or target.is_file():
        target.unlink()
    elif target.is_dir() and not entry.isdir():
        shutil.rmtree(target)
    if entry.isdir():
        target.mkdir(exist_ok=True)
    elif entry.issym():
        target.symlink_to(entry.linkname)
    elif entry.islnk():
        first = _place(directory, entry.linkname)
        if not first.resolve().is_relative_to(directory.resolve()):
            raise FileError(f"{first}: leads out of {directory}")
        target.hardlink_to(first)
    else:
        content = tar.extractfile(entry)
        assert content is not None
        target.write_bytes(content.read())
    if not entry.issym():
        target.chmod(entry.mode)


def _place(directory: Path, name: str) -> Path:
    target = directory / name
    if not target.parent.resolve().is_relative_to(directory.resolve()) or target.name in ("", ".", ".."):
        raise FileError(f"{target}: leads out of {directory}")
    return target

"""What an archive of a folder holds, remembered, so that a later archive of it can be told apart.

Guarantees: memory is bounded whatever comes; nothing touches the disk of this machine.
"""

import hashlib
import posixpath
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from realwork.errors import ArtifactRejected
from realwork.sandbox.artifact import Entry
from realwork.sandbox.chunks import PIECE, Chunks
from realwork.sandbox.patch import LINK, MOST_FILE_BYTES, SPECIAL, Change, File, git_mode

MOST_BYTES = 256 << 20
"""Of an archive."""
MOST_ENTRIES = 100_000
READ_S = 5.0
KEPT_BYTES = 32 << 20
"""Of contents; those that come later are known by their digest."""


class _Known(NamedTuple):
    file: File
    digest: bytes


class Archived:
    """A folder as `read_archive` gives it when this is made, and again when it is asked for changes.

    Raises:
        OSError, ValueError: it is too large, or what comes is no archive.
    """

    def __init__(self, read_archive: Callable[[], Iterable[bytes]]) -> None:
        self._read_archive = read_archive
        self._before = _read(read_archive(), {})

    def changes(self) -> Iterator[Change]:
        """What differs, in the order of paths.

        Raises:
            OSError, ValueError: it has become too large, or what comes is no archive.
        """
        after = _read(self._read_archive(), self._before)
        for path in sorted({*self._before, *after}, key=lambda path: path.encode(errors="surrogateescape")):
            was, now = self._before.get(path), after.get(path)
            if was is None or now is None or not _same(was, now):
                yield Change(path, was and was.file, now and now.file)


def _same(one: _Known, other: _Known) -> bool:
    return one.digest == other.digest and one.file.mode == other.file.mode


def _read(chunks: Iterable[bytes], known: dict[str, _Known]) -> dict[str, _Known]:
    """What is no folder, by its path; what is `known` already is not held twice.

    Raises:
        OSError, ValueError: it is too large, or no archive.
    """
    found: dict[str, _Known] = {}
    kept = 0
    for path, one in _entries(chunks, found):
        if path in known and _same(known[path], one):
            found[path] = known[path]
            continue
        size = len(one.file.content or b"")
        fits = kept + size <= KEPT_BYTES
        kept += size if fits else 0
        found[path] = one if fits else one._replace(file=one.file._replace(content=None))
        if len(found) > MOST_ENTRIES:
            raise ValueError(f"a folder has more than {MOST_ENTRIES} files")
    return found


def _entries(chunks: Iterable[bytes], found: dict[str, _Known]) -> Iterator[tuple[str, _Known]]:
    """What is no folder, with its path; another name of a file is that of one which has been `found`."""
    root = ""
    try:
        with tarfile.open(fileobj=Chunks(_bounded(chunks)), mode="r|", bufsize=PIECE, tarinfo=Entry) as archive:
            while (entry := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would remember every entry
                root = root or posixpath.normpath(entry.name) + "/"
                if entry.islnk():
                    yield _below(root, entry.name), found.get(_below(root, entry.linkname), _special())
                elif not entry.isdir():
                    yield _below(root, entry.name), _known(archive, entry)
    except (tarfile.TarError, EOFError, OverflowError, ArtifactRejected) as error:
        raise ValueError(f"no archive that can be read: {error}") from error


def _below(root: str, name: str) -> str:
    return posixpath.normpath(name).removeprefix(root)


def _bounded(chunks: Iterable[bytes]) -> Iterator[bytes]:
    total, end = 0, time.monotonic() + READ_S
    for chunk in chunks:
        if time.monotonic() > end:
            raise ValueError(f"a folder takes more than {READ_S:g} s to be read")
        total += len(chunk)
        if total > MOST_BYTES:
            raise ValueError(f"a folder of more than {MOST_BYTES >> 20} MiB")
        yield chunk


def _known(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> _Known:
    if entry.issym():
        target = entry.linkname.encode(errors="surrogateescape")
        return _Known(File(LINK, target, len(target)), target)
    content = archive.extractfile(entry) if entry.isreg() else None
    if content is None:
        return _special()
    digest, pieces = hashlib.sha256(), []
    while piece := content.read(PIECE):
        digest.update(piece)
        pieces += [piece] if entry.size <= MOST_FILE_BYTES else []
    whole = b"".join(pieces) if entry.size <= MOST_FILE_BYTES else None
    return _Known(File(git_mode(entry.mode, is_link=False), whole, entry.size), digest.digest())


def _special() -> _Known:
    return _Known(File(SPECIAL, None, 0), b"")

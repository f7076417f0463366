"""What an agent leaves behind, as a tar stream on its way from one sandbox into another, looked at and never believed.

Guarantees: nothing touches the disk of this machine; memory is bounded whatever comes; of what passes, every entry lies
below the one folder of the archive, is a plain file, a folder or a link, leads through no link of the archive, and has
no set-id bit.
"""

import posixpath
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import Self

from realwork.errors import ArtifactRejected, SandboxError
from realwork.sandbox.chunks import END, PIECE, Chunks, content

MOST_BYTES = 4 << 30
MOST_ENTRIES = 500_000
MOST_REMEMBERED_BYTES = 16 << 20
"""Of the paths of links and of what is left out, below which nothing may come."""
_OVERHEAD = 100
_LONGEST_NAME = 4096
_LONGEST_EXTENSION = 1 << 20
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def checked(
    chunks: Iterable[bytes],
    directory: str,
    *,
    leave_out: Callable[[str, str], bool] = lambda path, target: False,
    most_bytes: int = MOST_BYTES,
    most_entries: int = MOST_ENTRIES,
) -> Iterator[bytes]:
    """The tar `chunks` of one folder, entry by entry as a tar again; blocks as they do.

    Args:
        directory: where the folder stands in both sandboxes. Relative links that lead out of it become absolute ones to
            the same place, which is what an engine takes.
        leave_out: told the path of an entry below the folder, and the target of a symbolic link or else "", whether it
            stays away; all below a folder that does, stays away with it.

    Raises:
        ArtifactRejected: an entry is hostile, or there is more than is allowed.
        SandboxError: the tar, which the engine makes, is none or has no end.
    """
    reader = Chunks(chunks)
    gate = _Gate(directory, leave_out, most_bytes, most_entries)
    try:
        with tarfile.open(fileobj=reader, mode="r|", bufsize=PIECE, tarinfo=Entry) as archive:
            while (entry := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would remember every entry
                passed = gate.passed(entry)
                if passed is None:
                    continue
                yield passed.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
                if passed.isreg():
                    yield from content(archive, entry)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise SandboxError(f"The engine gave no archive that can be read: {error}") from error
    if not reader.has_end():
        raise SandboxError("The engine gave an archive without an end")
    yield END


class Entry(tarfile.TarInfo):
    """An entry whose extended header fits into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _EXTENSIONS and found.size > _LONGEST_EXTENSION:
            raise ArtifactRejected(f"an extended header of {found.size} bytes")
        return found


class _Gate:
    """Decides on one entry after the other."""

    def __init__(
        self, directory: str, leave_out: Callable[[str, str], bool], most_bytes: int, most_entries: int
    ) -> None:
        self._directory = directory
        self._leave_out = leave_out
        self._bytes_left = most_bytes
        self._entries_left = most_entries
        self._remembered_left = MOST_REMEMBERED_BYTES
        self._most = f"{most_entries} entries or {most_bytes} bytes"
        self._root: str | None = None
        self._links: set[str] = set()
        self._left_out: set[str] = set()

    def passed(self, entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        """The entry as it may go on, null when it stays away.

        Raises:
            ArtifactRejected: it is hostile.
        """
        self._entries_left -= 1
        self._bytes_left -= entry.size if entry.isreg() else 0
        if self._entries_left < 0 or self._bytes_left < 0:
            raise ArtifactRejected(f"it has more than {self._most}")
        below = self._below(entry.name, is_folder=entry.isdir())
        if below and self._stays_away(below, entry.linkname if entry.issym() else ""):
            return None
        if entry.isfifo():
            self._remember(below, self._left_out)
            return None
        if entry.issym():
            self._remember(below, self._links)
        elif entry.islnk():
            if self._stays_away(self._below(entry.linkname)):
                return None
        elif not (entry.isreg() or entry.isdir()):
            raise ArtifactRejected(f"{entry.name!r} is neither a file, a folder nor a link")
        plain = _plain(entry)
        if entry.issym():
            plain.linkname = self._target(below, entry.linkname)
        return plain

    def _target(self, path: str, target: str) -> str:
        """What a link at `path` names, so that it does not lead out step by step."""
        folder = posixpath.dirname(path)
        leads_out = posixpath.normpath(posixpath.join(folder, target)).split("/")[0] == ".."
        if target.startswith("/") or not leads_out:
            return target
        return posixpath.normpath(posixpath.join(self._directory, folder, target))

    def _below(self, name: str, *, is_folder: bool = False) -> str:
        """The path of an entry below the folder of the archive, "" for the folder itself."""
        path = posixpath.normpath(name)
        parts = name.rstrip("/").split("/")
        if name.startswith("/") or ".." in parts or len(name) > _LONGEST_NAME:
            raise ArtifactRejected(f"{name[:200]!r} leads out of it")
        if self._root is None:
            self._root = path
            if not is_folder:
                raise ArtifactRejected(f"{name!r} is not a folder")
        if self._root == ".":
            path = "" if path == "." else path
        elif path == self._root or path.startswith(self._root + "/"):
            path = path[len(self._root) + 1 :]
        else:
            raise ArtifactRejected(f"{name[:200]!r} does not lie in it")
        if any(parent in self._links for parent in _parents(path)):
            raise ArtifactRejected(f"{name[:200]!r} leads through a link")
        return path

    def _stays_away(self, path: str, target: str = "") -> bool:
        if any(parent in self._left_out for parent in _parents(path)):
            return True
        if path in self._left_out or not self._leave_out(path, target):
            return path in self._left_out
        self._remember(path, self._left_out)
        return True

    def _remember(self, path: str, paths: set[str]) -> None:
        paths.add(path)
        self._remembered_left -= len(path) + _OVERHEAD
        if self._remembered_left < 0:
            raise ArtifactRejected("it has too many links and files that stay away")


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """A copy with nothing but what a file needs: no extended attributes, no set-id bits, no sparse maps."""
    plain = tarfile.TarInfo(entry.name)
    plain.type = tarfile.REGTYPE if entry.isreg() else entry.type
    plain.size = entry.size if entry.isreg() else 0
    plain.mode, plain.mtime = entry.mode & 0o777, entry.mtime
    plain.uid, plain.gid = entry.uid, entry.gid
    plain.linkname = entry.linkname
    return plain


def _parents(path: str) -> Iterator[str]:
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)

"""What has changed below a folder of a container, told from the layers of its file system, on this machine.

Guarantees: layers are read alone; nothing is reached through a link, whatever an agent puts in the place of a folder
meanwhile; no FIFO, socket or device is opened.
"""

import logging
import os
import posixpath
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from realwork.sandbox.before import Before, remember_archive
from realwork.sandbox.engine import EngineClient
from realwork.sandbox.patch import LINK, MOST_FILE_BYTES, SPECIAL, Change, File, git_mode

log = logging.getLogger(__name__)

MOST_CHANGES = 100_000
MOST_NAMES = 200_000
LONGEST_PATH = 4096
PIECE = 1 << 20
_FOLDER = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_CAP_SYS_ADMIN = 21
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_UNSUPPORTED = ("trusted.overlay.redirect", "user.overlay.redirect")
_WITHOUT_CONTENT = ("trusted.overlay.metacopy", "user.overlay.metacopy")

Roots = tuple[str, ...]
"""Layers in which a path is a folder, the highest first."""


class _Leaf(NamedTuple):
    """What is no folder, and the layer that it stands in."""

    root: str
    path: str
    mode: int
    size: int
    mtime_ns: int

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def git_mode(self) -> str:
        if self.is_file or stat.S_ISLNK(self.mode):
            return git_mode(self.mode, is_link=not self.is_file)
        return SPECIAL


class Overlay:
    """A folder of a container in two states: as `before` alone makes it, and with the layers `above` on top of them."""

    def __init__(self, above: Roots, before: Roots, directory: str) -> None:
        self._roots = (above + before, before)
        self._directory = posixpath.normpath(directory).rstrip("/")

    def is_untouched(self) -> bool:
        """Whether the folder is no link, and both states are the same, as far as sizes and times tell.

        Raises:
            OSError, ValueError: that cannot be told.
        """
        now, was = (_resolved(roots, self._directory) for roots in self._roots)
        if now is None or was is None:
            return False
        return all(_looks_same(*pair) for pair in _differing(self._directory, was, now))

    def changes(self) -> Iterator[Change]:
        """What differs, in the order of paths, which begin below the folder.

        Raises:
            OSError, ValueError: that cannot be told.
        """
        now, was = (_resolved(roots, self._directory) or () for roots in self._roots)
        found = _differing(self._directory, was, now)
        for before, after in sorted(found, key=lambda pair: os.fsencode((pair[0] or pair[1]).path)):  # type: ignore[union-attr]
            change = _change(before, after, len(self._directory) + 1)
            if change is not None:
                yield change


def overlay_of(found: Mapping[str, Any], directory: str, layers: int | None = None) -> Overlay | None:
    """The folder of the container of which the engine says `found`; null where this process cannot look into it.

    Args:
        layers: so many of the lowest are the state before; null for all but the container's own.
    """
    data = (found.get("GraphDriver") or {}).get("Data") or {}
    upper, lower = data.get("UpperDir"), data.get("LowerDir")
    mounts = [mount["Destination"].rstrip("/") + "/" for mount in found.get("Mounts") or []]
    inside = directory.rstrip("/") + "/"
    if any(inside.startswith(mount) or mount.startswith(inside) for mount in mounts):
        return None
    if not upper or not lower or not os.access(upper, os.R_OK | os.X_OK) or not _sees_marks():
        return None
    lowers = tuple(lower.split(":"))
    count = len(lowers) if layers is None else layers
    return Overlay((upper, *lowers[: len(lowers) - count]), lowers[len(lowers) - count :], directory)


def remember_container(
    client: EngineClient, found: Mapping[str, Any], directory: str, since: str | None
) -> Before | None:
    """What stands at `directory` in the container of which the engine says `found`. Blocks.

    Where this process may look into the layers of the container, nothing has to be read now. Else, or when its own
    layer has changes of the folder already, the engine archives it, now and in the end.

    Args:
        since: the image whose files are those to compare with, if it is not the container's, but one below that.
    """
    layers = None if since is None else client.count_layers(since)
    try:
        overlay = overlay_of(found, directory, layers)
        if overlay is not None and (since is not None or overlay.is_untouched()):
            return overlay
    except (OSError, ValueError) as error:
        log.info("The layers of the container are not understood: %s", error)
    if since is not None:
        return None
    return remember_archive(partial(client.read_archive, found["Id"], f"{directory}/."))


def _sees_marks() -> bool:
    """Whether this process may read by what an overlay marks a folder that hides those below it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return bool(int(status["CapEff"], 16) >> _CAP_SYS_ADMIN & 1)


def _resolved(roots: Roots, directory: str) -> Roots | None:
    """The layers in which `directory` is a folder, which may be none; null when a link or a file stands in its way."""
    path = ""
    for name in directory.split("/")[1:]:
        path = f"{path}/{name}"
        found = _find(roots, path)
        if isinstance(found, _Leaf):
            return None
        roots = found
    return roots


def _differing(directory: str, was: Roots, now: Roots) -> Iterator[tuple[_Leaf | None, _Leaf | None]]:
    """What is no folder before and after, wherever these stand in different layers."""
    waiting, names, changes = [(directory, was, now)], 0, 0
    while waiting:
        path, was, now = waiting.pop()
        if len(path) > LONGEST_PATH:
            raise ValueError("a path is too long")
        for name in {name for root in set(was) ^ set(now) for name in _names(root, path)}:
            pair = _find(was, f"{path}/{name}"), _find(now, f"{path}/{name}")
            before, after = (found if isinstance(found, _Leaf) else None for found in pair)
            names, changes = names + 1, changes + bool(before or after)
            if names > MOST_NAMES or changes > MOST_CHANGES:
                raise ValueError("too many changes")
            if before or after:
                yield before, after
            folders = [() if isinstance(found, _Leaf) else found for found in pair]
            if folders[0] != folders[1]:
                waiting.append((f"{path}/{name}", folders[0], folders[1]))


def _find(roots: Roots, path: str) -> _Leaf | Roots:
    """What stands at `path`, the parent of which is a folder in all `roots`; no roots if there is nothing."""
    found: list[str] = []
    folder, name = posixpath.split(path)
    for root in roots:
        with _opened(root, folder, _FOLDER) as parent:
            try:
                entry = os.stat(name, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISCHR(entry.st_mode) and entry.st_rdev == 0:  # it says that there is nothing below, either
                break
            if not stat.S_ISDIR(entry.st_mode):
                return tuple(found) or _Leaf(root, path, entry.st_mode, entry.st_size, entry.st_mtime_ns)
        found.append(root)
        if _hides(root, path):
            break
    return tuple(found)


def _hides(root: str, path: str) -> bool:
    """Whether the folder hides those of layers below it.

    Raises:
        ValueError: it stands for a folder of another name.
    """
    with _opened(root, path, os.O_RDONLY | os.O_DIRECTORY) as folder:
        marks = os.listxattr(folder)
        if any(mark in _UNSUPPORTED for mark in marks):
            raise ValueError("a folder was renamed in a way that is not understood")
        return any(os.getxattr(folder, mark) == b"y" for mark in marks if mark in _OPAQUE)


def _names(root: str, path: str) -> list[str]:
    with _opened(root, path, os.O_RDONLY | os.O_DIRECTORY) as folder:
        return os.listdir(folder)  # noqa: PTH208 - one that is open


@contextmanager
def _opened(root: str, path: str, flags: int) -> Iterator[int]:
    """`path` below `root`, opened without following any link."""
    file = os.open(root, _FOLDER)
    try:
        parts = [part for part in path.split("/") if part]
        for position, part in enumerate(parts or ["."]):
            is_last = position >= len(parts) - 1
            opened = os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC if is_last else _FOLDER, dir_fd=file)
            os.close(file)
            file = opened
        yield file
    finally:
        os.close(file)


def _change(before: _Leaf | None, after: _Leaf | None, prefix: int) -> Change | None:
    """The change, of whose path `prefix` characters are left out; null when there is none but of owners and times."""
    was, now = (leaf and _file(leaf) for leaf in (before, after))
    if before and after and was and now and was.mode == now.mode:
        unread = was.content is None and now.content is None and was.size_bytes == now.size_bytes
        if was.content == now.content and (not unread or not before.is_file or _equal_files(before, after)):
            return None
    path = (before or after).path  # type: ignore[union-attr]
    return Change(path[prefix:], was or None, now or None)


def _file(leaf: _Leaf) -> File:
    if leaf.git_mode == LINK:
        folder, name = posixpath.split(leaf.path)
        with _opened(leaf.root, folder, _FOLDER) as parent:
            target = os.fsencode(os.readlink(name, dir_fd=parent))
        return File(LINK, target, len(target))
    if leaf.is_file and leaf.size <= MOST_FILE_BYTES:
        return File(leaf.git_mode, b"".join(_pieces(leaf)), leaf.size)
    return File(leaf.git_mode, None, leaf.size if leaf.is_file else 0)


def _pieces(leaf: _Leaf) -> Iterator[bytes]:
    """What the file holds, as far as it was there when it was found."""
    left = leaf.size
    with _opened(leaf.root, leaf.path, os.O_RDONLY | os.O_NONBLOCK) as file:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise ValueError("a file changes while it is read")
        if any(mark in _WITHOUT_CONTENT for mark in os.listxattr(file)):
            raise ValueError("a file stands in another layer than its content")
        while left > 0 and (piece := os.read(file, min(left, PIECE))):
            left -= len(piece)
            yield piece


def _equal_files(one: _Leaf, other: _Leaf) -> bool:
    return all(a == b for a, b in zip(_pieces(one), _pieces(other), strict=False))


def _looks_same(before: _Leaf | None, after: _Leaf | None) -> bool:
    told: Sequence[tuple[str, int, int] | None] = [
        leaf and (leaf.git_mode, leaf.size, leaf.mtime_ns) for leaf in (before, after)
    ]
    return told[0] == told[1]

"""What has changed below a folder of a container, told from the layers of its file system, on this machine.

Guarantees: layers are read alone; nothing is reached through a link, whatever an agent puts in the place of a folder
meanwhile; no FIFO, socket or device is opened.
"""

import logging
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from realwork.sandbox.before import Before, remember_archive
from realwork.sandbox.engine import EngineClient
from realwork.sandbox.patch import LINK, MOST_FILE_BYTES, MOST_FILES, SPECIAL, Change, File, git_mode, is_history

log = logging.getLogger(__name__)

MOST_CHANGES = 100_000
MOST_NAMES = 200_000
LONGEST_PATH = 4096
PIECE = 1 << 20
_FOLDER = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_LISTED = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
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
    ctime_ns: int

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def git_mode(self) -> str:
        if self.is_file or stat.S_ISLNK(self.mode):
            return git_mode(self.mode, is_link=not self.is_file)
        return SPECIAL

    @property
    def looks(self) -> tuple[str, int, int]:
        """What differs when the content does, unless somebody wants it not to."""
        return self.git_mode, self.size, self.mtime_ns


_Pair = tuple[_Leaf | None, _Leaf | None]


class Overlay:
    """A folder of a container in two states: as `before` alone makes it, and with the layers `above` on top of them."""

    def __init__(self, above: Roots, before: Roots, directory: str) -> None:
        self._roots = (above + before, before)
        self._directory = posixpath.normpath(directory).rstrip("/")
        self._as_given: set[tuple[str, int]] = set()

    def is_untouched(self) -> bool:
        """Whether the folder is no link, and both states are the same, as far as sizes and times tell.

        Raises:
            OSError, ValueError: that cannot be told.
        """
        now, was = (_resolved(roots, self._directory) for roots in self._roots)
        if now is None or was is None:
            return False
        for before, after in _differing(self._directory, was, now):
            if before is None or after is None or before.looks != after.looks:
                return False
            self._as_given.add((after.path, after.ctime_ns))
        return True

    def changes(self) -> Iterator[Change]:
        """What differs, in the order of paths, which begin below the folder; without contents beyond what is shown.

        Raises:
            OSError, ValueError: that cannot be told.
        """
        now, was = (_resolved(roots, self._directory) for roots in self._roots)
        if was is None:
            raise ValueError("the working directory is a link")
        found = _differing(self._directory, was, now or ())
        shown = 0
        for before, after in sorted(found, key=lambda pair: os.fsencode((pair[0] or pair[1]).path)):  # type: ignore[union-attr]
            if after is not None and (after.path, after.ctime_ns) in self._as_given:
                continue
            path = (before or after).path[len(self._directory) + 1 :]  # type: ignore[union-attr]
            is_shown = shown < MOST_FILES and not is_history(path)
            change = _change(path, before, after, is_shown=is_shown)
            if change is not None:
                shown += is_shown
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
        with _folders(roots, path) as folders:
            found = _find(folders, roots, f"{path}/{name}")
        if isinstance(found, _Leaf):
            return None
        roots, path = found, f"{path}/{name}"
    return roots


def _differing(directory: str, was: Roots, now: Roots) -> Iterator[_Pair]:
    """What is no folder before and after, wherever these stand in different layers."""
    waiting, names, changes = [(directory, was, now)], 0, 0
    while waiting:
        path, was, now = waiting.pop()
        if len(path) > LONGEST_PATH:
            raise ValueError("a path is too long")
        with _folders({*was, *now}, path) as folders:
            for name in {name for root in {*was} ^ {*now} for name in os.listdir(folders[root])}:  # noqa: PTH208
                below = f"{path}/{name}"
                pair = _find(folders, was, below), _find(folders, now, below)
                before, after = (found if isinstance(found, _Leaf) else None for found in pair)
                names, changes = names + 1, changes + bool(before or after)
                if names > MOST_NAMES or changes > MOST_CHANGES:
                    raise ValueError("too many changes")
                if before or after:
                    yield before, after
                old, new = (() if isinstance(found, _Leaf) else found for found in pair)
                if old != new:
                    waiting.append((below, old, new))


def _find(folders: Mapping[str, int], roots: Roots, path: str) -> _Leaf | Roots:
    """What stands at `path`, the parent of which is open in all `roots`; no roots if there is nothing."""
    found: list[str] = []
    name = posixpath.basename(path)
    for root in roots:
        try:
            entry = os.stat(name, dir_fd=folders[root], follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISCHR(entry.st_mode) and entry.st_rdev == 0:  # it says that there is nothing, nor in lower layers
            break
        if not stat.S_ISDIR(entry.st_mode):
            times = entry.st_mtime_ns, entry.st_ctime_ns
            return tuple(found) or _Leaf(root, path, entry.st_mode, entry.st_size, *times)
        found.append(root)
        if _hides(folders[root], name):
            break
    return tuple(found)


def _hides(parent: int, name: str) -> bool:
    """Whether the folder hides those of lower layers.

    Raises:
        ValueError: it stands for a folder of another name.
    """
    folder = os.open(name, _LISTED, dir_fd=parent)
    try:
        marks = os.listxattr(folder)
        if any(mark in _UNSUPPORTED for mark in marks):
            raise ValueError("a folder was renamed in a way that is not understood")
        return any(os.getxattr(folder, mark) == b"y" for mark in marks if mark in _OPAQUE)
    finally:
        os.close(folder)


@contextmanager
def _folders(roots: Iterable[str], path: str) -> Iterator[dict[str, int]]:
    """The folder at `path`, open in each of `roots`."""
    with ExitStack() as stack:
        yield {root: stack.enter_context(_opened(root, path, _LISTED)) for root in roots}


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


def _change(path: str, before: _Leaf | None, after: _Leaf | None, *, is_shown: bool) -> Change | None:
    """The change, null when there is none but of owners and times; contents are read where they matter."""
    if before is None or after is None or before.git_mode != after.git_mode:
        return Change(path, before and _file(before, reads=is_shown), after and _file(after, reads=is_shown))
    was, now = _file(before), _file(after)
    if was.content != now.content or was.size_bytes != now.size_bytes:
        return Change(path, was, now)
    is_equal = was.content is not None or not before.is_file or _equal_files(before, after)
    return None if is_equal else Change(path, was, now)


def _file(leaf: _Leaf, *, reads: bool = True) -> File:
    if leaf.git_mode == LINK and reads:
        folder, name = posixpath.split(leaf.path)
        with _opened(leaf.root, folder, _FOLDER) as parent:
            target = os.fsencode(os.readlink(name, dir_fd=parent))
        return File(LINK, target, len(target))
    if leaf.is_file and leaf.size <= MOST_FILE_BYTES and reads:
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

"""A sandbox that exists in memory only: scripted answers to commands, files in a dictionary. For tests."""

import posixpath
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial

from realwork.errors import FileError
from realwork.sandbox.base import CommandResult, FileContent, Keep
from realwork.sandbox.before import Before, diff, remember_archive
from realwork.sandbox.files import pack_files, regular_files
from realwork.types import Snapshot

NOT_SCRIPTED = CommandResult(exit_code=127, stderr=b"sh: no answer was scripted for this command\n")


class MemorySandbox:
    """Answers each command as it was told to; see `realwork.sandbox.base.Sandbox`.

    Attributes:
        files: content by absolute path; a folder is there when a file below it is.
        commands: what was executed, in order.
        apart: those of them that were to run apart.
        network: what it was last changed to, null if never.
        archives: what was copied in, with its directory, in order.
        stops: how often the processes were stopped.
        snapshots: the files of each snapshot by its id; one that was removed is not among them.
        is_disk_full: whether more has been written than may be.
    """

    def __init__(
        self,
        answers: Mapping[str, CommandResult | Exception] | None = None,
        *,
        otherwise: CommandResult = NOT_SCRIPTED,
    ) -> None:
        self.answers = dict(answers or {})
        self._otherwise = otherwise
        self.files: dict[str, bytes] = {}
        self.commands: list[str] = []
        self.apart: list[str] = []
        self.archives: list[tuple[str, bytes]] = []
        self.network: str | None = None
        self.stops = 0
        self.snapshots: dict[str, dict[str, bytes]] = {}
        self._taken = 0
        self._before: Before | None = None
        self.is_disk_full = False

    @property
    def node_name(self) -> str:
        return socket.gethostname()

    @property
    def image_digest(self) -> str | None:
        return None

    async def execute(
        self, command: str, *, timeout_s: float, working_directory: str, limit_bytes: int = 65536, apart: bool = False
    ) -> CommandResult:
        """The scripted answer; an exception is raised; to a command without one, `otherwise`: not found."""
        self.commands.append(command)
        if apart:
            self.apart.append(command)
        answer = self.answers.get(command)
        if isinstance(answer, Exception):
            raise answer
        return answer or self._otherwise

    async def write_file(self, path: str, content: bytes) -> None:
        path = _checked(path)
        if self._is_folder(path):
            raise FileError(f"{path}: is a directory")
        if any(parent in self.files for parent in _parents(path)):
            raise FileError(f"{path}: has a file as a parent")
        self.files[path] = content

    async def read_file(self, path: str, *, limit_bytes: int = 1 << 20) -> FileContent:
        path = _checked(path)
        if self._is_folder(path):
            raise FileError(f"{path}: is a directory")
        if path not in self.files:
            raise FileError(f"{path}: no such file")
        content = self.files[path]
        return FileContent(content=content[:limit_bytes], size_bytes=len(content))

    async def copy_in(self, directory: str, archive: bytes | Iterable[bytes]) -> None:
        archive = archive if isinstance(archive, bytes) else b"".join(archive)
        self.archives.append((directory, archive))
        self.files |= {posixpath.join(_checked(directory), name): content for name, content in regular_files(archive)}

    async def remove(self, path: str) -> None:
        path = _checked(path)
        self.files = {name: content for name, content in self.files.items() if path not in (name, *_parents(name))}

    async def empty(self, directory: str, *, keep: Keep) -> None:
        stays = {}
        for path, content in self.files.items():
            below = path.removeprefix(_checked(directory).rstrip("/") + "/")
            kept = below.split("/")[0] in keep.folders or any(
                fnmatchcase(posixpath.basename(path), name) for name in keep.names
            )
            if below == path or kept:
                stays[path] = content
        self.files = stays

    async def freeze(self) -> None:
        self.stops += 1

    def archive(self, directory: str) -> Iterator[bytes]:
        below = _checked(directory).rstrip("/") + "/"
        yield pack_files({path.removeprefix(below): self.files[path] for path in self.files if path.startswith(below)})

    async def changed_outside(self, directory: str) -> int | None:
        return sum(not path.startswith(_checked(directory).rstrip("/") + "/") for path in self.files)

    async def remember(self, directory: str, *, since: str | None = None) -> None:
        self._before = remember_archive(partial(self.archive, directory))

    async def diff(self) -> str | None:
        return diff(self._before)

    async def set_network(self, network: str) -> None:
        self.network = network

    @property
    def not_enforced(self) -> tuple[str, ...]:
        return ()

    async def hand_over(self) -> None:
        """There are no users."""

    async def stop_processes(self) -> None:
        self.stops += 1

    async def snapshot(self, *, keep: bool = False) -> Snapshot | None:
        self._taken += 1
        snapshot_id = f"snapshot-{self._taken}"
        self.snapshots[snapshot_id] = dict(self.files)
        size = sum(len(content) for content in self.files.values())
        return Snapshot(id=snapshot_id, taken_at=datetime.now(UTC), size_bytes=size)

    async def remove_snapshot(self, snapshot_id: str) -> None:
        self.snapshots.pop(snapshot_id, None)

    def _is_folder(self, path: str) -> bool:
        return path == "/" or any(path in _parents(name) for name in self.files)


@asynccontextmanager
async def open_memory(
    answers: Mapping[str, CommandResult | Exception] | None = None, *, otherwise: CommandResult = NOT_SCRIPTED
) -> AsyncIterator[MemorySandbox]:
    """A `MemorySandbox` for the length of the block."""
    yield MemorySandbox(answers, otherwise=otherwise)


def _checked(path: str) -> str:
    if "\0" in path or not path.startswith("/"):
        raise FileError(f"{path!r}: not an absolute path")
    return posixpath.normpath(path)


def _parents(path: str) -> list[str]:
    parts = path.strip("/").split("/")
    return ["/" + "/".join(parts[:count]) for count in range(len(parts))]

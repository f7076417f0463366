"""The contract of every sandbox: an isolated place with a POSIX shell and files.

A sandbox is opened by an async context manager of its implementation and is gone when the block is left, on every way
out. All paths are absolute POSIX paths as seen inside. Every method raises `SandboxLost` when the place is gone and
`SandboxError` when it does not answer; what else it raises, and what is not an error, stands with the method.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from pydantic import Field

from realwork.limits import CAPABILITIES
from realwork.types import Record, Snapshot

OUT_OF_MEMORY = "The memory limit was reached and a process was killed."
DISK_FULL = "More was written to disk than is allowed; everything that ran was killed."


class CommandResult(Record):
    """What a command did.

    Attributes:
        exit_code: as the shell gives it (128 + n for signal n); null when the deadline ended the command.
        stdout: what it wrote, unharmed, up to the limit: head and tail, with a line in between that says how many
            bytes were left out.
        stdout_bytes: how many bytes it wrote in all.
        oom: the memory limit ended a process, of this command or of one left by another.
    """

    exit_code: int | None
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    timed_out: bool = False
    oom: bool = False
    duration_s: float = 0.0


class FileContent(Record):
    """The first bytes of a file, and the size of the whole."""

    content: bytes
    size_bytes: int


class SandboxSpec(Record):
    """What is to be opened.

    Attributes:
        name: unique on the engine; known before the container exists, so that it can be removed by it.
        network: "none", "bridge" or the name of a network of the engine, from the start.
        deadline_s: after so many seconds the sandbox ends by itself, whatever became of its owner.
        cpus: how much of a CPU it may use, 1.0 = one core.
        disk_mib: what may be written beyond the image; null for no bound.
        capabilities: of root inside; all others are dropped.
        user: who the agent is, as soon as it has been handed over; null for root.
        read_only: only the working directory, `/tmp` and `/dev/shm` can be written.
    """

    name: str
    image: str
    network: str = "none"
    working_directory: str = "/workspace"
    environment_variables: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    deadline_s: float = 3600.0
    memory_mib: int = 2048
    cpus: float = 1.0
    pids: int = 512
    shm_mib: int = 64
    disk_mib: int | None = None
    capabilities: tuple[str, ...] = CAPABILITIES
    user: str | None = None
    read_only: bool = False
    runtime: str | None = None


class Keep(Record):
    """What stays when a folder is emptied.

    Attributes:
        names: names of files and links, wherever they stand; `*` stands for any characters.
        folders: names directly below the folder, kept with all that is in them.
    """

    names: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


class Sandbox(Protocol):
    """An open sandbox."""

    @property
    def node_name(self) -> str:
        """Where it stands: the host's name."""

    @property
    def image_digest(self) -> str | None:
        """The content id of the image it was made from, null where there is no image."""

    @property
    def not_enforced(self) -> tuple[str, ...]:
        """Short names of the protections that do not hold here, see `realwork.sandbox.abilities`."""

    @property
    def is_disk_full(self) -> bool:
        """Whether more has been written than may be; everything that ran inside has been killed then."""

    async def execute(
        self, command: str, *, timeout_s: float, working_directory: str, limit_bytes: int = 65536, apart: bool = False
    ) -> CommandResult:
        """Run `command` with `/bin/sh -c` and wait for its end.

        Standard input is at its end. It returns when the command exits, even if a child still holds its output. At the
        deadline every process of the command gets TERM, then KILL, inside the sandbox, and the partial output comes
        back. Output beyond `limit_bytes` a stream is dropped in the middle. `cd` or `export` in one command is not
        seen by the next. With `apart` no process that commands have left is relied on, so that they cannot falsify
        the result: for tests.

        Not an error: any exit code, a timeout, any bytes, a missing working directory (exit code 126 or 127 and a
        message on stderr, as a shell would).
        """

    async def write_file(self, path: str, content: bytes) -> None:
        """Write `content` to `path`, creating its parents; an existing file is replaced.

        Raises:
            FileError: the path is a directory, has a file as a parent, or is not a valid name.
        """

    async def read_file(self, path: str, *, limit_bytes: int = 1 << 20) -> FileContent:
        """The first `limit_bytes` of the regular file at `path`, links followed inside the sandbox.

        Raises:
            FileError: there is no such file, or it is a directory, a FIFO, a socket or a device.
        """

    async def copy_in(self, directory: str, archive: bytes | Iterable[bytes]) -> None:
        """Unpack the tar `archive`, made by `realwork.sandbox.files.pack_folder` or by `artifact.checked`, below
        `directory`, which is created.

        Files of the same name are replaced, others stay.
        """

    async def remove(self, path: str) -> None:
        """Delete the file or folder at `path`. Not an error: that there is none."""

    async def empty(self, directory: str, *, keep: Keep) -> None:
        """Delete everything below `directory`, folders too, but what is to be kept and the folders that it stands in.

        Raises:
            FileError: the sandbox lacks the program that it takes.
        """

    async def set_network(self, network: str) -> None:
        """Change to `network`; "none" cuts it off. Only from a bridge or a named network, never from "none"."""

    async def hand_over(self) -> None:
        """Say that everything is set up: from now on commands and files are those of the agent's user.

        Raises:
            PrepareError: there is no such user.
        """

    async def stop_processes(self) -> None:
        """Kill everything that runs inside, but the sandbox's own first process."""

    async def freeze(self) -> None:
        """End everything inside for good: only `archive`, `changed_outside` and `diff` can be asked
        afterwards."""

    def archive(self, directory: str) -> Iterator[bytes]:
        """A tar of what stands below `directory`, in pieces; blocks, for a thread. Not an error: that there is none.

        What it holds is the agent's: see `artifact.checked`.
        """

    async def changed_outside(self, directory: str) -> int | None:
        """How many files have been added, changed or deleted since the sandbox was opened, but not below `directory`
        nor where programs keep temporary files; null where that cannot be told."""

    async def remember(self, directory: str, *, since: str | None = None) -> None:
        """Remember how `directory` stands now, for `diff`. Not an error: that it cannot be.

        Args:
            since: an image, or null for now: the files are to be compared with those that it has.
        """

    async def diff(self) -> str | None:
        """What has changed below the remembered folder, as `git diff` writes it, see `realwork.sandbox.patch`; "" when
        nothing has, null where that cannot be told. Nothing may run inside meanwhile."""

    async def snapshot(self, *, keep: bool = False) -> Snapshot | None:
        """Every file as it is now, kept where another sandbox can be made of it; null where that is not possible.

        What runs inside stands still meanwhile, and no other method may be called. One that is not to be kept is
        removed in the end, even if nobody asks for it.
        """

    async def remove_snapshot(self, snapshot_id: str) -> None:
        """Remove a snapshot of this sandbox. Not an error: that there is none."""

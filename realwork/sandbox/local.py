"""A sandbox that is a temporary folder of this machine: no isolation at all, only on request.

Guarantees: commands get the environment of the spec and nothing else of this process's but where its programs are; the
same deadlines, caps and ends as in a container; when the block is left, everything started in it is killed and the
folder deleted.
"""

import asyncio
import os
import posixpath
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from realwork.errors import FileError, SandboxError
from realwork.sandbox import scripts
from realwork.sandbox.base import CommandResult, FileContent, Keep, SandboxSpec
from realwork.sandbox.before import Before, diff, remember_archive
from realwork.sandbox.folders import clear, pack, read_start, unpack, write_whole
from realwork.sandbox.processes import LocalCommand, kill_marked
from realwork.sandbox.uncancelled import uncancelled
from realwork.types import Snapshot

STOP_ROUNDS = 50
WORK = "work"


@asynccontextmanager
async def open_local(spec: SandboxSpec) -> AsyncIterator["LocalSandbox"]:
    """A temporary folder for the length of the block, deleted on every way out, with all that runs in it killed.

    Raises:
        SandboxError: the folder cannot be made.
    """
    root = _make_root()
    sandbox = LocalSandbox(root, spec)
    try:
        yield sandbox
    finally:
        await uncancelled(sandbox.close())


def _make_root() -> Path:
    try:
        root = Path(tempfile.mkdtemp(prefix="realwork-")).resolve()
        (root / WORK).mkdir()
    except OSError as error:
        raise SandboxError(f"No temporary folder for the local sandbox: {error}") from error
    return root


class LocalSandbox:
    """An open folder; see `realwork.sandbox.base.Sandbox`."""

    def __init__(self, root: Path, spec: SandboxSpec) -> None:
        self._root = root
        self._work = root / WORK
        self._work_inside = posixpath.normpath(spec.working_directory)
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
        self._before: Before | None = None
        self._environment = {"PATH": path, **spec.environment_variables, "HOME": str(root)}

    @property
    def node_name(self) -> str:
        return socket.gethostname()

    @property
    def image_digest(self) -> str | None:
        return None

    @property
    def not_enforced(self) -> tuple[str, ...]:
        return ("isolation",)

    @property
    def is_disk_full(self) -> bool:
        return False

    async def execute(
        self, command: str, *, timeout_s: float, working_directory: str, limit_bytes: int = 65536, apart: bool = False
    ) -> CommandResult:
        began = time.monotonic()
        try:
            folder = self._inside(working_directory)
        except FileError as error:
            return CommandResult(exit_code=126, stderr=f"sh: cd: {error}\n".encode())
        if not folder.is_dir():
            return CommandResult(exit_code=126, stderr=f"sh: cd: {working_directory}: no such directory\n".encode())
        parts = scripts.split_command(command)
        if parts is None:
            return CommandResult(exit_code=126, stderr=b"sh: argument list too long\n")
        process = LocalCommand(limit_bytes)
        try:
            exit_code = await process.run(parts, folder, self._environment, timeout_s)
        except OSError as error:
            return CommandResult(exit_code=126, stderr=f"sh: {error}\n".encode())
        return CommandResult(
            exit_code=exit_code,
            stdout=process.stdout.content(),
            stderr=process.stderr.content(),
            stdout_bytes=process.stdout.total,
            stderr_bytes=process.stderr.total,
            timed_out=exit_code is None,
            duration_s=time.monotonic() - began,
        )

    async def write_file(self, path: str, content: bytes) -> None:
        await asyncio.to_thread(write_whole, self._inside(path), content)

    async def read_file(self, path: str, *, limit_bytes: int = 1 << 20) -> FileContent:
        return await asyncio.to_thread(read_start, self._inside(path), limit_bytes)

    async def copy_in(self, directory: str, archive: bytes | Iterable[bytes]) -> None:
        whole = archive if isinstance(archive, bytes) else await asyncio.to_thread(b"".join, archive)
        await asyncio.to_thread(unpack, whole, self._inside(directory))

    async def remove(self, path: str) -> None:
        target = self._inside(path, follow=False)
        if target.is_dir() and not target.is_symlink():
            await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    async def empty(self, directory: str, *, keep: Keep) -> None:
        await asyncio.to_thread(clear, self._inside(directory), keep)

    async def set_network(self, network: str) -> None:
        """A local sandbox has the network of this machine, whatever is asked for."""

    async def hand_over(self) -> None:
        """In a local sandbox everything runs as this process's user."""

    async def stop_processes(self) -> None:
        mark = f"HOME={self._root}".encode() + b"\0"
        for _ in range(STOP_ROUNDS):
            if not kill_marked(mark):
                return
            await asyncio.sleep(0.02)
        raise SandboxError("Processes of the local sandbox survive their killing")

    async def freeze(self) -> None:
        await self.stop_processes()

    def archive(self, directory: str) -> Iterator[bytes]:
        yield pack(self._inside(directory))

    async def changed_outside(self, directory: str) -> int | None:
        """Null: commands of a local sandbox may change anything on this machine."""
        return None

    async def remember(self, directory: str, *, since: str | None = None) -> None:
        self._before = await asyncio.to_thread(remember_archive, partial(self.archive, directory))

    async def diff(self) -> str | None:
        return await asyncio.to_thread(diff, self._before)

    async def snapshot(self, *, keep: bool = False) -> Snapshot | None:
        """None: what a local sandbox does is not confined to its folder, so a copy of it would restore nothing."""
        return None

    async def remove_snapshot(self, snapshot_id: str) -> None:
        """A local sandbox has no snapshots."""

    async def close(self) -> None:
        """Kill everything and delete the folder."""
        try:
            await self.stop_processes()
        finally:
            await asyncio.to_thread(shutil.rmtree, self._root, ignore_errors=True)

    def _inside(self, path: str, *, follow: bool = True) -> Path:
        """Where `path` stands on this machine.

        Raises:
            FileError: it does not lie in the working directory, or a link leads out of it.
        """
        clean = posixpath.normpath(path)
        if "\0" in path or not (clean + "/").startswith(self._work_inside.rstrip("/") + "/"):
            raise FileError(f"{path!r}: a local sandbox has no paths outside of {self._work_inside}")
        target = self._work / posixpath.relpath(clean, self._work_inside)
        try:
            real = target.resolve() if follow else target.parent.resolve()
        except (OSError, RuntimeError) as error:
            raise FileError(f"{path}: {error}") from error
        if not real.is_relative_to(self._root):
            raise FileError(f"{path}: a link leads out of the sandbox")
        return real if follow else target

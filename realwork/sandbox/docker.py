"""A sandbox that is a Docker container.

Guarantees: the container is named and labelled before it exists, ends by itself at its deadline, and is removed on
every way out of the block, cancellation included; what it writes is bounded. Everything inside runs as root with the
few capabilities of the spec, or, once it is handed over, as the user of the spec with none.
"""

import asyncio
import posixpath
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from typing import Any

from realwork.errors import FileError, SandboxLost
from realwork.sandbox import containers, scripts, snapshots, upkeep
from realwork.sandbox.abilities import DISK_QUOTA, abilities
from realwork.sandbox.base import CommandResult, FileContent, Keep, SandboxSpec
from realwork.sandbox.before import DIFF_S, Before, diff
from realwork.sandbox.changes import TEMPORARY, count_changes
from realwork.sandbox.channel import Channel
from realwork.sandbox.disk import DiskGuard, watched
from realwork.sandbox.engine import Engine, open_engine
from realwork.sandbox.execs import Ended, Execs
from realwork.sandbox.faults import check_fault_inside
from realwork.sandbox.files import first_name
from realwork.sandbox.first_shell import FirstShell, first_shell
from realwork.sandbox.memory_watch import MemoryWatch
from realwork.sandbox.overlay import remember_container
from realwork.sandbox.uncancelled import uncancelled
from realwork.types import Snapshot

MOST_DIGITS = 18
FILE_S = 15.0
STOP_S = 15.0
COPY_S = 100.0
"""For whole folders; less than `grading` allows."""
INLINE_BYTES = 25_000
"""More than that, written as text, may not fit into one argument."""
SNAPSHOT_LIVES = 2.0
"""Lives of its sandbox after which a snapshot is garbage: time for another attempt to begin with it."""


@asynccontextmanager
async def open_container(
    spec: SandboxSpec, *, engine: Engine | None = None, with_channel: bool = True
) -> AsyncIterator["DockerSandbox"]:
    """A running container for the length of the block, removed on every way out.

    Without a channel every command and file operation is an exec of its own.

    Raises:
        ImageError: the image is not on the engine (it is not pulled), or has no `/bin/sh`.
        SandboxError: the engine does not answer, or refused.
    """
    async with AsyncExitStack() as stack:
        if engine is None:
            engine = await stack.enter_async_context(open_engine())
        first = first_shell(engine, spec.image) if with_channel else None
        container = containers.Container(engine, spec, first)
        try:
            await uncancelled(container.create())
            await uncancelled(container.start())
            found = await container.inspect()
            if first is not None:
                first.started(found)
            known = (await abilities(engine, spec.image)).not_enforced
            sandbox = DockerSandbox(
                engine, found, spec, with_channel=with_channel, first_shell=first, not_enforced=known
            )
            stack.callback(sandbox.close)
            if sandbox.guard is not None and found["Mounts"]:  # a volume begins with what the image has there
                await sandbox.guard.begin_here()
            async with watched(sandbox.guard):
                yield sandbox
        finally:
            if first is not None:
                first.stream.close()
            await uncancelled(container.remove())


class DockerSandbox:
    """An open container; see `realwork.sandbox.base.Sandbox`.

    `found` is what the engine says of the container.
    `environment_variables` are those of commands that the container itself does not have; the channel lacks them.
    """

    def __init__(
        self,
        engine: Engine,
        found: Mapping[str, Any],
        spec: SandboxSpec,
        *,
        with_channel: bool = True,
        first_shell: FirstShell | None = None,
        environment_variables: Mapping[str, str] | None = None,
        not_enforced: tuple[str, ...] = (),
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._found = found
        self._container_id = str(found["Id"])
        self._image_id = str(found["Image"])
        self._not_enforced = not_enforced
        self._execs = Execs(engine, self._container_id, environment_variables)
        self._channel = Channel(self._execs, first_shell) if with_channel else None
        self._memory = MemoryWatch(self._execs)
        self._is_handed_over = False
        self._before: Before | None = None
        self._killing = asyncio.Lock()
        self.guard: DiskGuard | None = None
        if spec.disk_mib is not None and (spec.read_only or DISK_QUOTA in not_enforced):
            volume = spec.working_directory if spec.read_only else None
            written = partial(upkeep.written_bytes, engine, found, self._execs, volume)
            self.guard = DiskGuard(spec.disk_mib << 20, written, self._kill_all)

    @staticmethod
    def restore(
        spec: SandboxSpec, snapshot_id: str, *, engine: Engine | None = None, with_channel: bool = True
    ) -> AbstractAsyncContextManager["DockerSandbox"]:
        """A container like `open_container(spec)` that begins with the files of a snapshot.

        Raises:
            ImageError: the engine does not have the snapshot.
            SandboxError: the engine does not answer, or refused.
        """
        from_snapshot = spec.model_copy(update={"image": snapshot_id})
        return open_container(from_snapshot, engine=engine, with_channel=with_channel)

    @property
    def node_name(self) -> str:
        return socket.gethostname()

    @property
    def image_digest(self) -> str | None:
        return self._image_id

    @property
    def not_enforced(self) -> tuple[str, ...]:
        return self._not_enforced

    @property
    def is_disk_full(self) -> bool:
        return self.guard is not None and self.guard.is_full

    async def execute(
        self, command: str, *, timeout_s: float, working_directory: str, limit_bytes: int = 65536, apart: bool = False
    ) -> CommandResult:
        async with self._killing:
            pass  # what the disk guard has begun to kill does not include this command
        ended = None
        if self._channel is not None and not apart:
            ended = await self._channel.command(
                command, timeout_s=timeout_s, working_directory=working_directory, limit_bytes=limit_bytes
            )
        if ended is None:
            parts = scripts.split_command(command)
            if parts is None:
                return CommandResult(exit_code=126, stderr=b"sh: argument list too long\n")
            argv = ["/bin/sh", "-c", scripts.START, "sh", working_directory, *parts]
            ended = await self._execs.command(argv, timeout_s=timeout_s, limit_bytes=limit_bytes)
        stdout, stderr = ended.stdout, ended.stderr
        if not ended.started:
            check_fault_inside(ended, apart=apart)
            stdout, stderr = stderr, stdout
        error = stderr.content()
        return CommandResult(
            exit_code=ended.exit_code,
            stdout=stdout.content(),
            stderr=error,
            stdout_bytes=stdout.total,
            stderr_bytes=stderr.total,
            timed_out=ended.exit_code is None,
            oom=await self._memory.was_out(ended, error),
            duration_s=ended.duration_s,
        )

    async def write_file(self, path: str, content: bytes) -> None:
        if len(content) <= INLINE_BYTES and self._channel is not None:
            await self._file_script(path, scripts.WRITE_INLINE, path, scripts.as_format(content))
        else:
            await self._file_script(path, scripts.WRITE_FILE, path, content=content)

    async def read_file(self, path: str, *, limit_bytes: int = 1 << 20) -> FileContent:
        limit = limit_bytes + 64
        ended = await self._file_script(path, scripts.READ_FILE, path, str(limit_bytes), limit_bytes=2 * limit)
        size, _, content = ended.stdout.content().partition(b"\n")
        if not size.isdigit() or len(size) > MOST_DIGITS:
            raise FileError(f"{path}: its size cannot be told")
        return FileContent(content=content, size_bytes=max(int(size), len(content)))

    async def copy_in(self, directory: str, archive: bytes | Iterable[bytes]) -> None:
        await self._file_script(directory, scripts.MAKE_FOLDER, directory, as_root=True)
        unpack = partial(self._engine.client.put_archive, self._container_id, directory, archive)
        guard = None if isinstance(archive, bytes) else self.guard  # parts were counted where they were written
        async with guard.not_counting() if guard is not None else nullcontext():
            await self._engine.call_within(COPY_S, f"copying files into {directory}", unpack)
        if self._is_handed_over and isinstance(archive, bytes) and (name := first_name(archive)):
            await upkeep.give(self._execs, posixpath.join(directory, name), self._execs.user)

    async def remove(self, path: str) -> None:
        await self._file_script(path, scripts.REMOVE, path, as_root=True, timeout_s=COPY_S)

    async def empty(self, directory: str, *, keep: Keep) -> None:
        kept = scripts.find_kept(keep.names, keep.folders)
        await self._file_script(directory, scripts.EMPTY, directory, *kept, as_root=True, timeout_s=COPY_S)

    async def set_network(self, network: str) -> None:
        client = self._engine.client
        found = await containers.inspect(self._engine, self._container_id)
        connected = set(found["NetworkSettings"]["Networks"])
        if network == "none" == found["HostConfig"]["NetworkMode"] or connected == {network}:
            return
        for name in connected - {network}:
            await self._engine.call(
                f"leaving network {name}", client.disconnect_container_from_network, self._container_id, name
            )
        if network not in connected | {"none"}:
            await self._engine.call(
                f"joining network {network}", client.connect_container_to_network, self._container_id, network
            )

    async def hand_over(self) -> None:
        if self._spec.user is None or self._is_handed_over:
            return
        await upkeep.give(self._execs, self._spec.working_directory, self._spec.user)
        self.close()
        self._execs.user = self._spec.user
        self._is_handed_over = True

    async def stop_processes(self) -> None:
        self.close()
        await self._kill_all()

    async def _kill_all(self) -> None:
        async with self._killing:
            await upkeep.kill_all(self._found, self._execs)

    async def freeze(self) -> None:
        self.close()
        client = self._engine.client
        await self._engine.call("ending the container", client.kill, self._container_id)
        await self._engine.call_within(
            STOP_S, "waiting for the container's end", partial(client.wait, self._container_id, timeout=int(STOP_S))
        )

    def archive(self, directory: str) -> Iterator[bytes]:
        return self._engine.client.read_archive(self._container_id, f"{directory}/.")

    async def changed_outside(self, directory: str) -> int | None:
        count = partial(count_changes, self._engine.client, self._container_id, (directory, *TEMPORARY))
        return await self._engine.call_within(COPY_S, "counting changed files", count)

    async def remember(self, directory: str, *, since: str | None = None) -> None:
        look = partial(remember_container, self._engine.client, self._found, directory, since)
        self._before = await self._engine.call_within(2 * DIFF_S, f"remembering {directory}", look)

    async def diff(self) -> str | None:
        return await self._engine.call_within(2 * DIFF_S, "comparing files", partial(diff, self._before))

    async def snapshot(self, *, keep: bool = False) -> Snapshot | None:
        return await snapshots.take(
            self._engine,
            self._container_id,
            variables=tuple(self._spec.environment_variables),
            lifetime_s=SNAPSHOT_LIVES * self._spec.deadline_s,
            keep=keep,
        )

    async def remove_snapshot(self, snapshot_id: str) -> None:
        await snapshots.remove(self._engine, snapshot_id)

    def close(self) -> None:
        """End the channel; the next command opens another one."""
        if self._channel is not None:
            self._channel.close()

    async def _file_script(
        self,
        path: str,
        script: str,
        *arguments: str,
        content: bytes | None = None,
        limit_bytes: int = 4096,
        as_root: bool = False,
        timeout_s: float = FILE_S,
    ) -> Ended:
        if "\0" in path:
            raise FileError(f"{path!r}: a path has no NUL character")
        ended = None
        if self._channel is not None and content is None and not (as_root and self._is_handed_over):
            ended = await self._channel.script(script, *arguments, timeout_s=timeout_s, limit_bytes=limit_bytes)
        if ended is None:
            ended = await self._execs.script(
                script, *arguments, timeout_s=timeout_s, content=content, limit_bytes=limit_bytes, as_root=as_root
            )
        if ended.exit_code == 0:
            return ended
        if ended.exit_code is None:
            raise FileError(f"{path}: no answer within {timeout_s:g} s")
        said = (ended.stderr.content() or ended.stdout.content()).decode(errors="replace").strip()
        await self._check_alive()
        raise FileError(f"{path}: {said}" if said else f"{path}: exit code {ended.exit_code}")

    async def _check_alive(self) -> None:
        found = await containers.inspect(self._engine, self._container_id)
        if not found["State"]["Running"]:
            raise SandboxLost(f"The container has ended with exit code {found['State']['ExitCode']}")

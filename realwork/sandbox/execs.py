"""One command in a running container: started, watched, ended, its output kept.

Guarantees: the end of a command is its exit, neither the end of its output (a child may hold that, or the command may
close it) nor anything it prints; at the deadline, and when the caller is cancelled, its whole session is ended inside;
every wait is bounded.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from realwork.errors import SandboxError, SandboxStuck
from realwork.sandbox import scripts
from realwork.sandbox.capture import Capture
from realwork.sandbox.engine import Engine
from realwork.sandbox.refusals import TooSlow
from realwork.sandbox.stream import ExecStream, FrameStream
from realwork.sandbox.uncancelled import uncancelled

S = TypeVar("S", bound=FrameStream)
T = TypeVar("T")
IsRunning = Callable[[float], Awaitable[bool]]
"""Whether a process has not exited yet; a slow engine is asked again for so many seconds."""

ROOT = "0:0"
START_S = 3.0
START_LOOK_S = 0.02
REST_S = 0.5
"""A busy engine hands over the last output so much later than it tells of the exit."""
GRACE_S = 1.5
"""Between TERM and KILL."""
BUILTINS_S = 10.0
"""A script of shell builtins that takes longer tells of a container that no longer answers; among a hundred processes
that fork without end on a busy machine it takes seconds."""
MOST_ENDINGS = 3
SURVIVES = "A command in the container survives its killing, as when `/bin/sh` has been replaced"
FIRST_LOOK_S = 0.25
SOON_S = 0.002
LONGEST_LOOK_S = 1.0
LOOK_S = 10.0
LATE_START_S = 10.0
"""For so long a command whose caller is gone may be about to start; an engine that takes longer starts no end of it."""
QUIET_S = 0.05
LONGEST_DRAIN_S = 1.0


@dataclass(frozen=True)
class Ended:
    """What became of a command or script.

    Attributes:
        exit_code: null when its deadline ended it.
        started: whether it announced its start, where it is to.
        oom_kills: how many processes of the container the memory limit has ended until now; null if not known.
    """

    exit_code: int | None
    stdout: Capture
    stderr: Capture
    started: bool
    duration_s: float
    oom_kills: int | None = None


class Execs:
    """Runs commands in one container; `environment_variables` are added to the container's.

    Attributes:
        user: who they run as; what is ours alone runs as root.
    """

    def __init__(
        self, engine: Engine, container_id: str, environment_variables: Mapping[str, str] | None = None
    ) -> None:
        self.user = ROOT
        self._engine = engine
        self._container_id = container_id
        self._environment_variables = dict(environment_variables or {})

    async def command(self, argv: Sequence[str], *, timeout_s: float, limit_bytes: int) -> Ended:
        """Run `argv`, which begins with `scripts.START`, until it exits or its session is ended at the deadline."""
        exec_id = await self._prepared(argv)
        stream = ExecStream(limit_bytes, announces_pid=True)
        starting = asyncio.ensure_future(self._engine.attach(exec_id, stream))
        try:
            await asyncio.shield(starting)
            began = time.monotonic()
            exit_code = await self._exit(exec_id, stream, timeout_s)
            if exit_code is None and stream.pid is None:  # a busy engine has not started it yet
                exit_code = await self._exit(exec_id, stream, START_S)
            if exit_code is None:
                await uncancelled(self._end_command(exec_id, stream, GRACE_S))
            return _ended(exit_code, stream, began)
        except asyncio.CancelledError:
            await uncancelled(self._end_quietly(exec_id, stream, starting))
            raise
        finally:
            stream.close()

    async def script(
        self,
        script: str,
        *arguments: str,
        timeout_s: float,
        content: bytes | None = None,
        limit_bytes: int = 4096,
        as_root: bool = False,
    ) -> Ended:
        """Run one of `scripts`, not bound to end at its deadline inside; `content` is its standard input."""
        argv = ["/bin/sh", "-c", script, "sh", *arguments]
        exec_id = await self._prepared(argv, stdin=content is not None, as_root=as_root)
        stream = await self._engine.attach(exec_id, ExecStream(limit_bytes, announces_pid=False))
        began = time.monotonic()
        try:
            if content is not None:
                stream.send(content)
            exit_code = await self._exit(exec_id, stream, timeout_s)
            return _ended(exit_code, stream, began)
        finally:
            stream.close()

    async def _prepared(self, argv: Sequence[str], *, stdin: bool = False, as_root: bool = False) -> str:
        """The id of an exec that has not been started yet."""
        client = self._engine.client
        user = ROOT if as_root else self.user
        created = await self._engine.call(
            "preparing a command",
            client.exec_create,
            self._container_id,
            list(argv),
            stdin=stdin,
            user=user,
            environment=self._environment_variables,
            workdir="/",
        )
        return str(created["Id"])

    async def open(self, argv: Sequence[str], stream: S) -> str:
        """Start `argv` with an open standard input; the id of the exec. The caller closes the stream."""
        client = self._engine.client
        created = await self._engine.call(
            "opening a channel",
            client.exec_create,
            self._container_id,
            list(argv),
            stdin=True,
            user=self.user,
            workdir="/",  # the container's own may have been removed
        )
        await self._engine.attach(created["Id"], stream)
        return str(created["Id"])

    async def is_running(self, exec_id: str, patience_s: float = 0.0) -> bool:
        """Whether the first process of an exec has not exited yet; a slow engine is asked again for `patience_s`."""
        return await self._exit_now(exec_id, patience_s) is None

    async def _exit(self, exec_id: str, stream: ExecStream, timeout_s: float) -> int | None:
        """The exit code, null when there is none after `timeout_s`; the end of the stream is a hint to look at once."""
        deadline = time.monotonic() + timeout_s
        pause = FIRST_LOOK_S
        while (left := deadline - time.monotonic()) > 0:
            if not stream.ended.done():
                await asyncio.wait({stream.ended}, timeout=min(pause, left))
            exit_code = await self._exit_now(exec_id, left)
            if exit_code is not None:
                await self._drain(stream)
                return exit_code
            if stream.ended.done():
                pause = SOON_S if pause >= FIRST_LOOK_S else pause
                await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_LOOK_S)
        return None

    async def _exit_now(self, exec_id: str, patience_s: float = 0.0) -> int | None:
        """The exit code, null while it runs; an engine that is too slow is asked again for `patience_s`."""
        found = await self._patiently(partial(self._engine.client.exec_inspect, exec_id), patience_s)
        exit_code = None if found["Running"] else found["ExitCode"]
        return None if exit_code is None else int(exit_code)

    async def check_engine(self, patience_s: float) -> None:
        """Raises TooSlow when the engine does not answer; it is asked again for `patience_s`."""
        await self._patiently(self._engine.client.ping, patience_s)

    async def _patiently(self, look: Callable[[], T], patience_s: float) -> T:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return await self._engine.call_within(LOOK_S, "waiting for a command", look)
            except TooSlow:
                if time.monotonic() >= deadline:
                    raise

    async def _drain(self, stream: ExecStream) -> None:
        """Take what is on its way, if a child holds the stream: until nothing comes for a moment."""
        deadline = time.monotonic() + LONGEST_DRAIN_S
        received = -1
        while not stream.ended.done() and received != stream.received and time.monotonic() < deadline:
            received = stream.received
            await asyncio.wait({stream.ended}, timeout=REST_S)

    async def end_session(
        self, session: int, exited: Callable[[float], Awaitable[bool]], grace_s: float, last_word: str = ""
    ) -> bool:
        """TERM, KILL when `exited` has waited `grace_s` for the command; then what `exited` says.

        `last_word` is written to where the session's first process has written, after its end, if that can be.

        Raises:
            SandboxStuck: not even shell builtins run in the container any more.
        """
        for _ in range(MOST_ENDINGS):
            if await self._signal_session(session, exited, grace_s, last_word):
                break
            grace_s = 0.0
        return await exited(GRACE_S)

    async def _signal_session(
        self, session: int, exited: Callable[[float], Awaitable[bool]], grace_s: float, last_word: str
    ) -> bool:
        """Whether the script ran to its end; it does not without memory, or when it is killed itself."""
        argv = ["/bin/sh", "-c", scripts.END_SESSION, "sh", str(session), last_word]
        ending_id = await self._prepared(argv, stdin=True, as_root=True)
        ending = await self._engine.attach(ending_id, ExecStream(0, announces_pid=False))
        try:
            await exited(grace_s)
            ending.send(b"\n")
            exit_code = await self._exit(ending_id, ending, BUILTINS_S)
        finally:
            ending.close()
        if exit_code is None:
            raise SandboxStuck(f"The container did not end a command within {BUILTINS_S:g} s")
        return exit_code == 0

    async def _end_command(self, exec_id: str, stream: ExecStream, grace_s: float) -> None:
        """Raises SandboxStuck, too, if the command was never started, or survives."""
        if stream.pid is None:
            raise SandboxStuck("The container did not start a command before its deadline")
        if not await self.end_session(stream.pid, partial(exits, partial(self.is_running, exec_id)), grace_s):
            raise SandboxStuck(SURVIVES)
        await self._drain(stream)

    async def _end_quietly(self, exec_id: str, stream: ExecStream, starting: asyncio.Future[ExecStream]) -> None:
        """KILL for a command whose caller is gone, once it has started; if that fails there is nobody to tell."""
        try:
            async with asyncio.timeout(LATE_START_S):
                await starting
                while stream.pid is None and not stream.ended.done():
                    await asyncio.wait({stream.ended}, timeout=START_LOOK_S)
            await self._end_command(exec_id, stream, 0.0)
        except (SandboxError, TimeoutError):
            return


async def exits(is_running: IsRunning, timeout_s: float) -> bool:
    """Whether a process exits within that time, whatever becomes of its output."""
    deadline = time.monotonic() + timeout_s
    pause = SOON_S
    while await is_running(0.0):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_LOOK_S)
    return True


def _ended(exit_code: int | None, stream: ExecStream, began: float) -> Ended:
    return Ended(exit_code, stream.stdout, stream.stderr, stream.pid is not None, time.monotonic() - began)

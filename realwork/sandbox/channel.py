"""A shell kept open in a container that runs one command after the other, far faster than an exec each.

Guarantees: those of an exec of its own (see `execs`). The shell is at the mercy of what runs in the container: what
damages it may falsify the answers to that container's own commands, and nothing else; every wait is bounded, every
length too. A damaged channel is opened anew; a command that it certainly did not start is left to an exec, so none runs
twice. A command whose channel is killed under it ends with it, with the exit code of a kill (137).

The first shell is one that the container starts with, on its own streams, where that can be and this machine sees its
process; else, and later, each is an exec.
"""

import asyncio
import time
from functools import partial

from realwork.errors import SandboxError, SandboxStuck
from realwork.sandbox import scripts
from realwork.sandbox.answers import AnswerStream, Marked, new_token
from realwork.sandbox.cgroups import Watched
from realwork.sandbox.execs import (
    FIRST_LOOK_S,
    GRACE_S,
    LONGEST_LOOK_S,
    QUIET_S,
    START_S,
    SURVIVES,
    Ended,
    Execs,
    IsRunning,
    exits,
)
from realwork.sandbox.first_shell import FirstShell
from realwork.sandbox.uncancelled import uncancelled

OPEN_S = 5.0
REST_S = 1.0
BUSY_START_S = 30.0
"""For a command to start when many others on this machine want to; its shell is nice to all of them."""
LAST_WORDS_S = 10.0
"""What a shell said before it was killed arrives by then, however busy the engine is."""
UNTOLD = "The container does not tell whether a command has started"
MOST_BYTES = 100_000
"""The kernel takes 128 KiB in one argument; longer commands are left to an exec."""
MOST_DAMAGES = 3
"""After that many, a container has no channel any more."""
KILLED = 137
ARGV = ["/bin/sh", "-c", "command -v nice >/dev/null && exec nice -n 19 /bin/sh; exec /bin/sh"]
"""Nice, as are the commands in `scripts.RUN`, which inherit it."""


class Channel:
    """The channel of one container; opened by the first command, closed by the owner."""

    def __init__(self, execs: Execs, first: FirstShell | None = None) -> None:
        self._execs = execs
        self._first = first
        self._shell: _Shell | None = None
        self._lock = asyncio.Lock()
        self._damages = 0

    async def command(
        self, command: str, *, timeout_s: float, working_directory: str, limit_bytes: int
    ) -> Ended | None:
        """Run a command in a session of its own; null when an exec has to do it, as it was not and will not be started.

        Raises:
            SandboxLost: the container is gone.
            SandboxStuck: not even shell builtins run in it any more.
            SandboxError: the engine did not answer.
        """
        return await self._run("own", working_directory, [command], timeout_s=timeout_s, limit_bytes=limit_bytes)

    async def script(self, script: str, *arguments: str, timeout_s: float, limit_bytes: int = 4096) -> Ended | None:
        """Run one of `scripts`, as `command` does, but in a fork of the channel's shell."""
        words = [script, "sh", *arguments]
        return await self._run("shared", "/", words, timeout_s=timeout_s, limit_bytes=limit_bytes)

    def close(self) -> None:
        """End the shell; a later command opens another one."""
        if self._first is not None:
            self._first.stream.close()
            self._first = None
        if self._shell is not None:
            self._shell.close()
            self._shell = None

    async def _run(
        self, kind: str, directory: str, words: list[str], *, timeout_s: float, limit_bytes: int
    ) -> Ended | None:
        request = _encoded([kind, directory, *words])
        if request is None or self._lock.locked() or self._damages >= MOST_DAMAGES:
            return None
        async with self._lock:
            shell = await self._ready()
            if shell is None:
                return None
            shell.ask(request, own_session=kind == "own", limit_bytes=limit_bytes)
            try:
                return await self._answer(shell, timeout_s)
            except asyncio.CancelledError:
                await uncancelled(self._cut_quietly(shell))
                raise
            except SandboxError:
                self.close()
                raise

    async def _ready(self) -> "_Shell | None":
        """A shell that nothing but ours writes to, opened if need be; null when there is none."""
        if self._shell is not None:
            if await self._shell.is_free():
                return self._shell
            self._damages += not self._shell.is_well
            self.close()
        self._shell = await self._taken_over() or await self._by_exec()
        return self._shell

    async def _taken_over(self) -> "_Shell | None":
        """The shell that the container has started with, null if there is none that can be used."""
        first, self._first = self._first, None
        if first is None:
            return None
        shell = _Shell(first.stream)
        try:
            if await first.is_there() and await shell.greet() and (process := first.watched(shell.pid)):
                shell.process, shell.is_running = process, partial(self._is_running, process)
                return shell
        except BaseException:
            shell.close()
            raise
        shell.close()
        return None

    async def _is_running(self, process: Watched, patience_s: float) -> bool:
        """Whether it has not ended; what it says comes through the engine, which has to answer, too."""
        is_running = await process.is_running()
        if is_running:
            await self._execs.check_engine(patience_s)
        return is_running

    async def _by_exec(self) -> "_Shell | None":
        shell = _Shell(AnswerStream())
        try:
            exec_id = await self._execs.open(ARGV, shell.stream)
            shell.is_running = partial(self._execs.is_running, exec_id)
            if await shell.greet():
                return shell
            self._damages = MOST_DAMAGES if shell.lacks_something else self._damages + 1
        except BaseException:
            shell.close()
            raise
        shell.close()
        return None

    async def _answer(self, shell: "_Shell", timeout_s: float) -> Ended | None:
        if not await shell.started():
            await uncancelled(self._give_up(shell))
            if shell.session is None:
                return None
        began = time.monotonic()
        damaged, exit_code = await self._exit(shell, timeout_s)
        if damaged:
            await uncancelled(self._give_up(shell))
            exit_code = KILLED
        elif exit_code is None:
            await uncancelled(self._cut(shell, GRACE_S))
        return shell.ended(exit_code, time.monotonic() - began)

    async def _exit(self, shell: "_Shell", timeout_s: float) -> tuple[bool, int | None]:
        """Whether the shell is lost, and the exit code of the command, null when there is none after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        pause = FIRST_LOOK_S
        while (left := deadline - time.monotonic()) > 0:
            if await shell.finished(min(pause, left)):
                return False, shell.exit_code
            if shell.stream.is_broken or not await shell.is_running(left):
                return not await shell.finished(QUIET_S), shell.exit_code
            pause = min(2 * pause, LONGEST_LOOK_S)
        return False, None

    async def _cut(self, shell: "_Shell", grace_s: float) -> None:
        """End the command; the shell goes on, unless it does not notice."""
        assert shell.session is not None
        if not await self._execs.end_session(shell.session, shell.finished, grace_s):
            await self._give_up(shell)

    async def _cut_quietly(self, shell: "_Shell") -> None:
        """End a command whose caller is gone; if that fails there is nobody to tell."""
        try:
            if await shell.started():
                await self._cut(shell, 0.0)
            else:
                await self._give_up(shell)
        except SandboxError:
            self.close()

    async def _give_up(self, shell: "_Shell") -> None:
        """Make sure that nothing of a damaged channel runs any more, or ever will, and whether its command has started.

        The command goes first: the engine waits for it once its shell is dead. One whose start is told only then has
        escaped the end of its shell.
        """
        self._damages += 1
        for _ in range(2):
            session = shell.session
            if session is not None and session != shell.pid:
                await self._execs.end_session(session, shell.gone, 0.0)
            exited = partial(exits, shell.is_running)
            ended = await self._execs.end_session(shell.pid, exited, 0.0, shell.last_word())
            is_told = await shell.said_all()
            if shell.session == session:
                break
        self.close()
        if not (ended and is_told):
            raise SandboxStuck(UNTOLD if ended else SURVIVES)


class _Shell:
    """One open shell, and the one command that it runs.

    Attributes:
        is_running: whether its process has not ended.
        process: where that is watched from outside, as the container has started with it.
        pid: its process id inside, which is that of its session.
        is_well: it answered when it was last asked whether it is free.
        lacks_something: it greeted, but the image does not have what it needs.
    """

    def __init__(self, stream: AnswerStream) -> None:
        self.stream = stream
        self.is_running: IsRunning = _is_starting
        self.process: Watched | None = None
        self.pid = 0
        self.is_well = True
        self.lacks_something = False
        self._own_session = False

    def close(self) -> None:
        """End it, as its input ends."""
        self.stream.close()
        if self.process is not None:
            self.process.close()

    async def greet(self) -> bool:
        """Whether it can be used."""
        token = new_token()
        self.stream.stdout = Marked([token], 0)
        self.stream.write(f"{scripts.CHANNEL}hello {token}\n".encode())
        if not await self.stream.wait(lambda: bool(self.stream.stdout.numbers), OPEN_S):
            return False
        self.pid = self.stream.stdout.numbers[0]
        self.lacks_something = self.pid == 0
        return not self.lacks_something

    async def is_free(self) -> bool:
        """Whether the last command has left nothing that may still write to its streams."""
        stdout = self.stream.stdout
        self.is_well = await self.stream.wait(lambda: len(stdout.numbers) in (1, 3), REST_S)
        self.is_well = self.is_well and not self.stream.is_broken
        if self.process is not None:
            self.is_well = self.is_well and await self.process.is_running()
        return self.is_well and (len(stdout.numbers) == 1 or stdout.numbers[2] == 0)

    def ask(self, request: bytes, *, own_session: bool, limit_bytes: int) -> None:
        """Send the words of a request; nothing of what came before is taken for its answer."""
        start, end, rest = new_token(), new_token(), new_token()
        self._own_session = own_session
        self.stream.stdout = Marked([start, end, rest], limit_bytes)
        self.stream.stderr = Marked([start, end], limit_bytes)
        self.stream.write(f"run {start} {end} {rest} ".encode() + request + b"\n")

    @property
    def session(self) -> int | None:
        """The session of the command, null as long as it has not started."""
        numbers = self.stream.stdout.numbers
        return None if not numbers else numbers[0] if self._own_session else self.pid

    @property
    def exit_code(self) -> int | None:
        if not self._is_over():
            return None
        said = self.stream.stdout.numbers[1]
        return said if said < 256 else KILLED  # no shell says more

    async def started(self) -> bool:
        """Whether the command has started; it does soon, or never of itself, unless this machine is too busy."""
        deadline = time.monotonic() + BUSY_START_S
        while not await self.stream.wait(lambda: self.session is not None, START_S):
            is_slow = self.process is not None and not self.stream.is_broken and await self.process.is_busy()
            if not is_slow or time.monotonic() > deadline:
                return False
        return True

    def last_word(self) -> str:
        """What is to be written behind all that this shell has, as the streams of a container do not end with it."""
        if self.process is None:
            return ""
        self.stream.stdout.last_word = self.stream.stdout.last_word or new_token()
        return self.stream.stdout.last_word

    async def said_all(self) -> bool:
        """Whether the start of the command has been told by a shell that is dead, or never will be."""
        stdout = self.stream.stdout
        await self.stream.wait(lambda: self.session is not None or stdout.is_over, LAST_WORDS_S)
        return self.session is not None or self.stream.is_broken or stdout.is_over

    async def finished(self, timeout_s: float) -> bool:
        """Whether the command ends within that time."""
        return await self.stream.wait(self._is_over, timeout_s)

    async def gone(self, timeout_s: float) -> bool:
        """Whether the stream ends, for which there is no need to wait long: what was killed does not come back."""
        return await self.stream.wait(self.stream.ended.done, min(timeout_s, QUIET_S))

    def ended(self, exit_code: int | None, duration_s: float) -> Ended:
        """What became of the command."""
        stdout, stderr = self.stream.stdout, self.stream.stderr
        if not self._is_over():
            stdout.flush()
            stderr.flush()
        kills = stderr.numbers[1] if self._is_over() else None
        return Ended(exit_code, stdout.output, stderr.output, started=True, duration_s=duration_s, oom_kills=kills)

    def _is_over(self) -> bool:
        return len(self.stream.stdout.numbers) > 1 < len(self.stream.stderr.numbers)


async def _is_starting(_patience_s: float) -> bool:
    return True


def _encoded(words: list[str]) -> bytes | None:
    """The words as a shell reads them; null when they are too long, or not text that it can be told."""
    line = " ".join(map(scripts.quote, words))
    try:
        request = line.encode()
    except UnicodeEncodeError:
        return None
    return request if len(request) <= MOST_BYTES and "\0" not in line else None

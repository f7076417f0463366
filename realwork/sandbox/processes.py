"""Processes of this machine, found and ended by the session or the folder they belong to.

Guarantees: only processes of this user that bear the session or the mark are signalled. Where there is no `/proc`,
process groups alone are reached.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from realwork.sandbox import scripts
from realwork.sandbox.capture import Capture
from realwork.sandbox.uncancelled import uncancelled

GRACE_S = 1.5
"""Between TERM and KILL."""
QUIET_S = 0.05
LONGEST_DRAIN_S = 0.5


def signal_session(number: signal.Signals, leader: int) -> None:
    """Send a signal to every process of the group and session that `leader` leads."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)
    for pid in _pids():
        if _session(pid) == leader:
            _send(number, pid)


def kill_marked(mark: bytes) -> int:
    """KILL every process whose environment contains `mark`; how many there were."""
    found = [pid for pid in _pids() if pid != os.getpid() and mark in _environment(pid)]
    for pid in found:
        _send(signal.SIGKILL, pid)
    return len(found)


class LocalCommand:
    """One command in a session of its own, its output kept as it comes."""

    def __init__(self, limit_bytes: int) -> None:
        self.stdout = Capture(limit_bytes)
        self.stderr = Capture(limit_bytes)

    async def run(
        self, parts: Sequence[str], folder: Path, environment: dict[str, str], timeout_s: float
    ) -> int | None:
        """Run a command in `parts` (see `scripts.split_command`); its exit code, null when the deadline ended it."""
        pipes: list[asyncio.ReadTransport] = []
        ends: list[asyncio.Future[None]] = []
        try:
            out = await self._pipe(self.stdout, pipes, ends)
            try:
                err = await self._pipe(self.stderr, pipes, ends)
                try:
                    process = await asyncio.create_subprocess_exec(
                        "/bin/sh", "-c", scripts.RUN, "sh", *parts,
                        stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=err,
                        cwd=folder, env=environment, start_new_session=True,
                    )  # fmt: skip
                finally:
                    os.close(err)
            finally:
                os.close(out)
            exit_code = await self._exit(process, timeout_s)
            await self._drain(ends)
            return exit_code
        finally:
            for pipe in pipes:
                pipe.close()

    async def _pipe(
        self, capture: Capture, pipes: list[asyncio.ReadTransport], ends: list[asyncio.Future[None]]
    ) -> int:
        reading, writing = os.pipe()
        loop = asyncio.get_running_loop()
        transport, pipe = await loop.connect_read_pipe(lambda: _Pipe(capture), os.fdopen(reading, "rb", buffering=0))
        pipes.append(transport)
        ends.append(pipe.ended)
        return writing

    async def _exit(self, process: asyncio.subprocess.Process, timeout_s: float) -> int | None:
        try:
            code = await asyncio.wait_for(process.wait(), timeout_s)
        except TimeoutError:
            await uncancelled(self._end_session(process))
            return None
        except asyncio.CancelledError:
            signal_session(signal.SIGKILL, process.pid)
            await uncancelled(process.wait())
            raise
        return 128 - code if code < 0 else code

    async def _end_session(self, process: asyncio.subprocess.Process) -> None:
        signal_session(signal.SIGTERM, process.pid)
        waiting = asyncio.ensure_future(process.wait())
        await asyncio.wait({waiting}, timeout=GRACE_S)
        signal_session(signal.SIGKILL, process.pid)
        await waiting

    async def _drain(self, ends: list[asyncio.Future[None]]) -> None:
        """Take what is on its way, if a child holds the pipes: until nothing comes for a moment."""
        deadline = time.monotonic() + LONGEST_DRAIN_S
        received = -1
        while received != (total := self.stdout.total + self.stderr.total) and time.monotonic() < deadline:
            received = total
            _, waiting = await asyncio.wait(ends, timeout=QUIET_S)
            if not waiting:
                return


class _Pipe(asyncio.Protocol):
    """Feeds what comes through a pipe into a capture."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._capture.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


def _pids() -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                yield int(entry.name)


def _session(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[3])


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _send(number: signal.Signals, pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)

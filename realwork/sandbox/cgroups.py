"""The processes of a container as this machine sees them.

Guarantees: nothing inside the container is asked or believed; where this process may not look, or the engine is on
another machine, there is nothing to be seen.
"""

import os
import select
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_BUSY = ("R", "D")


def processes(container_id: str, pid: int) -> Iterator[int]:
    """Those of the container whose first one is `pid`, as this machine numbers them. Blocks."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            controller, path = line.split(":", 2)[1:]
            if container_id in path and controller in ("pids", ""):
                for file in (_CGROUPS / controller / path.lstrip("/")).rglob("cgroup.procs"):
                    yield from map(int, file.read_text().split())


def is_alone(container_id: str, pid: int) -> bool:
    """Whether nothing but its first process, `pid`, is seen to run in the container. Blocks."""
    return list(processes(container_id, pid)) == [pid]


class Watched:
    """The process `pid` of a container, watched from outside, whatever becomes of its number.

    `descriptor` is of the process, closed by `close`, or when its end has been seen; `peers` gives the processes of the
    container.
    """

    def __init__(self, pid: int, descriptor: int, peers: Callable[[], Iterable[int]]) -> None:
        self._pid = pid
        self._peers = peers
        self._descriptor: int | None = descriptor
        self._has_ended = False
        self._end = select.poll()
        self._end.register(descriptor, select.POLLIN)

    async def is_running(self) -> bool:
        """Whether its end has not been seen."""
        if self._descriptor is not None and self._end.poll(0):
            self._has_ended = True
            self.close()
        return not self._has_ended

    async def is_busy(self) -> bool:
        """Whether it, or another process of the session that it leads, has something to do, if only it is let."""
        return await self.is_running() and any(_is_busy(each, self._pid) for each in self._peers())

    def close(self) -> None:
        """Watch it no more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def watch(container_id: str, pid: int, number: int) -> Watched | None:
    """The process that is number `number` in the container whose first one is `pid`; null if it is not seen."""
    for each in processes(container_id, pid):
        with suppress(OSError):
            if _number_inside(each) != number:
                continue
            watched = Watched(each, os.pidfd_open(each), partial(processes, container_id, pid))
            try:
                is_still = _number_inside(each) == number  # else the descriptor may be of another one
            except OSError:
                is_still = False
            if is_still:
                return watched
            watched.close()
    return None


def command_of(pid: int) -> bytes:
    """The first word of the command line of a process; empty if it is not seen."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
    return b""


def _is_busy(pid: int, session: int) -> bool:
    with suppress(OSError):
        state, _, _, of = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
        return state in _BUSY and int(of) == session
    return False


def _number_inside(pid: int) -> int | None:
    """The number that a process has in its container, which is the only one beside this machine's; else null."""
    status = Path(f"/proc/{pid}/status").read_text()
    numbers = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return int(numbers[1]) if len(numbers) == 2 else None

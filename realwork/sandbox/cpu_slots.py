"""CPU slots: how many commands and tests run at the same moment on a node, over all processes and runs of a user.

Guarantees: never more takings at once than there are slots; the kernel frees the slot of a process that dies; nothing
blocks the event loop. There is no server: a slot is a lock on a file, and whoever has to wait looks again and again.
Runs with different numbers of slots share the files of the smaller number.
"""

import asyncio
import fcntl
import math
import os
import random
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

from realwork.errors import NoSlot, SandboxError, blame

SHORTEST_PAUSE_S = 0.005
LONGEST_PAUSE_S = 0.05
SHORTEST_LATE_PAUSE_S = 0.02
"""Of those who have waited long; there may be hundreds of them."""
HALVED_AFTER_S = 30.0


@runtime_checkable
class Slots(Protocol):
    """The slots of this node, as one rollout takes them."""

    @property
    def waited_s(self) -> float:
        """Seconds that all takings together have waited, those in vain included."""

    def taken(self, *, longest_s: float = math.inf) -> AbstractAsyncContextManager[float]:
        """A slot for the length of the block; gives the seconds for which it was waited.

        Raises:
            NoSlot: none was free within `longest_s`.
            SandboxError: there is no place for the files.
        """


class NoSlots:
    """No bound: nobody waits."""

    waited_s = 0.0

    @asynccontextmanager
    async def taken(self, *, longest_s: float = math.inf) -> AsyncIterator[float]:
        """See `Slots.taken`."""
        yield 0.0


class CpuSlots:
    """`count` slots; see `Slots`."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.waited_s = 0.0

    @asynccontextmanager
    async def taken(self, *, longest_s: float = math.inf) -> AsyncIterator[float]:
        """See `Slots.taken`."""
        wait = _Wait(longest_s)
        try:
            with blame(SandboxError, "taking a CPU slot"):
                slot = await self._take(wait)
        finally:
            waited_s = wait.so_far_s
            self.waited_s += waited_s
        try:
            yield waited_s
        finally:
            os.close(slot)

    async def _take(self, wait: "_Wait") -> int:
        """An open file that is locked; its end frees the slot.

        One of those who want the same number of slots looks for a free one, the others look whether it is their turn:
        the cost of waiting does not grow with the slots, and nobody who comes later takes what the first one waits for.
        """
        folder = _folder()
        with _opened(folder / f"next-of-{self._count}") as turn:
            while not _is_locked_now(turn):
                await wait.pause()
            while (slot := self._free_slot(folder)) is None:
                await wait.pause(SHORTEST_PAUSE_S)
            return slot

    def _free_slot(self, folder: Path) -> int | None:
        """A slot that nobody has, locked; those that runs with fewer slots do not know come first."""
        for number in reversed(range(self._count)):
            slot = _open(folder / f"slot-{number}")
            try:
                is_ours = _is_locked_now(slot)
            except BaseException:
                os.close(slot)
                raise
            if is_ours:
                return slot
            os.close(slot)
        return None


class _Wait:
    """The wait of one taking, from now on.

    Pauses grow, so that short waits are noticed soon and long ones cost little; then they shrink again, so that who has
    waited longest looks most often.
    """

    def __init__(self, longest_s: float) -> None:
        self._began = time.monotonic()
        self._longest_s = longest_s
        self._pause_s = SHORTEST_PAUSE_S

    @property
    def so_far_s(self) -> float:
        return time.monotonic() - self._began

    async def pause(self, pause_s: float | None = None) -> None:
        """Wait for a moment.

        Raises:
            NoSlot: the time is over.
        """
        waited_s = self.so_far_s
        if waited_s >= self._longest_s:
            raise NoSlot(f"no CPU slot was free for {waited_s:.1f} s")
        if pause_s is None:
            late_s = max(SHORTEST_LATE_PAUSE_S, LONGEST_PAUSE_S / (1 + waited_s / HALVED_AFTER_S))
            pause_s = min(self._pause_s, late_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        await asyncio.sleep(min(pause_s * random.uniform(0.5, 1.0), self._longest_s - waited_s))


def _folder() -> Path:
    """Where the files of this user's slots stand.

    Raises:
        SandboxError: it is another user's, or open to others.
    """
    folder = Path(tempfile.gettempdir()) / f"realwork-slots-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SandboxError(f"{folder} is no folder of this user's alone, which CPU slots need; remove it")
    return folder


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = _open(path)
    try:
        yield file
    finally:
        os.close(file)


def _open(path: Path) -> int:
    """The file at `path`, opened anew, as the lock is that of an opening; no child process inherits it."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _is_locked_now(file: int) -> bool:
    """Whether it could be locked at once, or was so already."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

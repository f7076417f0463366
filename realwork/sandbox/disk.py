"""Bounds what a sandbox writes to disk on an engine that has no quota: measures, and kills everything past the budget.

Guarantees: the budget is passed by at most what can be written between two looks, which are the closer together the
less is left, and take no more than a tenth of the time unless one takes very long; one that fails is made again.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from realwork.errors import SandboxError

log = logging.getLogger(__name__)

SHORTEST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 5.0
FASTEST_WRITER = 2 << 30
"""Bytes a second that no disk is expected to take."""
SHARE = 0.1
LONGEST_REST_S = 15.0


class DiskGuard:
    """Watches one sandbox.

    Attributes:
        is_full: whether the budget was passed; it stays so.
    """

    def __init__(
        self, budget_bytes: int, measure: Callable[[], Awaitable[int]], kill_all: Callable[[], Awaitable[None]]
    ) -> None:
        self.is_full = False
        self._budget_bytes = budget_bytes
        self._limit_bytes = budget_bytes
        self._is_raised = False
        self._measure = measure
        self._kill_all = kill_all
        self._looking = asyncio.Lock()

    async def begin_here(self) -> None:
        """Count only what is written from now on.

        Raises:
            SandboxError: what there is cannot be measured.
        """
        async with self.not_counting():
            pass

    @asynccontextmanager
    async def not_counting(self) -> AsyncIterator[None]:
        """Count only what is written after the block, and do not look before its end.

        Raises:
            SandboxError: what there is cannot be measured.
        """
        async with self._looking:
            yield
            self._limit_bytes = await self._measure() + self._budget_bytes
            self.is_full = self._is_raised = False

    async def watch(self) -> None:
        """Look again and again, until the task is cancelled; a paused container may come back."""
        pause_s = SHORTEST_PAUSE_S
        while True:
            await asyncio.sleep(pause_s)
            began = time.monotonic()
            try:
                async with self._looking:
                    left = self._limit_bytes - await self._measure()
                    if left < 0:
                        await self._stop_writers()
            except SandboxError as error:
                log.info("The disk use of a sandbox cannot be measured: %s", error)
                left = 0
            pause_s = max(_pause_s(left), min(LONGEST_REST_S, (time.monotonic() - began) / SHARE))

    async def _stop_writers(self) -> None:
        """Kill everything; the tests, which may still run there, have one more budget in all."""
        self.is_full = True
        await self._kill_all()
        if not self._is_raised:
            self._limit_bytes = await self._measure() + self._budget_bytes
            self._is_raised = True


@asynccontextmanager
async def watched(guard: DiskGuard | None) -> AsyncIterator[None]:
    """Let `guard`, if there is one, watch for the length of the block."""
    task = asyncio.create_task(guard.watch()) if guard is not None else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait({task})


def _pause_s(left_bytes: int) -> float:
    return min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, left_bytes / FASTEST_WRITER))

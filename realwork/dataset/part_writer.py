"""Puts rows into parts in the background, and what is finished into object storage.

Guarantees: rows are put into a part when there are enough for one, or the oldest has waited long enough; when much more
than one part's worth waits, whoever adds rows waits, too.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from realwork.dataset.ledger import Ledger
from realwork.dataset.sealing import Sealer, Sealing
from realwork.errors import StoreError, blame

log = logging.getLogger(__name__)
MAX_HELD = 4
"""So many parts' worth of rows may wait in the ledger."""


class PartWriter:
    """Writes the parts of one ledger, in threads; use it from one event loop.

    Args:
        copy_out: puts what is finished into object storage; is told whether nothing comes after it.
    """

    def __init__(
        self,
        directory: Path,
        ledger: Ledger,
        *,
        sealer: Sealer,
        limits: Sealing,
        copy_out: Callable[[bool], None] | None,
    ) -> None:
        self._directory = directory
        self._ledger = ledger
        self._sealer = sealer
        self._limits = limits
        self._copy_out = copy_out
        self._held = ledger.parts.unsealed()
        self._working: asyncio.Task[None] | None = None
        self._is_full = asyncio.Event()
        self._turn = asyncio.Lock()
        self._closed = False

    def begin(self) -> None:
        """Work in the background from now on, if it is not done already."""
        if self._working is None:
            self._working = asyncio.create_task(self._work())

    def add(self, *, rows: int, size_bytes: int) -> None:
        """Take note that the ledger holds so much more."""
        self._held = self._held._replace(rows=self._held.rows + rows, size_bytes=self._held.size_bytes + size_bytes)
        if self._fills_a_part():
            self._is_full.set()

    async def keep_up(self) -> None:
        """Wait while too much is held.

        Raises:
            StoreError: a part could not be written.
        """
        if self._held.size_bytes > MAX_HELD * self._limits.size_bytes:
            await self._seal_while(self._fills_a_part)

    async def seal(self) -> None:
        """Put every row that is in the ledger into parts.

        Raises:
            StoreError: a part could not be written; its rows are safe in the ledger.
        """
        await self._seal_while(lambda: True)

    async def close(self) -> None:
        """End the work in the background, put everything into parts, and those into object storage.

        Raises:
            StoreError: not everything is there.
        """
        self._closed = True
        if self._working is not None:
            self._is_full.set()
            await self._working
        await self.seal()
        await self._copied_out(is_last=True)

    def _fills_a_part(self) -> bool:
        return self._held.rows >= self._limits.rows or self._held.size_bytes >= self._limits.size_bytes

    async def _seal_while(self, wanted: Callable[[], bool], *, at_least: int = 0) -> None:
        async with self._turn:
            while at_least > 0 or wanted():
                if not await asyncio.to_thread(self._sealer.seal):
                    return
                self._held = await asyncio.to_thread(self._ledger.parts.unsealed)
                at_least -= 1

    async def _work(self) -> None:
        while not self._closed:
            at_least = 0
            try:
                async with asyncio.timeout(self._limits.age_s):
                    await self._is_full.wait()
            except TimeoutError:
                at_least = 1  # what comes in meanwhile has time
            self._is_full.clear()
            try:
                with blame(StoreError, f"{self._directory} could not be written"):
                    await self._seal_while(self._fills_a_part, at_least=at_least)
                    await self._copied_out()
            except StoreError as error:
                log.warning("%s", error)

    async def _copied_out(self, *, is_last: bool = False) -> None:
        if self._copy_out is not None:
            await asyncio.to_thread(self._copy_out, is_last)

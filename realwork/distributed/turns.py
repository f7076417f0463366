"""Turns to start a process on a node, so that what starts does not starve itself and what plays already.

Guarantees: at most `most_starting` hold a turn on a node at once; the others get theirs in the order in which they
asked; one that is cancelled while it waits is out of the queue; when one hangs, all that wait with it fail with it;
nodes know nothing of each other.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

FEWEST = 2
PER_CPU = 2


def most_starting(cpus: float) -> int:
    """How many processes may start at once on a node with that many CPUs.

    To load its modules keeps a process busy nearly all the time, so that more would only take longer each; two for each
    CPU leave none idle while some wait for Ray. A node that gives away no CPU has some all the same.
    """
    return max(FEWEST, int(PER_CPU * cpus))


class Turns:
    """The turns of all nodes, of whose CPUs `cpus` knows the number by the id of the node."""

    def __init__(self, cpus: Callable[[str], float]) -> None:
        self._cpus = cpus
        self._of: dict[str, Turn] = {}

    def on(self, node_id: str) -> "Turn":
        """That of a node."""
        if node_id not in self._of:
            self._of[node_id] = Turn(most_starting(self._cpus(node_id)))
        return self._of[node_id]


class Turn:
    """Taken for as long as a process starts on a node, by at most `most` at once."""

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)
        self._hung_at = 0.0

    @asynccontextmanager
    async def taken(self, within_s: float) -> AsyncIterator[None]:
        """Hold a turn for the length of the block, which must end within so many seconds.

        Raises:
            TimeoutError: it did not, or that of another did not meanwhile: nobody has to wait for one after the other.
        """
        asked_at = time.monotonic()
        async with self._free:
            if self._hung_at > asked_at:
                raise TimeoutError
            try:
                async with asyncio.timeout(within_s):
                    yield
            except TimeoutError:
                self._hung_at = time.monotonic()
                raise

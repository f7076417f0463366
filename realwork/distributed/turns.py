"""Turns to start a process on a node, so that what starts does not starve itself and what plays already.

Guarantees: at most `most_starting` hold a turn on a node at once; the others get theirs in the order in which they
asked; one that is cancelled while it waits is out of the queue; nodes know nothing of each other.
"""

import asyncio
from collections.abc import Callable

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
        self._of: dict[str, asyncio.Semaphore] = {}

    def on(self, node_id: str) -> asyncio.Semaphore:
        """What is held for as long as a process starts on the node."""
        if node_id not in self._of:
            self._of[node_id] = asyncio.Semaphore(most_starting(self._cpus(node_id)))
        return self._of[node_id]

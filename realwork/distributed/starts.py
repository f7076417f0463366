"""How many processes of rollouts start on a node at the same time.

Each loads a second's worth of libraries or more: all at once they keep each other from it, and what already plays, too.
"""

import asyncio
from collections.abc import Callable

FEWEST = 4
FOR_EACH_CPU = 2
"""Half of what Ray warns of."""


class Starts:
    """The turns of a run; `cpus` tells how many CPUs a node has, by its id."""

    def __init__(self, cpus: Callable[[str], float]) -> None:
        self._cpus = cpus
        self._turns: dict[str, asyncio.Semaphore] = {}

    def on(self, node_id: str) -> asyncio.Semaphore:
        """Held while a process starts on the node; turns are given in the order in which they are asked for."""
        if node_id not in self._turns:
            self._turns[node_id] = asyncio.Semaphore(max(FEWEST, int(FOR_EACH_CPU * self._cpus(node_id))))
        return self._turns[node_id]

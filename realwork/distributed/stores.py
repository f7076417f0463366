"""The store actors of a run, of which each group of rollouts has one."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from ray.exceptions import RayError

from realwork.dataset.shards import shard_number
from realwork.distributed.answers import answer
from realwork.distributed.hosts import Host
from realwork.errors import StoreError
from realwork.types import RolloutSpec, Trajectory


class Stores:
    """The stores of one run; goes to its actors."""

    def __init__(self, actors: list[Any]) -> None:
        self._actors = actors

    @property
    def central(self) -> Any:
        """The first of them, which has the run's name."""
        return self._actors[0]

    def of(self, spec: RolloutSpec) -> Any:
        """The store of that rollout."""
        return self._actors[self._index(spec.environment_id, spec.group_index)]

    def _index(self, environment_id: str, group_index: int | None) -> int:
        return shard_number(environment_id, group_index, of=len(self._actors))

    async def plan(self, rollouts: Mapping[str, int], group_index: Callable[[int], int | None]) -> None:
        """Note how many rollouts of each environment the run is to play, and the group of each sample.

        Raises:
            StoreError: it could not be written.
            RayError: a store is gone.
        """
        names: list[list[str]] = [[] for _ in self._actors]
        for environment_id, count in rollouts.items():
            for sample in range(count):
                names[self._index(environment_id, group_index(sample))].append(f"{environment_id}:{sample}")
        await asyncio.gather(*(answer(actor.plan.remote(own)) for actor, own in zip(self._actors, names, strict=True)))

    async def recall(self, spec: RolloutSpec) -> Trajectory | None:
        """The committed trajectory of an attempt, null if its store cannot give it."""
        try:
            found: Trajectory | None = await answer(self.of(spec).recall.remote(spec.trajectory_id))
        except (RayError, StoreError):
            return None
        return found

    async def close(self) -> None:
        """Put every row into a part.

        Raises:
            StoreError: not everything is in a part; what was acknowledged is in a ledger.
            RayError: a store is gone.
        """
        await asyncio.gather(*(answer(actor.close.remote()) for actor in self._actors))

    def kill(self, host: Host) -> None:
        """End their processes."""
        for actor in self._actors:
            host.kill(actor)

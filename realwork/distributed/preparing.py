"""Gets the images of environments ready on the nodes where they are played.

Guarantees: an environment is prepared once in the cluster, and from then on handed from node to node; on each node one
rollout prepares while the others wait, and what fails it fails them; at most `RECEIVERS` nodes get an image from the
same node at once, and each that has it gives it on.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

from realwork.config import EnvironmentConfig
from realwork.distributed.dispatcher import Started
from realwork.errors import Cancelled, EpisodeError
from realwork.schedule import Placement, Schedule
from realwork.types import RolloutSummary

RECEIVERS = 2


class Preparing:
    """What is prepared where, of the `environments` of a run by their ids."""

    def __init__(
        self,
        environments: Mapping[str, EnvironmentConfig],
        schedule: Schedule,
        placement: Placement,
        doing: Callable[[str], None],
    ) -> None:
        self._environments = environments
        self._schedule = schedule
        self._placement = placement
        self._doing = doing
        self._going_on: dict[tuple[str, str], asyncio.Future[EpisodeError | None]] = {}
        self._changed = asyncio.Condition()
        self._receiving: Counter[str] = Counter()

    async def prepare(self, started: Started, timeout_multiplier: float) -> RolloutSummary | None:
        """Prepare the rollout's environment on its node, if that is to do; null, or how it ended as that failed.

        Raises as `Slot.play` does.
        """
        environment_id, node_id = started.spec.environment_id, started.slot.node_id
        if not self._environments[environment_id].needs_preparation:
            return None
        error: EpisodeError | None = None
        while node_id not in self._placement.with_image(environment_id):
            going_on = self._going_on.get((node_id, environment_id))
            if going_on is None:
                error = await self._bring(started, timeout_multiplier)
            else:
                error = await asyncio.shield(going_on)
            if error is not None and not (isinstance(error, Cancelled) and going_on is not None):
                return await started.slot.end_with(started.spec, error)
            if error is None:
                break
        return None

    async def _bring(self, started: Started, timeout_multiplier: float) -> EpisodeError | None:
        """Prepare the rollout's environment on its node; why that failed, null if it did not."""
        environment_id, node_id = started.spec.environment_id, started.slot.node_id
        place = (node_id, environment_id)
        outcome: asyncio.Future[EpisodeError | None] = asyncio.get_running_loop().create_future()
        self._going_on[place] = outcome
        error: EpisodeError | None = Cancelled("its preparation was cut off")
        try:
            async with self._source(environment_id) as source:
                await started.slot.prepare(
                    started.spec,
                    timeout_multiplier=timeout_multiplier,
                    source=source,
                    on_long=partial(self._doing, self._what(started, source)),
                )
            error = None
            self._placement.note_image(node_id, environment_id)
            self._schedule.prepared(environment_id)
        except EpisodeError as failed:
            error = failed
        finally:
            del self._going_on[place]
            outcome.set_result(error)
            async with self._changed:
                self._changed.notify_all()
        return error

    @asynccontextmanager
    async def _source(self, environment_id: str) -> AsyncIterator[str | None]:
        """A node that has the environment's image and gives it to few others, for the length of the block.

        Waits for one if need be; null where none has it.
        """
        async with self._changed:
            while True:
                having = self._placement.with_image(environment_id)
                source = min(having, key=lambda node_id: self._receiving[node_id], default=None)
                if source is None or self._receiving[source] < RECEIVERS:
                    break
                await self._changed.wait()
        if source is None:
            yield None
            return
        self._receiving[source] += 1
        try:
            yield source
        finally:
            self._receiving[source] -= 1

    def _what(self, started: Started, source: str | None) -> str:
        environment = self._environments[started.spec.environment_id]
        if source is not None:
            return f"Bringing the image of environment {environment.id} to another node"
        commands = len(environment.init_commands)
        what = f"{commands} init command{'' if commands == 1 else 's'}" if commands else "copied folders"
        return f"Preparing environment {environment.id}: {what}"

"""Gets the images of environments ready on the nodes where they are played.

Guarantees: an environment is prepared once in the cluster, and from then on handed from node to node; on each node one
rollout prepares while the others wait; at most `RECEIVERS` nodes get an image from the same node at once.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial

from realwork.config import EnvironmentConfig
from realwork.distributed.dispatcher import Started
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
        self._going_on: dict[tuple[str, str], asyncio.Event] = {}
        self._senders: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(RECEIVERS))
        self._receiving: defaultdict[str, int] = defaultdict(int)

    async def prepare(self, started: Started, timeout_multiplier: float) -> RolloutSummary | None:
        """Prepare the rollout's environment on its node, if that is to do; null, or how it ended as that failed."""
        environment_id, node_id = started.spec.environment_id, started.slot.node_id
        place = (node_id, environment_id)
        if not self._environments[environment_id].needs_preparation:
            return None
        while (going_on := self._going_on.get(place)) is not None:
            await going_on.wait()
        having = self._placement.with_image(environment_id)
        if node_id in having:
            return None
        self._going_on[place] = asyncio.Event()
        try:
            summary = await self._bring(started, having, timeout_multiplier)
        finally:
            self._going_on.pop(place).set()
        if summary is None:
            self._placement.note_image(node_id, environment_id)
            self._schedule.prepared(environment_id)
        return summary

    async def _bring(self, started: Started, having: list[str], timeout_multiplier: float) -> RolloutSummary | None:
        source = min(having, key=lambda node_id: self._receiving[node_id], default=None)
        async with self._from(source):
            return await started.slot.prepare(
                started.spec,
                timeout_multiplier=timeout_multiplier,
                source=source,
                on_long=partial(self._doing, self._what(started, source)),
            )

    def _from(self, source: str | None) -> AbstractAsyncContextManager[None]:
        return self._sent_by(source) if source is not None else nullcontext()

    @asynccontextmanager
    async def _sent_by(self, source: str) -> AsyncIterator[None]:
        self._receiving[source] += 1
        try:
            async with self._senders[source]:
                yield
        finally:
            self._receiving[source] -= 1

    def _what(self, started: Started, source: str | None) -> str:
        environment = self._environments[started.spec.environment_id]
        if source is not None:
            return f"Bringing the image of environment {environment.id} to another node"
        commands = len(environment.init_commands)
        what = f"{commands} init command{'' if commands == 1 else 's'}" if commands else "copied folders"
        return f"Preparing environment {environment.id}: {what}"

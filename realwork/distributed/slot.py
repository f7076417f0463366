"""A place for one rollout at a time, on the driver's side.

Guarantees: whatever becomes of the actor, a rollout that was given to it ends with a row, within a bounded time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ray.exceptions import RayError

from realwork.config import RunConfig
from realwork.distributed.answers import answer
from realwork.distributed.hosts import Host
from realwork.distributed.rollout_actor import RolloutActor
from realwork.distributed.stores import Stores
from realwork.errors import Cancelled, EpisodeError, ImageError, NodeError, PrepareError, RealworkError
from realwork.record import RolloutSettings, failed_rollout
from realwork.rollout import OVERTIME_S, bound_s, preparation_s
from realwork.types import RolloutSpec, RolloutSummary

ACTOR_MIB = 200
LONG_S = 3.0
STORE_WAIT_S = 120.0
STORE_WAIT_STOPPING_S = 10.0


def rollout_memory_mib(config: RunConfig) -> int:
    """What one rollout in flight reserves, since any may be next: the highest limit of a sandbox and its process."""
    return max(config.limits(each).memory_mib for each in config.environments) + ACTOR_MIB


class Slot:
    """A place for one rollout at a time: an actor that is replaced when it is lost or worn out."""

    def __init__(
        self, host: Host, settings: RolloutSettings, shared: Any, stores: Stores, gate: Any, key: list[Any]
    ) -> None:
        self._host = host
        self._settings = settings
        self._shared = shared
        self._stores = stores
        self._gate = gate
        self._key = key
        self._actor: Any = None
        self._set_up: Any = None
        self._played = 0
        self._is_stopping = False
        self._is_cut = False

    def begin(self) -> None:
        """Start the actor's process, which takes seconds, before there is something to play; waits for nothing."""
        if self._actor is None:
            self._played = 0
            self._actor = self._host.start(RolloutActor, **self._options())
            self._set_up = self._actor.setup.remote(self._shared, self._stores, self._gate, self._key, self._host.calls)

    async def prepare(
        self, spec: RolloutSpec, *, timeout_multiplier: float, on_long: Callable[[], None]
    ) -> RolloutSummary | None:
        """Prepare the environment of `spec` on the actor's node; null, or how `spec` ended because that failed.

        `on_long` is called when that takes more than a moment. Raises as `play` does.
        """
        config = self._settings.stretched(timeout_multiplier).config
        longest_s = preparation_s(config, config.environment(spec.environment_id)) + OVERTIME_S

        async def prepared(actor: Any) -> None:
            late = asyncio.get_running_loop().call_later(LONG_S, on_long)
            try:
                await answer(actor.prepare.remote(spec, timeout_multiplier))
            finally:
                late.cancel()

        try:
            await self._ask(longest_s, prepared)
        except EpisodeError as error:
            return await self._ended_by(spec, error)
        return None

    async def play(self, spec: RolloutSpec, *, queue_s: float, timeout_multiplier: float) -> RolloutSummary:
        """The outcome of `spec`, played with its timeouts multiplied, which stands in the dataset.

        Raises:
            StoreError: not even a row that says so could be written.
            RayError: the store is gone.
            TimeoutError: the store does not answer.
        """
        config = self._settings.stretched(timeout_multiplier).config
        longest_s = bound_s(config, config.environment(spec.environment_id))
        try:
            summary: RolloutSummary = await self._ask(
                longest_s, lambda actor: answer(actor.run.remote(spec, queue_s, timeout_multiplier))
            )
        except EpisodeError as error:
            return await self._ended_by(spec, error)
        self._played += 1
        if self._played == config.rollout_config.rollouts_per_actor:
            self.kill()
        return summary

    async def _ask(self, longest_s: float, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """What `work` with the actor returns within `longest_s`; an actor that failed itself is killed.

        Raises:
            EpisodeError: as the actor raised it, or `NodeError` if it did not answer.
        """
        try:
            async with asyncio.timeout(longest_s):
                self.begin()
                actor = self._actor
                await answer(self._set_up)
                return await work(actor)
        except (PrepareError, ImageError, Cancelled):
            raise
        except EpisodeError:
            self.kill()
            raise
        except TimeoutError as error:
            self.kill()
            raise NodeError(f"the rollout's process gave no answer for {longest_s:g} s") from error
        except RayError as error:
            self.kill()
            if self._is_cut:
                raise Cancelled("the run was stopped, and the rollout's process did not answer") from error
            raise NodeError(f"the rollout's process is gone: {error}") from error
        except RealworkError as error:
            self.kill()
            raise NodeError(f"the rollout's row was refused: {error}") from error

    def _options(self) -> dict[str, Any]:
        return {"num_cpus": 0, "memory": rollout_memory_mib(self._settings.config) << 20, "max_restarts": 0}

    async def _ended_by(self, spec: RolloutSpec, error: EpisodeError) -> RolloutSummary:
        """The row of a rollout that `error` ended before its actor could write one."""
        lost = failed_rollout(spec, self._settings, error)
        async with asyncio.timeout(STORE_WAIT_STOPPING_S if self._is_stopping else STORE_WAIT_S):
            summary: RolloutSummary = await answer(self._stores.of(spec).commit_lost.remote(lost))
        return summary

    def stop(self) -> None:
        """Cut what is being played."""
        self._is_stopping = True
        if self._actor is not None:
            self._actor.stop.remote()

    def cut(self) -> None:
        """Kill what was stopped and still goes on: that is an end by the run, and no failure of the node."""
        self._is_cut = True
        self.kill()

    def kill(self) -> None:
        """End the actor's process; the next rollout gets a new one."""
        if self._actor is not None:
            self._host.kill(self._actor)
            self._actor = None

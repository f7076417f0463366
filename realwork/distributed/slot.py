"""A place for one rollout at a time, on the driver's side."""

import asyncio
from typing import Any

import ray
from ray.exceptions import RayError

from realwork.config import RunConfig
from realwork.distributed.answers import answer
from realwork.distributed.rollout_actor import RolloutActor
from realwork.errors import EpisodeError, NodeError, RealworkError
from realwork.record import RolloutSettings, failed_rollout
from realwork.rollout import OVERTIME_S, longest_s
from realwork.types import RolloutSpec, RolloutSummary

ACTOR_MIB = 200
STORE_WAIT_S = 120.0
STORE_WAIT_STOPPING_S = 10.0


def rollout_memory_mib(config: RunConfig) -> int:
    """What one rollout in flight reserves: its sandbox's limit and its process."""
    return config.sandbox_config.memory_mib + ACTOR_MIB


class Slot:
    """A place for one rollout at a time: an actor that is replaced when it is lost or worn out."""

    def __init__(self, settings: RolloutSettings, shared: Any, store: Any) -> None:
        self._settings = settings
        self._shared = shared
        self._store = store
        self._actor: Any = None
        self._played = 0
        self._is_stopping = False

    async def play(self, spec: RolloutSpec, *, queue_s: float, timeout_multiplier: float) -> RolloutSummary:
        """The outcome of `spec`, played with its timeouts multiplied, which stands in the dataset.

        Raises:
            StoreError: not even a row that says so could be written.
            RayError: the store is gone.
            TimeoutError: the store does not answer.
        """
        config = self._settings.stretched(timeout_multiplier).config
        bound_s = longest_s(config, config.environment(spec.environment_id)) + OVERTIME_S
        try:
            async with asyncio.timeout(bound_s):
                actor = await self._open()
                summary: RolloutSummary = await answer(actor.run.remote(spec, queue_s, timeout_multiplier))
        except TimeoutError:
            return await self._lost(spec, NodeError(f"the rollout's process gave no answer for {bound_s:g} s"))
        except RayError as error:
            return await self._lost(spec, NodeError(f"the rollout's process is gone: {error}"))
        except EpisodeError as error:
            return await self._lost(spec, error)
        except RealworkError as error:
            return await self._lost(spec, NodeError(f"the rollout's row was refused: {error}"))
        self._played += 1
        if self._played == config.rollout_config.rollouts_per_actor:
            self.kill()
        return summary

    async def _open(self) -> Any:
        if self._actor is None:
            self._played = 0
            self._actor = ray.remote(RolloutActor).options(**self._options()).remote()
            await answer(self._actor.setup.remote(self._shared, self._store))
        return self._actor

    def _options(self) -> dict[str, Any]:
        return {"num_cpus": 0, "memory": rollout_memory_mib(self._settings.config) << 20, "max_restarts": 0}

    async def _lost(self, spec: RolloutSpec, error: EpisodeError) -> RolloutSummary:
        self.kill()
        lost = failed_rollout(spec, self._settings, error)
        async with asyncio.timeout(STORE_WAIT_STOPPING_S if self._is_stopping else STORE_WAIT_S):
            summary: RolloutSummary = await answer(self._store.commit_lost.remote(lost))
        return summary

    def stop(self) -> None:
        """Cut what is being played."""
        self._is_stopping = True
        if self._actor is not None:
            self._actor.stop.remote()

    def kill(self) -> None:
        """End the actor's process; the next rollout gets a new one."""
        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None

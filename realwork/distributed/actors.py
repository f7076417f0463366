"""The two kinds of actors: one for each rollout in flight, and the central one that owns the run's directory.

An actor method builds arguments, calls a plain function and hands on the value. A trajectory goes from the rollout's
actor to the store, which answers when it is durable; the driver gets a summary.
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from realwork.backends import open_backends
from realwork.errors import RunAborted
from realwork.plugins.hooks import NoHooks
from realwork.rollout import Backends, RolloutSettings, run_rollout, summarize, with_steps
from realwork.trajectories.read import find
from realwork.trajectories.store import TrajectoryStore
from realwork.types import RolloutSpec, RolloutSummary, Trajectory


class StoreActor:
    """The only writer of `directory`."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._store = TrajectoryStore(self._directory)

    async def commit(self, trajectory: Trajectory) -> RolloutSummary:
        """Write `trajectory` and answer what stands in the dataset for its id, which may be an earlier commit.

        Raises:
            StoreError: it could not be written.
        """
        ack = await self._store.commit(trajectory)
        if ack.duplicate:
            trajectory = await asyncio.to_thread(lambda: next(find(self._directory, ack.trajectory_id)))
        return summarize(trajectory)

    async def progress(self, trajectory: Trajectory) -> None:
        """Hold the unfinished record of a running attempt."""
        self._store.progress(trajectory)

    async def commit_lost(self, lost: Trajectory) -> RolloutSummary:
        """Write the row of an attempt whose process is gone, with the steps that it had handed over."""
        return await self.commit(with_steps(lost, self._store.take_progress(lost.spec.trajectory_id)))

    async def close(self) -> None:
        """Finish writing."""
        await self._store.close()


class RolloutActor:
    """Plays one rollout at a time, each with a sandbox and a model of its own."""

    def __init__(self) -> None:
        self._settings: RolloutSettings | None = None
        self._store: Any = None
        self._playing: asyncio.Task[Trajectory] | None = None
        self._stopped = False
        self._opened = AsyncExitStack()
        self._backends: Backends

    async def setup(self, settings: RolloutSettings, store: Any) -> None:
        """Take what the rollouts of the run share; not in the constructor, whose arguments Ray keeps.

        Raises:
            SandboxError: the engine of this node does not answer.
        """
        self._store = store
        self._settings = settings
        self._backends = await self._opened.enter_async_context(open_backends(settings))

    async def run(self, spec: RolloutSpec, queue_s: float) -> RolloutSummary:
        """Play `spec`, and answer when its trajectory is durable.

        Raises:
            StoreError: it could not be written.
        """
        if self._settings is None:
            raise RunAborted("the actor was not set up")
        self._playing = asyncio.create_task(
            run_rollout(
                spec,
                self._settings,
                self._backends,
                NoHooks(),
                queue_s=queue_s,
                on_steps=self._hand_over,
            )
        )
        if self._stopped:
            self._playing.cancel()
        trajectory = await self._playing
        summary: RolloutSummary = await self._store.commit.remote(trajectory)
        return summary

    async def _hand_over(self, unfinished: Trajectory) -> None:
        await self._store.progress.remote(unfinished)

    async def stop(self) -> None:
        """Cut what is being played; its row says `cancelled`."""
        self._stopped = True
        if self._playing is not None:
            self._playing.cancel()

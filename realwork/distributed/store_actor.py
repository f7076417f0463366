"""The central actor, which owns the run's directory; trajectories come to it from the rollouts' actors."""

import asyncio
from pathlib import Path

from realwork.record import summarize, with_steps
from realwork.trajectories.read import find
from realwork.trajectories.store import TrajectoryStore
from realwork.types import RolloutSummary, Trajectory


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

    async def recall(self, trajectory_id: str) -> Trajectory | None:
        """The trajectory of that id as it stands in the dataset, null if it does not.

        Raises:
            StoreError: a part cannot be read.
        """
        found = await asyncio.to_thread(lambda: next(find(self._directory, trajectory_id), None))
        return found if found is not None and found.spec.trajectory_id == trajectory_id else None

    async def progress(self, trajectory: Trajectory) -> None:
        """Hold the unfinished record of a running attempt."""
        self._store.progress(trajectory)

    async def commit_lost(self, lost: Trajectory) -> RolloutSummary:
        """Write the row of an attempt whose process is gone, with the steps that it had handed over."""
        return await self.commit(with_steps(lost, self._store.take_progress(lost.spec.trajectory_id)))

    async def close(self) -> None:
        """Finish writing."""
        await self._store.close()

"""The central actor, which owns the run's directory; trajectories come to it from the rollouts' actors."""

import logging
import time
from pathlib import Path
from typing import Any

import ray

from realwork.dataset.ack import Begun, Commit, CommitAck, Unfinished
from realwork.dataset.commits import make_commit
from realwork.dataset.mirror import Mirror
from realwork.dataset.shards import Shard, shards_of
from realwork.dataset.store import TrajectoryStore
from realwork.distributed.control import NAMESPACE, Asked, Mailbox, Told, name_of
from realwork.distributed.hosts import Host
from realwork.distributed.metrics import StoreMetrics, metrics_of
from realwork.distributed.stores import Stores
from realwork.errors import StoreError, blame
from realwork.record import with_steps
from realwork.types import RolloutSpec, RolloutSummary, Trajectory

log = logging.getLogger(__name__)
OPTIONS: dict[str, Any] = {"num_cpus": 0, "max_restarts": 3, "max_task_retries": 3}
SLOTS_PER_STORE = 2000
MAX_STORES = 8


def start_stores(host: Host, directory: Path, url: str | None, *, wanted: int | None, slots: int) -> Stores:
    """Start the stores of a run on the driver's node, where its output was checked; they restart from disk alone.

    As many as the run has begun with; a new one gets what is wanted, else what `slots` rollouts in flight need.

    Raises:
        StoreError: their ledgers cannot be written.
    """
    count = len(shards_of(directory)) or wanted or min(MAX_STORES, 1 + slots // SLOTS_PER_STORE)
    shards = [Shard(number, count) for number in range(count)]
    ledgers = [shard.ledger_file(directory) for shard in shards]
    with blame(StoreError, f"{directory} could not be written"):
        for ledger in ledgers:  # before there is any part, so that the number of stores never changes again
            ledger.touch()
    if url is not None:
        Mirror(directory, url).announce(ledgers)
    first, *others = shards
    arguments = (str(directory), url)
    name = {"name": name_of(directory.name), "namespace": NAMESPACE}
    try:
        central = host.start(StoreActor, *arguments, first, **OPTIONS, **name)
    except ValueError:  # the name is still that of an earlier start, which was killed a moment ago
        log.warning("The run cannot be steered with 'realwork ctl'")
        central = host.start(StoreActor, *arguments, first, **OPTIONS)
    return Stores([central, *(host.start(StoreActor, *arguments, shard, **OPTIONS) for shard in others)])


class StoreActor:
    """The only writer of `directory`, or of a shard of it, and of its copy at `url`, if that is not null."""

    def __init__(self, directory: str, url: str | None, shard: Shard) -> None:
        mirror = Mirror(Path(directory), url, shard=shard) if url is not None else None
        self._store = TrajectoryStore(Path(directory), shard=shard, mirror=mirror)
        self._mailbox = Mailbox()
        self._metrics = StoreMetrics(metrics_of(Path(directory).name))

    async def plan(self, rollout_ids: list[str]) -> None:
        """Note the rollouts that the run is to play.

        Raises:
            StoreError: it could not be written.
        """
        await self._store.plan(rollout_ids)

    async def begin(self, spec: RolloutSpec, node_id: str) -> None:
        """Note that an attempt has begun."""
        self._store.begin(Begun(spec=spec, node_id=node_id))

    async def commit(self, commit: Commit) -> CommitAck:
        """Write a row and answer what stands in the dataset for its attempt, which may be an earlier one.

        Raises:
            StoreError: it could not be written.
        """
        return await self._commit(commit)

    async def recall(self, trajectory_id: str) -> Trajectory | None:
        """The trajectory of that id as it stands in the dataset, null if it does not.

        Raises:
            StoreError: it cannot be read.
        """
        return await self._store.recall(trajectory_id)

    async def progress(self, unfinished: Unfinished) -> None:
        """Hold the unfinished record of a running attempt."""
        self._store.progress(unfinished)

    async def commit_lost(self, lost: Trajectory) -> RolloutSummary:
        """Write the row of an attempt whose process is gone, with the steps that it had handed over.

        Raises:
            StoreError: it could not be written.
        """
        commit = make_commit(with_steps(lost, await self._store.unfinished(lost.spec.trajectory_id)))
        ack = await self._commit(commit)
        return ack.summary or commit.summary

    async def _commit(self, commit: Commit) -> CommitAck:
        with self._metrics.arrived():
            began = time.monotonic()
            ack = await self._store.commit(commit)
        if ack.outcome == "committed":
            self._metrics.written(size_bytes=commit.size_bytes, lag_s=time.monotonic() - began)
        return ack

    async def ask(self, asked: Asked) -> Told:
        """What the run's driver answers."""
        return await self._mailbox.ask(asked)

    @ray.method(max_task_retries=0)
    async def next_asked(self) -> tuple[str, Asked]:
        """What is asked of the driver next, as soon as something is."""
        return await self._mailbox.next()

    async def reply(self, name: str, told: Told) -> None:
        """The driver's answer to what was asked under that name."""
        self._mailbox.reply(name, told)

    async def close(self) -> None:
        """Put every row into a part.

        Raises:
            StoreError: not everything is in a part; what was acknowledged is in the ledger.
        """
        await self._store.close()

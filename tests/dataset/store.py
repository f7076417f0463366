"""Stores to write into, for tests."""

import asyncio
from contextlib import asynccontextmanager

from realwork.dataset.ack import Begun
from realwork.dataset.commits import make_commit, make_unfinished
from realwork.dataset.sealing import Sealing
from realwork.dataset.shards import WHOLE
from realwork.dataset.store import TrajectoryStore


def committed(directory, records, *, shard=WHOLE):
    """The acks of `records`, all committed at once, and sealed."""

    async def commit():
        async with TrajectoryStore(directory, shard=shard) as store:
            return await asyncio.gather(*[store.commit(make_commit(record)) for record in records])

    return asyncio.run(commit())


@asynccontextmanager
async def in_flight(directory, record):
    """A run for the length of the block, of which `record` is in flight and has handed over its steps."""
    (directory / "run.json").write_text("{}")
    async with TrajectoryStore(directory, sealing=Sealing(age_s=3600.0)) as store:
        store.begin(Begun(spec=record.spec, node_id="node-1"))
        store.progress(make_unfinished(record))
        await store.unfinished(record.spec.trajectory_id)
        yield

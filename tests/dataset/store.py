"""Stores to write into, for tests."""

import asyncio

from realwork.dataset.commits import make_commit
from realwork.dataset.shards import WHOLE
from realwork.dataset.store import TrajectoryStore


def committed(directory, records, *, shard=WHOLE):
    """The acks of `records`, all committed at once, and sealed."""

    async def commit():
        async with TrajectoryStore(directory, shard=shard) as store:
            return await asyncio.gather(*[store.commit(make_commit(record)) for record in records])

    return asyncio.run(commit())

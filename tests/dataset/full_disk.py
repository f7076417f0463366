"""A process whose files may not grow: `full_disk.py DIRECTORY` says what its commits come to."""

import asyncio
import json
import os
import resource
import sys
from pathlib import Path

from records import graded

from realwork.dataset.commits import make_commit
from realwork.dataset.store import TrajectoryStore
from realwork.errors import StoreError
from realwork.types import Message


def incompressible(sample):
    return graded(sample, messages=(Message(role="user", content=os.urandom(100_000).hex()),))


async def outcome(store, record):
    try:
        return (await store.commit(make_commit(record))).outcome
    except StoreError as error:
        return str(error)


async def main(directory):
    async with TrajectoryStore(directory) as store:
        before = await outcome(store, graded(0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
        full = await asyncio.gather(outcome(store, incompressible(1)), outcome(store, incompressible(2)))
        left = sorted(path.name for path in directory.rglob("*") if path.is_file() and "ledger" not in path.name)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        record = incompressible(1)
        after = [await outcome(store, record), await outcome(store, record)]
    print(json.dumps({"before": before, "full": full, "left": left, "after": after}))


asyncio.run(main(Path(sys.argv[1])))

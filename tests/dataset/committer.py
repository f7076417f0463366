"""A process that commits and notes every acknowledged id: `committer.py DIRECTORY ACKS [HOW MANY]`."""

import asyncio
import os
import sys
from itertools import count
from pathlib import Path

from records import graded, rich

from realwork.dataset.commits import make_commit
from realwork.dataset.sealing import Sealing
from realwork.dataset.store import TrajectoryStore


async def main(directory, acks, how_many=None):
    side_file = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    samples = iter(range(int(how_many))) if how_many else count()
    async with TrajectoryStore(Path(directory), sealing=Sealing(rows=7)) as store:

        async def commit_one_after_the_other():
            for sample in samples:
                record = rich(sample) if sample % 2 else graded(sample)
                ack = await store.commit(make_commit(record))
                os.write(side_file, f"{ack.trajectory_id}\n".encode())

        await asyncio.gather(*[commit_one_after_the_other() for _ in range(5)])


asyncio.run(main(*sys.argv[1:]))

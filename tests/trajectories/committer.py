"""A process that commits for ever and notes every acknowledged id: `committer.py DIRECTORY ACKS`."""

import asyncio
import os
import sys
from itertools import count
from pathlib import Path

from records import graded

from realwork.trajectories.store import TrajectoryStore


async def main(directory, acks):
    side_file = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    samples = count()
    async with TrajectoryStore(Path(directory)) as store:

        async def commit_for_ever():
            for sample in samples:
                ack = await store.commit(graded(sample))
                os.write(side_file, f"{ack.trajectory_id}\n".encode())

        await asyncio.gather(*[commit_for_ever() for _ in range(5)])


asyncio.run(main(*sys.argv[1:]))

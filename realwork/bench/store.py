"""The trajectory store beside bare pyarrow that writes the same rows, both measured in one run.

Store and yardstick take turns in a process of their own, so that a busy machine slows both alike. What is committed is
made before the clock runs.
"""

import asyncio
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from realwork.bench.processes import Process
from realwork.bench.spread import Spread, spread
from realwork.config import RunConfig
from realwork.dataset.ack import Commit
from realwork.dataset.commits import make_commit
from realwork.dataset.earlier import earlier_summaries
from realwork.dataset.store import TrajectoryStore
from realwork.dataset.yardstick import write_bare
from realwork.schedule import Schedule
from realwork.types import FunctionCall, Message, Observation, Record, RolloutSpec, Step, ToolCall, Trajectory, Usage

KIB = 1 << 10
SIZES_KIB = (1, 100, 2048)
ROUNDS = 5
PARALLEL = 256
"""Commits at once: as many rollouts end within the same moment."""
FIRST_ROWS = 1000
GROUP_SIZE = 8
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
_STEP_BYTES = 5 * KIB
_WORDS = [f"{number:x}" * (1 + number % 5) for number in range(4000)]


class StoreRate(Record):
    """Commits of trajectories of one size, in several rounds.

    Attributes:
        rows: in each round.
        row_bytes: what one takes as an Arrow row.
        acked_per_s: rows acknowledged, and so on the disk, each second.
        sealed_per_s: rows that are in Parquet parts, each second, from the first commit to the end of the last part.
        bare_per_s: rows that bare pyarrow writes each second, from an Arrow table to one Parquet file on the disk.
        ratio: acked_per_s over bare_per_s, round by round.
    """

    rows: int
    row_bytes: int
    acked_per_s: Spread
    sealed_per_s: Spread
    bare_per_s: Spread
    ratio: Spread

    @property
    def acked_mib_per_s(self) -> float:
        return self.acked_per_s.median * self.row_bytes / (1 << 20)


class StoreBench(Record):
    """What was measured.

    Attributes:
        rates: by KiB of text in a trajectory.
        memory_mib: resident memory of a process with a store after so many rows of 1 KiB.
        resume_s: seconds until the schedule of a run of that many rows is made from its directory.
    """

    rates: dict[int, StoreRate]
    memory_mib: dict[int, float]
    resume_s: float


def bench_store(*, rows: int, mib: int) -> StoreBench:
    """Commit about `mib` MiB of each size in each round, then `rows` rows of 1 KiB into one run."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_measure, args=(there, rows, mib))
    process.start()
    there.close()
    try:
        found: StoreBench = here.recv()
    finally:
        process.join()
    return found


def _measure(to: Connection, rows: int, mib: int) -> None:
    with tempfile.TemporaryDirectory(prefix="realwork-bench-") as folder:
        long_run = Path(folder) / "long"
        memory = asyncio.run(_memory(long_run, rows))
        began = time.monotonic()
        schedule = Schedule(_config(rows), "bench")
        schedule.take_up(earlier_summaries(long_run))
        resume_s = time.monotonic() - began
        shutil.rmtree(long_run)
        rates = {size: asyncio.run(_rate(Path(folder), size, max(4, mib * KIB // size))) for size in SIZES_KIB}
        to.send(StoreBench(rates=rates, memory_mib=memory, resume_s=resume_s))


async def _rate(folder: Path, kib: int, rows: int) -> StoreRate:
    rows = min(rows, 4000)
    records = [_record(sample, kib * KIB) for sample in range(rows)]
    commits = [make_commit(record) for record in records]
    acked, sealed, bare = [], [], []
    row_bytes = 0
    for number in range(ROUNDS):
        written = write_bare(records, folder / "bare.parquet")
        row_bytes = written.size_bytes // rows
        bare.append(rows / written.write_s)
        run = folder / str(number)
        began = time.monotonic()
        async with TrajectoryStore(run) as store:
            await _commit(store, commits)
            acked.append(rows / (time.monotonic() - began))
        sealed.append(rows / (time.monotonic() - began))
        shutil.rmtree(run)
    return StoreRate(
        rows=rows,
        row_bytes=row_bytes,
        acked_per_s=spread(acked),
        sealed_per_s=spread(sealed),
        bare_per_s=spread(bare),
        ratio=spread([ours / theirs for ours, theirs in zip(acked, bare, strict=True)]),
    )


async def _memory(run: Path, rows: int) -> dict[int, float]:
    """Resident MiB after the first rows and after all of them."""
    found = {}
    async with TrajectoryStore(run) as store:
        for first, last in ((0, min(rows, FIRST_ROWS)), (FIRST_ROWS, rows)):
            await _commit(store, (make_commit(_record(sample, KIB)) for sample in range(first, last)))
            await store.seal()
            found[last] = Process(os.getpid()).memory_mib
    return found


async def _commit(store: TrajectoryStore, commits: Iterable[Commit]) -> None:
    """Commit all of them, `PARALLEL` at a time."""
    left = iter(commits)

    async def one_after_the_other() -> None:
        for commit in left:
            await store.commit(commit)

    await asyncio.gather(*(one_after_the_other() for _ in range(PARALLEL)))


def _record(sample: int, size_bytes: int) -> Trajectory:
    """A graded trajectory with about so much text, in steps of a few KiB."""
    count = max(1, size_bytes // _STEP_BYTES)
    dice = random.Random(sample)
    messages, steps = [Message(role="system", content="s"), Message(role="user", content="u")], []
    for index in range(count):
        output = " ".join(dice.choices(_WORDS, k=size_bytes // count // 20))
        call = ToolCall(id=f"c{index}", function=FunctionCall(name="execute_command", arguments='{"command": "ls"}'))
        answer = Observation(call_id=call.id, tool_name="execute_command", status="ok", output=output, exit_code=0)
        messages.append(Message(role="assistant", content=None, tool_calls=(call,)))
        messages.append(Message(role="tool", tool_call_id=call.id, name="execute_command", content=output))
        usage = Usage(prompt_tokens=1000, completion_tokens=50)
        place = 2 + 2 * index
        steps.append(Step(index=index, message_index=place, started_at=BEGAN, usage=usage, observations=(answer,)))
    return Trajectory(
        spec=_spec(sample),
        status="completed",
        terminated_reason="completed",
        started_at=BEGAN,
        ended_at=BEGAN + timedelta(seconds=60),
        reward=1.0,
        success=True,
        messages=tuple(messages),
        steps=tuple(steps),
    )


def _spec(sample: int) -> RolloutSpec:
    """One of the rollouts of 100 environments, which come in turns."""
    index, number = divmod(sample, 100)
    return RolloutSpec(
        run_id="bench",
        environment_id=f"e{number}",
        sample_index=index,
        group_index=index // GROUP_SIZE,
        group_size=GROUP_SIZE,
    )


def _config(rows: int) -> RunConfig:
    """The run file of that many rollouts."""
    environment: dict[str, Any] = {"docker_image": "bench", "prompt": "p", "unit_tests": ["true"]}
    count = 1 + rows // 100
    return RunConfig.model_validate(
        {
            "environments": [{"id": f"e{number}"} | environment for number in range(100)],
            "rollout_config": {},
            "template_prompt": "t",
            "episode_control_config": {"max_episodes": count, "safety_limit": count},
        }
    )

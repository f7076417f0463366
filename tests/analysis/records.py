"""Runs to analyse."""

import asyncio
from datetime import UTC, datetime, timedelta

from realwork.dataset.commits import make_commit
from realwork.dataset.run_directory import open_run
from realwork.dataset.store import TrajectoryStore
from realwork.types import RolloutSpec, Step, TestResult, Timing, Trajectory, Usage

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def make_run(directory, records):
    """Commit `records` in their order."""
    open_run(directory, "{}")

    async def commit():
        async with TrajectoryStore(directory) as store:
            for record in records:
                await store.commit(make_commit(record))

    asyncio.run(commit())


def spec(environment_id, sample, attempt, run):
    return RolloutSpec(run_id=run, environment_id=environment_id, sample_index=sample, attempt=attempt)


def graded(environment_id, sample, passed, *, total=2, attempt=0, run="r1", seconds=10.0, **more):
    """An attempt of which `passed` of `total` tests passed."""
    tests = [
        TestResult(
            name=f"test {number}",
            command=f"check {number}",
            status="passed" if number < passed else "failed",
            started_at=BEGAN + timedelta(seconds=9),
            duration_s=0.5,
            exit_code=int(number >= passed),
        )
        for number in range(total)
    ]
    fields = {"status": "completed", "terminated_reason": "completed", "started_at": BEGAN}
    fields |= {"ended_at": BEGAN + timedelta(seconds=seconds), "test_results": tuple(tests)}
    fields |= {"reward": passed / total, "success": passed == total}
    return Trajectory(spec=spec(environment_id, sample, attempt, run), **{**fields, **more})


def failed(environment_id, sample, cause, *, attempt=0, run="r1", seconds=10.0, **more):
    """An attempt that was never graded."""
    reason = {"sandbox": "environment_error", "model": "llm_error"}[cause]
    fields = {"status": "failed", "terminated_reason": reason, "failure_cause": cause, "started_at": BEGAN}
    fields |= {"ended_at": BEGAN + timedelta(seconds=seconds)}
    return Trajectory(spec=spec(environment_id, sample, attempt, run), **{**fields, **more})


def step(index, *, prompt_tokens=None, completion_tokens=None, cost_usd=None, **more):
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, cost_usd=cost_usd)
    return Step(index=index, message_index=0, started_at=BEGAN, usage=usage, **more)


TIMING = Timing(queue_s=1, image_s=2, boot_s=3, agent_s=4, llm_s=5, env_s=6, grade_s=7)

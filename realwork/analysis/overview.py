"""What a run has come to so far, from its index: totals, the course of time, failures by cause, groups.

A rollout counts once, with the attempt that counts for it; what was spent counts every attempt. An attempt without a
grade has no reward, and is in no mean of rewards.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from realwork.analysis.curves import Curves, curves
from realwork.analysis.index import TIMES, RunIndex
from realwork.analysis.planned import Planned
from realwork.analysis.stats import mean, pass_at_k
from realwork.types import Record

Outcome = Literal["passed", "failed", "ungraded"]
Verdict = Literal["all passed", "all failed", "mixed", "open"]


class Failure(Record):
    """Attempts that failed for the same cause with the same type of error.

    Attributes:
        rollouts: those among them that count for their rollout: no other attempt made them good.
        example: what one of them said, and its id.
    """

    cause: str
    error_type: str
    attempts: int
    rollouts: int
    example: str
    example_id: str


class Overview(Record):
    """The numbers of a run; null where there is nothing to take a mean of.

    Attributes:
        planned: 0 where that is not known.
        time_s: where the seconds of all attempts went, by the columns of `timing`, and `other_s` for the rest, such as
            plugins.
        reasons: rollouts by the reason for which they ended.
        steps: mean of the rollouts.
    """

    planned: int
    running: int
    rollouts: int
    attempts: int
    graded: int
    passed: int
    success_rate: float | None
    mean_reward: float | None
    pass_at_k: dict[int, float]
    steps: float | None
    duration_s: float | None
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    began_at: datetime | None
    ended_at: datetime | None
    models: list[str]
    time_s: dict[str, float]
    reasons: dict[str, int]
    failures: list[Failure]
    curves: Curves


class Sample(Record):
    """The attempt that counts for one rollout of a group."""

    trajectory_id: str
    sample_index: int
    outcome: Outcome
    reward: float | None
    failure_cause: str | None


class Group(Record):
    """Samples of one task that are compared with each other.

    Attributes:
        verdict: `all passed` and `all failed`, with one reward, teach a group-relative trainer nothing; `mixed` has
            more than one outcome or reward; `open` is a group with fewer than two grades.
        size: planned samples.
    """

    group_id: str
    environment_id: str
    size: int
    samples: list[Sample]
    verdict: Verdict
    mean_reward: float | None
    has_one_reward: bool


class EnvironmentOverview(Record):
    """The groups of an environment, and how often it was solved.

    Attributes:
        pass_at_k: by k (1, 2, 4, ...), estimated without bias over its graded rollouts.
    """

    environment_id: str
    rollouts: int
    graded: int
    passed: int
    success_rate: float | None
    mean_reward: float | None
    steps: float | None
    duration_s: float | None
    pass_at_k: dict[int, float]
    groups: list[Group]


_OF_SAMPLE = tuple(Sample.model_fields)


def overview(index: RunIndex, by_environment: Sequence[EnvironmentOverview]) -> Overview:
    """The numbers of a run, as its index has them, and those of its `environments`."""
    every = index.table
    rows = every.filter(every.column("counts"))
    graded = rows.filter(pc.not_equal(rows.column("outcome"), "ungraded"))
    passed = pc.sum(pc.equal(rows.column("outcome"), "passed")).as_py() or 0
    return Overview(
        planned=index.planned or Planned(index.directory).rollouts.total(),
        running=len(index.running),
        rollouts=rows.num_rows,
        attempts=every.num_rows,
        graded=graded.num_rows,
        passed=passed,
        success_rate=passed / graded.num_rows if graded.num_rows else None,
        mean_reward=pc.mean(graded.column("reward")).as_py(),
        pass_at_k=_mean_curve([each.pass_at_k for each in by_environment if each.graded]),
        steps=pc.mean(rows.column("n_steps")).as_py(),
        duration_s=pc.mean(rows.column("duration_s")).as_py(),
        prompt_tokens=pc.sum(every.column("total_prompt_tokens")).as_py() or 0,
        completion_tokens=pc.sum(every.column("total_completion_tokens")).as_py() or 0,
        cost_usd=pc.sum(every.column("total_cost_usd")).as_py(),
        began_at=pc.min(every.column("started_at")).as_py(),
        ended_at=pc.max(every.column("ended_at")).as_py(),
        models=sorted(name for name in pc.unique(every.column("model")).to_pylist() if name),
        time_s=_time(every),
        reasons=_counted(rows.column("terminated_reason")),
        failures=_failures(every),
        curves=curves(every),
    )


def environments(index: RunIndex) -> list[EnvironmentOverview]:
    """The environments of a run by their ids, with their groups by their first samples."""
    rows = index.table.filter(index.table.column("counts"))
    names = ("environment_id", "group_id", "group_size", "trajectory_id", "sample_index", "outcome", "reward")
    more = ("failure_cause", "n_steps", "duration_s")
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows.select([*names, *more]).to_pylist():
        found[row["environment_id"]].append(row)
    return [_environment(name, found[name]) for name in sorted(found)]


def _environment(environment_id: str, rows: list[dict[str, Any]]) -> EnvironmentOverview:
    rows.sort(key=lambda row: row["sample_index"])
    groups: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["group_id"]].append(row)
    graded = sum(row["outcome"] != "ungraded" for row in rows)
    passed = sum(row["outcome"] == "passed" for row in rows)
    ks = [1 << power for power in range(graded.bit_length())]
    return EnvironmentOverview(
        environment_id=environment_id,
        rollouts=len(rows),
        graded=graded,
        passed=passed,
        success_rate=passed / graded if graded else None,
        mean_reward=mean(row["reward"] for row in rows),
        steps=mean(row["n_steps"] for row in rows),
        duration_s=mean(row["duration_s"] for row in rows),
        pass_at_k={k: pass_at_k(graded, passed, k) for k in ks},
        groups=[_group(environment_id, group_id, samples) for group_id, samples in groups.items()],
    )


def _group(environment_id: str, group_id: str, rows: Sequence[dict[str, Any]]) -> Group:
    rewards = [row["reward"] for row in rows if row["outcome"] != "ungraded"]
    return Group(
        group_id=group_id,
        environment_id=environment_id,
        size=max(len(rows), *(row["group_size"] or 0 for row in rows)),
        samples=[Sample(**{name: row[name] for name in _OF_SAMPLE}) for row in rows],
        verdict=_verdict([(row["outcome"], row["reward"]) for row in rows]),
        mean_reward=mean(rewards),
        has_one_reward=len(rewards) > 1 and len(set(rewards)) == 1,
    )


def _verdict(samples: Iterable[tuple[Outcome, float | None]]) -> Verdict:
    graded = [sample for sample in samples if sample[0] != "ungraded"]
    if len(graded) < 2:
        return "open"
    if len(set(graded)) > 1:
        return "mixed"
    return "all passed" if graded[0][0] == "passed" else "all failed"


def _time(rows: pa.Table) -> dict[str, float]:
    seconds = {name: pc.sum(rows.column(name)).as_py() or 0.0 for name in TIMES}
    del seconds["agent_s"]  # which contains others
    whole_s = pc.sum(rows.column("duration_s")).as_py() or 0.0
    seconds["other_s"] = max(0.0, whole_s + seconds["queue_s"] - sum(seconds.values()))
    return seconds


def _failures(rows: pa.Table) -> list[Failure]:
    rows = rows.filter(pc.is_valid(rows.column("failure_cause")))
    found: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows.select(["failure_cause", "error_type", "error_message", "trajectory_id", "counts"]).to_pylist():
        found[row["failure_cause"], row["error_type"] or ""].append(row)
    failures = [
        Failure(
            cause=cause,
            error_type=error_type,
            attempts=len(these),
            rollouts=sum(row["counts"] for row in these),
            example=these[-1]["error_message"] or "",
            example_id=these[-1]["trajectory_id"],
        )
        for (cause, error_type), these in found.items()
    ]
    return sorted(failures, key=lambda each: (-each.rollouts, -each.attempts, each.cause))


def _counted(values: pa.ChunkedArray) -> dict[str, int]:
    return dict(Counter(values.to_pylist()).most_common())


def _mean_curve(curves: Sequence[dict[int, float]]) -> dict[int, float]:
    shortest = min(curves, key=len, default={})
    return {k: sum(curve[k] for curve in curves) / len(curves) for k in shortest}

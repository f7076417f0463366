"""The outcome of every attempt, read from the columns that say it, and which attempt counts for its rollout."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from sys import intern
from typing import NamedTuple

from realwork.dataset.read import batches
from realwork.types import Timing

_COLUMNS = (
    *("trajectory_id", "run_id", "environment_id", "group_id", "sample_index", "attempt"),
    *("terminated_reason", "failure_cause", "reward", "success", "tests_passed", "tests_total"),
    *("n_steps", "n_tool_calls", "total_prompt_tokens", "total_completion_tokens", "total_cost_usd"),
    *("timing", "started_at", "ended_at"),
)


class RolloutKey(NamedTuple):
    """What the attempts of one rollout have in common."""

    run_id: str
    environment_id: str
    sample_index: int


class Attempt(NamedTuple):
    """What one attempt came to; `success` is null when it was not graded."""

    trajectory_id: str
    rollout: RolloutKey
    group_id: str
    attempt: int
    terminated_reason: str
    failure_cause: str | None
    reward: float | None
    success: bool | None
    tests_passed: int | None
    tests_total: int | None
    n_steps: int
    n_tool_calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    duration_s: float

    @property
    def graded(self) -> bool:
        return self.success is not None

    @property
    def score(self) -> float | None:
        """Passed test commands over all of them, null when not graded."""
        if self.tests_passed is None or not self.tests_total:
            return None
        return self.tests_passed / self.tests_total


def attempts(directory: Path) -> Iterator[tuple[Attempt, Timing]]:
    """Every attempt in the order of the commits, and where its seconds went.

    Raises:
        InputError: there is no run.
        StoreError: a part cannot be read.
    """
    for batch in batches(directory, _COLUMNS):
        for row in batch.to_pylist():
            attempt = Attempt(
                trajectory_id=row["trajectory_id"],
                rollout=RolloutKey(row["run_id"], row["environment_id"], row["sample_index"]),
                group_id=intern(row["group_id"]),
                attempt=row["attempt"],
                terminated_reason=row["terminated_reason"],
                failure_cause=row["failure_cause"],
                reward=row["reward"],
                success=row["success"],
                tests_passed=row["tests_passed"],
                tests_total=row["tests_total"],
                n_steps=row["n_steps"],
                n_tool_calls=row["n_tool_calls"],
                prompt_tokens=row["total_prompt_tokens"],
                completion_tokens=row["total_completion_tokens"],
                cost_usd=row["total_cost_usd"],
                duration_s=(row["ended_at"] - row["started_at"]).total_seconds(),
            )
            yield attempt, Timing(**row["timing"])


class Results:
    """The attempt that counts for each rollout: the graded one if there is any, else the last."""

    def __init__(self, attempts: Iterable[Attempt] = ()) -> None:
        self._by_rollout: dict[RolloutKey, Attempt] = {}
        for attempt in attempts:
            self.add(attempt)

    def add(self, attempt: Attempt) -> None:
        """Let `attempt` count, if it does."""
        current = self._by_rollout.get(attempt.rollout)
        if current is None or (attempt.graded, attempt.attempt) > (current.graded, current.attempt):
            self._by_rollout[attempt.rollout] = attempt

    def by_environment(self) -> dict[str, list[Attempt]]:
        """The results of each environment; environments by id, rollouts by run and sample."""
        environments: dict[str, list[Attempt]] = {}
        for key in sorted(self._by_rollout, key=lambda key: (key.environment_id, key.run_id, key.sample_index)):
            environments.setdefault(key.environment_id, []).append(self._by_rollout[key])
        return environments

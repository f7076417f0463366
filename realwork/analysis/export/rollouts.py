"""Which attempt is exported for each rollout, and the trajectories of those attempts.

Guarantees: a rollout is exported once, as its graded attempt if it has one, else as its last; an attempt without a
grade has no reward, never 0. Of all rollouts only ids and rewards are in memory, and one trajectory at a time.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from sys import intern
from typing import NamedTuple

from realwork.dataset.read import batches, trajectories
from realwork.errors import InputError
from realwork.types import Message, Trajectory

_COLUMNS = ("trajectory_id", "group_id", "sample_index", "attempt", "reward", "reward_valid", "n_steps")

EARLIER = "earlier attempts of a rollout"
UNGRADED = "rollouts without a grade"
SILENT = "rollouts without a reply of the model"


class Result(NamedTuple):
    """The attempt that counts for a rollout; `reward` is null where it has no grade."""

    trajectory_id: str
    group_id: str
    sample_index: int
    attempt: int
    reward: float | None
    n_steps: int


class Selection:
    """What is exported, and what is not.

    Attributes:
        results: in the order in which their rollouts began to have rows.
        left_out: how many attempts or rollouts were left out, by reason; whoever leaves out more adds it here.
    """

    def __init__(self, results: Iterable[Result], left_out: Counter[str]) -> None:
        self.results = list(results)
        self.left_out = left_out

    def trajectories(self, directory: Path) -> Iterator[Trajectory]:
        """The trajectories of the results, in the order of their commits.

        Raises:
            StoreError: a part cannot be read.
        """
        wanted = {result.trajectory_id for result in self.results}
        return (each for each in trajectories(directory) if each.spec.trajectory_id in wanted)

    def with_reply(self, directory: Path) -> Iterator[Trajectory]:
        """Those of `trajectories()` in which the model has said something; the others are counted as left out.

        Raises:
            StoreError: a part cannot be read.
        """
        for trajectory in self.trajectories(directory):
            if _head_length(trajectory) < len(trajectory.messages):
                yield trajectory
            else:
                self.left_out[SILENT] += 1


def every_rollout(directory: Path) -> Selection:
    """All rollouts, graded or not.

    Raises:
        InputError: there is no run, or none of its rollouts has a row.
        StoreError: a part cannot be read.
    """
    found: dict[str, Result] = {}
    left_out = Counter({EARLIER: 0})
    for result in _attempts(directory):
        rollout = result.trajectory_id.rpartition(":")[0]
        current = found.get(rollout)
        left_out[EARLIER] += current is not None
        if current is None or _rank(result) > _rank(current):
            found[rollout] = result
    if not found:
        raise InputError(f"{directory} has no rows yet, so there is nothing to export.")
    return Selection(found.values(), left_out)


def graded_rollouts(directory: Path) -> Selection:
    """The rollouts that have a reward.

    Raises:
        InputError: there is no run, or none of its rollouts has a grade.
        StoreError: a part cannot be read.
    """
    everything = every_rollout(directory)
    graded = [result for result in everything.results if result.reward is not None]
    if not graded:
        raise InputError(
            f"No rollout in {directory} has a grade, of {len(everything.results)} that have rows, so there is nothing "
            f"to export. What became of them: realwork stats {directory}"
        )
    everything.left_out[UNGRADED] += len(everything.results) - len(graded)
    return Selection(graded, everything.left_out)


def prompt(trajectory: Trajectory) -> tuple[Message, ...]:
    """The messages before the first reply: the system's and the task."""
    return trajectory.messages[: _head_length(trajectory)]


def completion(trajectory: Trajectory) -> tuple[Message, ...]:
    """The first reply and all that came after it."""
    return trajectory.messages[_head_length(trajectory) :]


def _head_length(trajectory: Trajectory) -> int:
    roles = [message.role for message in trajectory.messages]
    return roles.index("assistant") if "assistant" in roles else len(roles)


def _attempts(directory: Path) -> Iterator[Result]:
    for batch in batches(directory, _COLUMNS):
        for row in batch.to_pylist():
            yield Result(
                trajectory_id=row["trajectory_id"],
                group_id=intern(row["group_id"]),
                sample_index=row["sample_index"],
                attempt=row["attempt"],
                reward=row["reward"] if row["reward_valid"] else None,
                n_steps=row["n_steps"],
            )


def _rank(result: Result) -> tuple[bool, int]:
    return result.reward is not None, result.attempt

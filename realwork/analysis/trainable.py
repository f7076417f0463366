"""What a trainer has to know of a trajectory: whether it can be trained on, and what to mind when it is; pure."""

from collections.abc import Iterator, Sequence

from realwork.dataset.samples import segments
from realwork.types import Trajectory

_NAMED = 5


def obstacles(trajectory: Trajectory) -> list[str]:
    """Why `trajectory` cannot be trained on, in sentences; none where it can."""
    if trajectory.reward is not None:
        return []
    if trajectory.status == "cancelled":
        why = "The rollout was cancelled before it had a grade."
    elif trajectory.failure_cause is not None:
        why = f"Its {trajectory.failure_cause} failed ({trajectory.error_type or trajectory.terminated_reason})."
    else:
        why = f"It has no grade: it ended with {trajectory.terminated_reason}."
    return [why, "The reward is null, and reward_valid is false: a trainer has to leave this row out."]


def cautions(trajectory: Trajectory) -> list[str]:
    """What else is worth knowing before it is trained on, in sentences."""
    if not trajectory.steps:
        return ["The agent took no step."]
    return [*_of_tokens(trajectory), *_of_play(trajectory)]


def tests_said(trajectory: Trajectory) -> str:
    """What the tests came to, and where they ran."""
    where = {"fresh": " in a fresh sandbox", "same": " where the agent worked"}.get(trajectory.grading_mode or "", "")
    return f"{trajectory.tests_passed} of {trajectory.tests_total} test commands passed{where}"


def _of_tokens(trajectory: Trajectory) -> Iterator[str]:
    lacking = [step.index for step in trajectory.steps if step.tokens is None]
    if len(lacking) == len(trajectory.steps):
        yield "The endpoint told no token ids, so it has no samples: a trainer has to tokenise the messages itself."
    elif lacking:
        yield f"There are no token ids of {_steps(lacking)}, which stand in no sample."
    if (count := len(segments(trajectory))) > 1:
        yield f"Its prompts do not go on from one another: it stands in {count} samples."


def _of_play(trajectory: Trajectory) -> Iterator[str]:
    if len({step.policy_version for step in trajectory.steps} - {None}) > 1:
        yield "The policy changed while it was played: its steps come from different weights."
    if any(step.window.dropped or step.window.shortened for step in trajectory.steps):
        yield "The context was shortened on the way: the model has not seen all that stands here."
    if trajectory.status == "truncated":
        yield f"A limit ended it ({trajectory.terminated_reason}); what was there then is graded."
    if trajectory.changed_outside:
        files = "1 file" if trajectory.changed_outside == 1 else f"{trajectory.changed_outside} files"
        yield f"{files} changed outside the working directory, where no test saw them."


def _steps(indices: Sequence[int]) -> str:
    named = ", ".join(map(str, indices[:_NAMED]))
    more = f" and {len(indices) - _NAMED} more" if len(indices) > _NAMED else ""
    return f"{'step' if len(indices) == 1 else 'steps'} {named}{more}"

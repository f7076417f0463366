"""Why a trajectory cannot be trained on, or not in every way; pure."""

from collections.abc import Sequence

from realwork.dataset.samples import segments
from realwork.types import Trajectory

NAMED = 5


def obstacles(trajectory: Trajectory) -> list[str]:
    """What keeps a trainer from learning from `trajectory`, a sentence each; none if nothing does."""
    found = []
    if trajectory.reward is None:
        found.append("it has no reward: it was not graded, as " + _why(trajectory))
    if not trajectory.steps:
        found.append("the agent took no step")
        return found
    lacking = [step.index for step in trajectory.steps if step.tokens is None]
    if len(lacking) == len(trajectory.steps):
        found.append("the endpoint told no token ids, so it has no samples; it can be learned from as text alone")
    elif lacking:
        found.append(f"no token ids of {_steps(lacking)}, which stand in no sample")
    if (count := len(segments(trajectory))) > 1:
        found.append(f"its prompts do not go on from one another: it stands in {count} samples")
    return found


def _why(trajectory: Trajectory) -> str:
    if trajectory.failure_cause is None:
        return f"it ended with {trajectory.terminated_reason}"
    return f"it ended with {trajectory.terminated_reason} ({trajectory.failure_cause}): {trajectory.error_message}"


def _steps(indices: Sequence[int]) -> str:
    named = ", ".join(map(str, indices[:NAMED]))
    more = f" and {len(indices) - NAMED} more" if len(indices) > NAMED else ""
    return f"{'step' if len(indices) == 1 else 'steps'} {named}{more}"

"""The rows of `samples/`: one per token segment that a trainer can learn from as it stands. Pure.

Guarantees: the ids are those that the endpoint told, in the order in which the model saw and wrote them; every id that
the model wrote stands in exactly one segment of its trajectory, and there its mask is 1.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from realwork.dataset.version import SCHEMA_VERSION
from realwork.text import valid_unicode
from realwork.types import Step, StepTokens, Trajectory


class Segment:
    """Steps of which each prompt begins with the whole prompt and completion before it.

    Attributes:
        input_ids: the prompt of the first step, then completions and what came between them.
        completion_mask: 1 where the model wrote the id, else 0; as many as ids.
        logprobs: 0 where the mask is 0; as many as ids.
        prompt_length: ids before the first completion.
    """

    def __init__(self, seen: Sequence[int]) -> None:
        self.steps: list[Step] = []
        self.input_ids: list[int] = []
        self.completion_mask: list[int] = []
        self.logprobs: list[float] = []
        self.prompt_length = len(seen)
        self._extend(seen, [0.0] * len(seen), 0)

    def append(self, step: Step, tokens: StepTokens) -> None:
        """Add what the model wrote in `step`."""
        self.steps.append(step)
        self._extend(tokens.completion, tokens.logprobs, 1)

    def show(self, seen: Sequence[int]) -> None:
        """Add what the model was shown after that."""
        self._extend(seen, [0.0] * len(seen), 0)

    def _extend(self, ids: Sequence[int], logprobs: Sequence[float], mask: int) -> None:
        self.input_ids += ids
        self.logprobs += logprobs
        self.completion_mask += [mask] * len(ids)


def segments(trajectory: Trajectory) -> list[Segment]:
    """The segments of `trajectory`, in order, taken-over steps included; none where no token ids are known.

    A step whose prompt does not begin with all that was before (an old observation was left out, or the endpoint put
    the same text into other tokens) begins a new segment, and so does one after a step without ids.
    """
    found: list[Segment] = []
    before: Sequence[int] = ()
    for step in trajectory.steps:
        tokens = step.tokens
        if tokens is None:
            before = ()
            continue
        if before and tokens.prefix_len == len(before):
            found[-1].show(tokens.prompt)
        else:
            found.append(Segment([*before[: tokens.prefix_len], *tokens.prompt]))
        found[-1].append(step, tokens)
        before = found[-1].input_ids
    return found


def sample_rows(trajectory: Trajectory) -> list[dict[str, Any]]:
    """The rows of `samples/`, by column name: one for each segment of `trajectory`."""
    shared = _shared_columns(trajectory)
    return [shared | _columns(index, segment) for index, segment in enumerate(segments(trajectory))]


def _shared_columns(trajectory: Trajectory) -> dict[str, Any]:
    spec = trajectory.spec
    temperature = json.loads(trajectory.sampling_params).get("temperature")
    texts = {
        "run_id": spec.run_id,
        "trajectory_id": spec.trajectory_id,
        "environment_id": spec.environment_id,
        "task_id": spec.environment_id,
        "group_id": spec.group_id,
        "parent_trajectory_id": trajectory.parent_trajectory_id,
        "model": trajectory.model,
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "group_size": spec.group_size,
        "sample_index": spec.sample_index,
        "attempt": spec.attempt,
        "fork_step": trajectory.fork_step,
        "reward": trajectory.reward,
        "reward_valid": trajectory.graded and trajectory.reward is not None,
        "temperature": temperature if isinstance(temperature, int | float) else None,
        **{name: None if text is None else valid_unicode(text) for name, text in texts.items()},
    }


def _columns(index: int, segment: Segment) -> dict[str, Any]:
    versions = sorted({step.policy_version for step in segment.steps if step.policy_version is not None}, key=_natural)
    return {
        "segment_index": index,
        "first_step": segment.steps[0].index,
        "last_step": segment.steps[-1].index,
        "input_ids": segment.input_ids,
        "completion_mask": segment.completion_mask,
        "logprobs": segment.logprobs,
        "prompt_length": segment.prompt_length,
        "policy_version_min": valid_unicode(versions[0]) if versions else None,
        "policy_version_max": valid_unicode(versions[-1]) if versions else None,
    }


def _natural(version: str) -> list[tuple[int, str]]:
    """What puts `v9` before `v10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", version)]

"""What a trainer has to know of an attempt: how its reward came about, and whether it can be used. Pure."""

import json
from collections.abc import Iterator
from typing import Any

from realwork.types import Trajectory


def reward_by(record: Trajectory) -> str:
    """How the reward came about, in a sentence."""
    if record.reward is None:
        return "No reward: the tests gave no grade. A failure of the machinery is never a reward of 0."
    for name, said in said_by_plugins(record).items():
        if isinstance(said, dict) and "replaced_reward" in said:
            return f"Set by the plugin {name}; the tests' own reward was {said['replaced_reward']}."
    passed, total = record.tests_passed, record.tests_total
    where = {"fresh": "in a fresh sandbox", "same": "where the agent worked"}.get(record.grading_mode or "", "")
    return f"{passed} of {total} test commands passed {where}".strip() + "."


def untrainable(record: Trajectory) -> Iterator[str]:
    """Why it cannot be trained on, in sentences; none where it can."""
    if record.graded and record.reward is not None:
        return
    if record.status == "cancelled":
        yield "The rollout was cancelled before it had a grade."
    elif record.failure_cause is not None:
        yield f"Its {record.failure_cause} failed ({record.error_type or record.terminated_reason})."
    else:
        yield "It has no grade."
    yield "The reward is null, and reward_valid is false: a trainer has to leave this row out."


def notes(record: Trajectory) -> Iterator[str]:
    """What else is worth knowing before it is trained on, in sentences."""
    own = record.own_steps
    with_tokens = sum(step.tokens is not None for step in own)
    if not with_tokens:
        yield "No token ids: the endpoint told none, so that a trainer has to tokenise the messages itself."
    elif with_tokens < len(own):
        yield f"{len(own) - with_tokens} of {len(own)} steps have no token ids."
    if len({step.policy_version for step in own}) > 1:
        yield "The policy changed while it was played: its steps come from different weights."
    if any(step.window.dropped or step.window.shortened for step in own):
        yield "The context was shortened on the way: the model has not seen all that stands here."
    if record.status == "truncated":
        yield f"A limit ended it ({record.terminated_reason}); what was there then is graded."
    if record.changed_outside:
        yield f"{record.changed_outside} files were changed outside the working directory, where no test saw them."


def said_by_plugins(record: Trajectory) -> dict[str, Any]:
    """What each plugin has said."""
    said: dict[str, Any] = json.loads(record.plugin_data)
    return said

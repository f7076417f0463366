"""What trainers that play rollouts of their own are told of a rollout: its task, and what came of it here. Pure."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from realwork.analysis.export.rollouts import Selection, prompt
from realwork.text import valid_text
from realwork.types import Trajectory

SOURCE = "realwork"
WITHOUT_PROMPT = "rollouts without a prompt"

PROMPT = pa.list_(pa.field("element", pa.struct([("role", pa.string()), ("content", pa.string())])))
ORIGIN = [
    ("split", pa.string()),
    ("index", pa.int64()),
    ("trajectory_id", pa.string()),
    ("group_id", pa.string()),
    ("environment_id", pa.string()),
    ("sample_index", pa.int32()),
    ("reward", pa.float64()),
    ("success", pa.bool_()),
    ("model", pa.string()),
]
"""The columns of `origin()`."""


def tasks(selection: Selection, directory: Path) -> Iterator[tuple[int, Trajectory]]:
    """The trajectories that have a prompt, numbered from 0; the others are counted as left out.

    Raises:
        StoreError: a part cannot be read.
    """
    index = 0
    for trajectory in selection.trajectories(directory):
        if prompt(trajectory):
            yield index, trajectory
            index += 1
        else:
            selection.left_out[WITHOUT_PROMPT] += 1


def chat_prompt(trajectory: Trajectory) -> list[dict[str, str]]:
    """The messages before the first reply."""
    return [{"role": each.role, "content": valid_text(each.content or "")} for each in prompt(trajectory)]


def ground_truth(trajectory: Trajectory) -> str:
    """What decides about success, as JSON text: the test commands that have to pass."""
    return json.dumps([test.command for test in trajectory.test_commands], ensure_ascii=False)


def origin(index: int, trajectory: Trajectory) -> dict[str, Any]:
    """Which rollout a row tells of, and what its tests said."""
    spec = trajectory.spec
    return {
        "split": "train",
        "index": index,
        "trajectory_id": spec.trajectory_id,
        "group_id": spec.group_id,
        "environment_id": spec.environment_id,
        "sample_index": spec.sample_index,
        "reward": trajectory.reward,
        "success": trajectory.success,
        "model": trajectory.model,
    }

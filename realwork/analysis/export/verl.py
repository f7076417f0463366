"""Parquet for verl's RLHFDataset: the task of each rollout, and what a tool needs to set it up. Pure functions over the
Parquet.

One row per graded rollout. verl asks its own model; what the model here has said stands in the dataset, under
`extra_info.trajectory_id`. Every tool's `create_kwargs` are the same struct, because verl looks them up by tool.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from realwork.analysis.export.files import Exported, Json, exported, write_parquet
from realwork.analysis.export.rollouts import Selection, graded_rollouts
from realwork.analysis.export.tasks import ORIGIN, PROMPT, SOURCE, chat_prompt, ground_truth, origin, tasks
from realwork.tools import tool_schemas
from realwork.types import Trajectory

ABILITY = "code"
TOOLS = tuple(str(tool["function"]["name"]) for tool in tool_schemas())

_CREATE = pa.struct([("environment_id", pa.string()), ("environment", pa.string())])
SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", PROMPT),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct(
                [
                    *ORIGIN,
                    ("need_tools_kwargs", pa.bool_()),
                    ("tools_kwargs", pa.struct([(tool, pa.struct([("create_kwargs", _CREATE)])) for tool in TOOLS])),
                ]
            ),
        ),
    ]
)


def export_verl(directory: Path, output: Path) -> Exported:
    """Write the graded rollouts of `directory` to `output`.

    Raises:
        InputError: there is no run, no graded rollout, none with a prompt, or `output` is no place for a file.
        StoreError: a part cannot be read, or the file cannot be written.
    """
    selection = graded_rollouts(directory)
    nothing = f"No graded rollout in {directory} has a prompt, so there is nothing to export."
    written = write_parquet(output, _rows(selection, directory), SCHEMA, nothing=nothing)
    return exported(written, selection.left_out)


def row(index: int, trajectory: Trajectory) -> Json:
    """`trajectory` as row `index`."""
    create = {"environment_id": trajectory.spec.environment_id, "environment": trajectory.environment}
    return {
        "data_source": SOURCE,
        "prompt": chat_prompt(trajectory),
        "ability": ABILITY,
        "reward_model": {"style": "rule", "ground_truth": ground_truth(trajectory)},
        "extra_info": {
            **origin(index, trajectory),
            "need_tools_kwargs": True,
            "tools_kwargs": {tool: {"create_kwargs": create} for tool in TOOLS},
        },
    }


def _rows(selection: Selection, directory: Path) -> Iterator[Json]:
    return (row(index, trajectory) for index, trajectory in tasks(selection, directory))

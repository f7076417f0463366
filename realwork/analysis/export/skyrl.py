"""Parquet for SkyRL's PromptDataset: the task of each rollout, and what an environment needs to set it up. Pure
functions over the Parquet.

One row per graded rollout. SkyRL asks its own model; what the model here has said stands in the dataset, under
`extra_info.trajectory_id`.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from realwork.analysis.export.files import Exported, Json, exported, write_parquet
from realwork.analysis.export.rollouts import Selection, graded_rollouts
from realwork.analysis.export.tasks import ORIGIN, PROMPT, SOURCE, chat_prompt, ground_truth, origin, tasks
from realwork.types import Trajectory

ENVIRONMENT_CLASS = "realwork"
"""The name under which SkyRL's environment for these tasks is to be registered."""
SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", PROMPT),
        ("env_class", pa.string()),
        ("reward_spec", pa.struct([("method", pa.string()), ("ground_truth", pa.string())])),
        ("extra_info", pa.struct([*ORIGIN, ("environment", pa.string()), ("tools", pa.string())])),
    ]
)


def export_skyrl(directory: Path, output: Path) -> Exported:
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
    return {
        "data_source": SOURCE,
        "prompt": chat_prompt(trajectory),
        "env_class": ENVIRONMENT_CLASS,
        "reward_spec": {"method": "rule", "ground_truth": ground_truth(trajectory)},
        "extra_info": {
            **origin(index, trajectory),
            "environment": trajectory.environment,
            "tools": trajectory.tools,
        },
    }


def _rows(selection: Selection, directory: Path) -> Iterator[Json]:
    return (row(index, trajectory) for index, trajectory in tasks(selection, directory))

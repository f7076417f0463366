"""JSON lines for TRL's SFTTrainer: conversations with tools. Pure functions over the Parquet.

One line per graded rollout, good or bad: `reward` and `success` stand beside, to choose by. `tools` is JSON text, which
TRL parses, because a column of schemas that differ from row to row is none.
"""

from pathlib import Path

from realwork.analysis.export.chat import chat, tools
from realwork.analysis.export.files import Exported, Json, exported, write_json_lines
from realwork.analysis.export.rollouts import graded_rollouts
from realwork.types import Trajectory


def export_trl_sft(directory: Path, output: Path) -> Exported:
    """Write the graded rollouts of `directory` to `output`.

    Raises:
        InputError: there is no run, no graded rollout, none with a reply, or `output` is no place for a file.
        StoreError: a part cannot be read, or the file cannot be written.
    """
    selection = graded_rollouts(directory)
    entries = (entry(trajectory) for trajectory in selection.with_reply(directory))
    nothing = f"In no graded rollout of {directory} has the model replied, so there is nothing to export."
    return exported(write_json_lines(output, entries, nothing=nothing), selection.left_out)


def entry(trajectory: Trajectory) -> Json:
    """`trajectory` as a line: TRL's conversational language modelling with tools."""
    return {
        "messages": chat(trajectory.messages),
        "tools": tools(trajectory),
        "reward": trajectory.reward,
        "success": trajectory.success,
        "trajectory_id": trajectory.spec.trajectory_id,
    }

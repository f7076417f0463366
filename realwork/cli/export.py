"""`export`: the dataset in the format of a trainer."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from realwork.cli.console import results
from realwork.cli.inspection import Directory
from realwork.errors import InputError

FormatName = Literal["seed-json", "trl-sft", "trl-dpo", "trl-kto", "verl", "skyrl", "atif", "jsonl"]


def export(
    directory: Directory,
    to: Annotated[FormatName, typer.Option("--to", help="The format; see above.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("--output", help="The file to write, whole or not at all.", metavar="FILE", show_default=False),
    ],
) -> None:
    """Write a run, or all runs of a directory, in the format of a trainer.

    seed-json: JSON, a list of all rollouts, and FILE.stats.json with the numbers.

    trl-sft: JSONL for TRL's SFTTrainer: messages and tools of each graded rollout; choose by reward or success.

    trl-dpo: JSONL for TRL's DPOTrainer: prompt, chosen and rejected, the best against the worst of each group.

    trl-kto: JSONL for TRL's KTOTrainer: prompt, completion and label, which is success.

    verl: Parquet for verl's RLHFDataset: the task of each graded rollout, its tests, arguments for tools.

    skyrl: Parquet for SkyRL's PromptDataset: the task of each graded rollout, its tests, its environment.

    atif: JSONL, an Agent Trajectory Interchange Format 1.8 document for each rollout.

    jsonl: JSONL, every row of the dataset with all columns, failed attempts included.

    A rollout counts once, with its graded attempt; what has no grade is never taken for a reward of 0.
    """
    from realwork.analysis.export.formats import FORMATS
    from realwork.analysis.export.formats import export as write
    from realwork.runfile import check_output

    if problems := check_output(output.parent):
        raise InputError(f"--output: {problems[0]}")
    written = write(directory, to, output)
    chosen = FORMATS[to]
    plural = "" if written.written == 1 else "s"
    results.print(f"{written.written} {chosen.entry}{plural} written to {output} ({chosen.kind})", markup=False)
    for reason, count in written.left_out.items():
        results.print(f"left out: {reason} ({count})", markup=False)

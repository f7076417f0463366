"""`show`: the trajectories of the dataset."""

import os
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from realwork.cli.console import errors, number, results, table
from realwork.config import is_url
from realwork.errors import InputError
from realwork.text import visible

if TYPE_CHECKING:
    from realwork.dataset.rows import Row


def here(location: str) -> Path:
    """The directory that is meant; what is in object storage is brought here."""
    if not is_url(location):
        return Path(location)
    from realwork.dataset.fetched import fetched

    return fetched(location, partial(errors.print, markup=False))


Directory = Annotated[
    Path,
    typer.Argument(
        parser=here,
        help="A run's directory, or one that holds several runs; s3:// or gs:// is fetched first.",
        metavar="DIR",
        show_default=False,
    ),
]
LISTED = 100
MATCHES = 10


def show(
    directory: Directory,
    trajectory_id: Annotated[
        str | None, typer.Argument(help="A trajectory's id, or how it begins.", metavar="[ID]")
    ] = None,
    environment: Annotated[str | None, typer.Option(help="List those of this environment only.", metavar="ID")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="List those without a grade only.")] = False,
    everything: Annotated[bool, typer.Option("--all", help=f"List all, not only the first {LISTED}.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Show one with all that was said, nothing folded.")] = False,
) -> None:
    """List the trajectories of a run, or show one: its messages, tool calls, results, tests and outcome.

    On a terminal one is shown in a pager (PAGER, else less). What agents and models wrote is shown as text:
    characters that would steer the terminal are replaced by their pictures or codes.
    """
    from realwork.dataset.read import find_rows

    if trajectory_id is None:
        _list(directory, environment=environment, failed=failed, limit=None if everything else LISTED)
        return
    found = [*islice(find_rows(directory, trajectory_id), 2)] or _held(directory, trajectory_id)
    if not found:
        raise InputError(f"no trajectory in {directory} has an id that begins with '{trajectory_id}'")
    if len(found) == 1:
        _show(found[0], full=full)
        return
    names = [each["trajectory_id"] for each in islice(find_rows(directory, trajectory_id), MATCHES)]
    raise InputError(f"several trajectories have an id that begins with '{trajectory_id}'", problems=names)


def _held(directory: Path, trajectory_id: str) -> list["Row"]:
    """The row of exactly that id that no part has yet: of a run that goes on, with the steps so far."""
    from realwork.dataset.live import find_live
    from realwork.dataset.read import run_directories
    from realwork.dataset.rows import row

    held = (find_live(run, trajectory_id) for run in run_directories(directory))
    return [row(record) for record in held if record is not None]


def _show(row: "Row", *, full: bool) -> None:
    from realwork.cli.trajectories import Renderer
    from realwork.dataset.rows import trajectory

    os.environ.setdefault("LESS", "FRX")  # colours as they are, and no pager where all fits on the screen
    with results.pager(styles=True) if results.is_terminal else nullcontext():
        Renderer(results, full=full).trajectory(trajectory(row))


def _list(directory: Path, *, environment: str | None, failed: bool, limit: int | None) -> None:
    from realwork.analysis.attempts import attempts

    rows = table("Trajectory", "Ended by", "Reward", "Tests", "Steps", "Seconds")
    more = 0
    for each, _ in attempts(directory):
        if (environment is not None and each.rollout.environment_id != environment) or (failed and each.graded):
            continue
        if limit is not None and rows.row_count >= limit:
            more += 1
            continue
        rows.add_row(
            Text(visible(each.trajectory_id)),
            each.terminated_reason if each.graded else f"{each.terminated_reason} ({each.failure_cause})",
            number(each.reward),
            f"{each.tests_passed}/{each.tests_total}" if each.graded else "-",
            str(each.n_steps),
            f"{each.duration_s:.1f}",
        )
    if environment is not None and not rows.row_count and not failed:
        raise InputError(f"no trajectory in {directory} is of an environment '{environment}'")
    results.print(rows)
    if more:
        results.print(f"{more} more; --all lists them, --environment ID and --failed choose", markup=False)

"""`compact`: small parts put together."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from realwork.cli.console import errors, results
from realwork.config import is_url

if TYPE_CHECKING:
    from realwork.dataset.compact import Compacted


def compact(
    location: Annotated[
        str,
        typer.Argument(
            help="A run's directory, or one that holds several runs; or a URL of object storage that does.",
            metavar="DIR",
            show_default=False,
        ),
    ],
) -> None:
    """Put the small Parquet parts of finished runs together into larger ones.

    Let nobody read the parts meanwhile; a run that is at work is refused. Killed in between, it is brought to its end
    by whatever opens the run next.
    """
    from realwork.dataset.compact import compact as put_together
    from realwork.dataset.fetched import runs_below
    from realwork.dataset.read import run_directories
    from realwork.dataset.run_directory import held

    if is_url(location):
        for url in runs_below(location):
            _compact_there(url)
        return
    for run in run_directories(Path(location)):
        with held(run):
            _report(str(run), put_together(run))


def _compact_there(url: str) -> None:
    from realwork.dataset.compact import compact as put_together
    from realwork.dataset.mirror import Mirror
    from realwork.dataset.places import working_copy_of_run
    from realwork.dataset.run_directory import held

    directory = working_copy_of_run(url)
    mirror = Mirror(directory, url)
    with held(directory):
        mirror.check()
        errors.print(f"The working copy is {directory}", markup=False)
        if (aside := mirror.fetch()) is not None:
            errors.print(f"An older one, which was played here, is now {aside}", markup=False)
        with mirror.marked():
            done = put_together(directory)
            mirror.follow()
    _report(url, done)


def _report(run: str, done: "Compacted") -> None:
    results.print(f"{run}: {done.before} parts before, {done.after} now", markup=False)

"""`compact`: small parts put together."""

from pathlib import Path
from typing import Annotated

import typer

from realwork.cli.console import errors, results
from realwork.config import is_url


def compact(
    location: Annotated[
        str,
        typer.Argument(
            help="A run's directory, or one that holds several runs; or the URL of a run in object storage.",
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
    from realwork.dataset.read import run_directories

    if is_url(location):
        _compact_there(location)
        return
    for run in run_directories(Path(location)):
        done = put_together(run)
        results.print(f"{run}: {done.before} parts before, {done.after} now", markup=False)


def _compact_there(url: str) -> None:
    from realwork.dataset.compact import compact as put_together
    from realwork.dataset.mirror import Mirror, working_copy_of_run
    from realwork.dataset.read import run_directories

    directory = working_copy_of_run(url)
    mirror = Mirror(directory, url)
    mirror.check()
    errors.print(f"The working copy is {directory}", markup=False)
    mirror.fetch()
    for run in run_directories(directory):
        done = put_together(run)
        mirror.follow()
        results.print(f"{url}: {done.before} parts before, {done.after} now", markup=False)

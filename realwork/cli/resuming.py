"""Which run is meant by `--run-id` and `--resume`."""

import re
from pathlib import Path
from typing import NamedTuple

from realwork.config import is_url, split_url
from realwork.errors import InputError

_RUN_FILE = "run.json"


class Wanted(NamedTuple):
    """Where the run's directory stands, null for where the run file says, and its name, null for a new one."""

    output: str | None
    run_id: str | None


def check_run_id(run_id: str | None) -> None:
    """Find out whether a run's directory can have that name.

    Raises:
        InputError: it cannot.
    """
    if run_id is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", run_id):
        raise InputError(f"--run-id: '{run_id}' can be no directory name; use letters, digits, dot, dash, underscore")


def wanted_run(run_id: str | None, resume: str | None) -> Wanted:
    """The run that the two options name.

    Raises:
        InputError: they name none.
    """
    if resume is None:
        check_run_id(run_id)
        return Wanted(None, run_id)
    if run_id is not None:
        raise InputError("--run-id and --resume cannot be given together: the directory of --resume has a name")
    if is_url(resume):
        from realwork.dataset.objects import Objects

        output, name = split_url(resume)
        if not name or Objects(resume).written_at(_RUN_FILE) is None:
            raise InputError(f"--resume: {resume} is no run; it has no {_RUN_FILE}")
        return Wanted(output, name)
    directory = Path(resume).absolute()
    if not (directory / _RUN_FILE).is_file():
        raise InputError(f"--resume: {resume} is no run directory; it has no {_RUN_FILE}")
    return Wanted(str(directory.parent), directory.name)

"""`submit`: a run as a job of a Ray cluster."""

import logging
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from realwork.cli.console import errors, results
from realwork.cli.resuming import check_run_id
from realwork.cli.runs import File
from realwork.config import SCRIPTED_PREFIX, is_url
from realwork.errors import InputError
from realwork.runfile import RunFile, load_run_file

DASHBOARD = "http://127.0.0.1:8265"


def submit(
    file: File,
    address: Annotated[
        str, typer.Option(help="The cluster's dashboard.", envvar="RAY_API_SERVER_ADDRESS", metavar="URL")
    ] = DASHBOARD,
    run_id: Annotated[
        str | None, typer.Option(help="The name of the run, of its directory and of the job.", show_default="time")
    ] = None,
    force_config: Annotated[
        bool, typer.Option("--force-config", help="Go on with a run file that has changed since the run was begun.")
    ] = False,
) -> None:
    """Play a run file on a Ray cluster as a job that goes on by itself, and follow its log.

    The current folder travels, with the run file, its folders and plugins; outputs, environments and files that hold
    secrets by their name stay here. The key must be in the environment of the cluster. Ctrl-C leaves the job running.

    Exit code: that of the run; 130 when no longer followed.
    """
    from realwork.distributed.submitting import submit_job
    from realwork.opening import new_run_id
    from realwork.plugins.loading import load_plugins

    folder, address = Path.cwd(), _dashboard(address)
    check_run_id(run_id)
    run_file = load_run_file(file, needs_key=False)
    load_plugins(run_file.config, folder=run_file.path.parent)
    _check(run_file, folder)
    run_id = run_id or new_run_id()
    logging.disable(logging.INFO)  # Ray tells of each step
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # Ray would take them before what was given
        os.environ.pop(name, None)
    path = run_file.path.resolve().relative_to(folder)
    words = ["realwork", "run", str(path), "--run-id", run_id, *(["--force-config"] if force_config else [])]
    job = submit_job(address, folder, shlex.join(words), job_id=f"realwork-{run_id}")
    results.print(f"job {job.job_id} at {address}", markup=False)
    try:
        code = job.follow(_write)
    except KeyboardInterrupt:
        ray_job = "RAY_AUTH_MODE=token ray job" if os.environ.get("RAY_AUTH_MODE") == "token" else "ray job"
        errors.print(
            f"\nThe job goes on. Follow it: {ray_job} logs --address {address} --follow {job.job_id}\n"
            f"Stop it: {ray_job} stop --address {address} {job.job_id}\n"
            f"Steer it, on a machine of the cluster: realwork ctl status --run-id {run_id}",
            markup=False,
        )
        raise typer.Exit(130) from None
    raise typer.Exit(code)


def _dashboard(address: str) -> str:
    """The address of a dashboard, in full.

    Raises:
        InputError: it is another one.
    """
    if address.startswith(("http://", "https://")):
        return address.rstrip("/")
    if "://" in address or ":" not in address:
        raise InputError(
            f"--address: '{address}' is no address of a dashboard, such as {DASHBOARD}, which 'ray start --head' prints"
        )
    return f"http://{address}"


def _check(run_file: RunFile, folder: Path) -> None:
    """Find out whether all that the run needs travels with `folder`, and its output stays.

    Raises:
        InputError: with everything that does not.
    """
    needed = [run_file.path, *(path for each in run_file.folders.values() for path in (*each.copied, *each.for_tests))]
    if run_file.config.llm_config.is_scripted:
        needed.append(Path(run_file.config.llm_config.model.removeprefix(SCRIPTED_PREFIX)))
    problems = [
        f"{path} is not below {folder}, so it does not travel with the job; submit from a folder above it"
        for path in dict.fromkeys(needed)
        if not path.resolve().is_relative_to(folder)
    ]
    output = run_file.config.rollout_config.trajectory_output_path
    if not is_url(output) and Path(output).is_relative_to(folder):
        problems.append(
            f"rollout_config.trajectory_output_path is {output}: a job's folder goes away with it; give a path outside "
            "of the current folder that the cluster's head node has, or s3:// or gs://"
        )
    if problems:
        raise InputError(f"{run_file.path} cannot be submitted from {folder}", problems=problems)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()

"""A run as a job of a Ray cluster, over the HTTP port of its dashboard.

Guarantees: what is sent is the current folder, without outputs, environments and files that hold secrets by their name;
no variable of this process goes along. The job goes on whatever becomes of the process that follows it.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobStatus, JobSubmissionClient

from realwork.errors import InputError, NodeError, blame

LEFT_OUT = (
    *(".git", ".venv", "venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", "node_modules"),
    *(".env", ".env.*", "*.pem", "*.key", "id_rsa*", "id_ed25519*", ".ssh", ".aws", ".netrc"),
)
"""Names, anywhere below the folder, that never travel."""
LOOK_EVERY_S = 1.0
LAST_LOOK_S = 60.0
TAKEN = "already exists"
"""What Ray says of an id that a job had, whatever became of it."""


class Job:
    """A job that was submitted.

    Attributes:
        job_id: by which every command of Ray knows it.
    """

    def __init__(self, client: JobSubmissionClient, job_id: str) -> None:
        self._client = client
        self.job_id = job_id

    def follow(self, on_text: Callable[[str], None]) -> int:
        """Tell what the job writes until it ends; its exit code, 1 where it has none.

        Raises:
            NodeError: the cluster does not answer any more.
        """
        with blame(NodeError, f"job {self.job_id} cannot be followed"):
            return asyncio.run(self._follow(on_text))

    async def _follow(self, on_text: Callable[[str], None]) -> int:
        async for text in self._client.tail_job_logs(self.job_id):
            on_text(text)
        async with asyncio.timeout(LAST_LOOK_S):
            while True:
                told = await asyncio.to_thread(self._client.get_job_info, self.job_id)
                if told.status.is_terminal():
                    break
                await asyncio.sleep(LOOK_EVERY_S)
        if told.status != JobStatus.FAILED or not told.driver_exit_code:
            return 0 if told.status == JobStatus.SUCCEEDED else 1
        return int(told.driver_exit_code)


def submit_job(address: str, folder: Path, command: str, *, job_id: str, left_out: Sequence[str] = ()) -> Job:
    """Let the cluster whose dashboard is at `address` run `command` in a copy of `folder`.

    Args:
        job_id: of the job; one that had it and has ended keeps it, and the new one gets a number behind.
        left_out: paths below `folder` that stay here, beside `LEFT_OUT`.

    Raises:
        InputError: no dashboard answers there, or it refuses the job, or one of that id goes on.
    """
    try:
        client = JobSubmissionClient(address)
        excludes = [*LEFT_OUT, *(f"/{path}" for path in left_out)]
        runtime_env = {"working_dir": str(folder), "excludes": excludes}
        for number in itertools.count(1):
            own_id = job_id if number == 1 else f"{job_id}-{number}"
            try:
                client.submit_job(entrypoint=command, submission_id=own_id, runtime_env=runtime_env)
            except RuntimeError as error:
                if TAKEN not in str(error):
                    raise
                _check_ended(client, own_id, address)
            else:
                break
    except AuthenticationError as error:
        raise InputError(
            f"{address} refuses the token that is sent; it is taken from RAY_AUTH_TOKEN, else from ~/.ray/auth_token"
        ) from error
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        lines = [line.strip() for line in str(error).splitlines() if any(map(str.isalnum, line))]
        raise InputError(
            f"the job could not be submitted to {address}: {lines[-1] if lines else type(error).__name__}. Give the "
            "address of the cluster's dashboard, such as http://127.0.0.1:8265, which 'ray start --head' prints; a "
            "cluster with token authentication needs its token here, in ~/.ray/auth_token or RAY_AUTH_TOKEN."
        ) from error
    return Job(client, own_id)


def _check_ended(client: JobSubmissionClient, job_id: str, address: str) -> None:
    if not client.get_job_status(job_id).is_terminal():
        raise InputError(
            f"job {job_id} goes on already. Give another --run-id, or follow it: "
            f"ray job logs --address {address} --follow {job_id}"
        )

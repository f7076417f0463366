"""A run that is submitted as a job to a Ray cluster that is there already."""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from tests.e2e.command import REALWORK, REPOSITORY, clean_environment, own_containers, rows, wait_until


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def ray_head(folder):
    """`ray start --head` with token authentication, for the length of the block; its address and its dashboard's."""
    port, dashboard = free_port(), free_port()
    command = ["ray", "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}"]
    environment = clean_environment(RAY_AUTH_MODE="token", RAY_USAGE_STATS_ENABLED="0")
    with (folder / "ray.log").open("w") as log:
        head = subprocess.Popen(
            [REALWORK.with_name("ray"), *command[1:], "--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{dashboard}/"), seconds=90, what="the dashboard")
        yield f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}"
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def run_in(folder, command, environment):
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture(scope="module")
def submitted(docker_image, tmp_path_factory):
    """One job: the smallest run file, submitted from a folder of its own, written to a directory that stays."""
    folder = tmp_path_factory.mktemp("job")
    for name in ("configs", "examples"):
        shutil.copytree(REPOSITORY / name, folder / "work" / name)
    environment = clean_environment(RAY_AUTH_MODE="token")
    run_id = f"job-{time.time_ns()}"
    config = (folder / "work" / "configs" / "scripted.json").read_text()
    config = config.replace('"rollout_config": {}', f'"rollout_config": {{"trajectory_output_path": "{folder}/out"}}')
    (folder / "work" / "configs" / "scripted.json").write_text(config)
    patience = time.monotonic() + 120
    with ray_head(folder) as (address, dashboard):
        submit = [REALWORK.with_name("ray"), "job", "submit", "--address", dashboard, "--working-dir", "."]
        command = [*submit, "--", "realwork", "run", "configs/scripted.json", "--run-id", run_id]
        job = run_in(folder / "work", command, environment)
        while "No available agent" in job.stderr and time.monotonic() < patience:
            job = run_in(folder / "work", command, environment)
        join = [REALWORK, "run", "configs/scripted.json", "--run-id", f"{run_id}-joined", "--address", address]
        joined = run_in(folder / "work", join, environment)
    return folder, run_id, job, joined


def test_a_job_plays_the_run_file_on_the_cluster(submitted):
    folder, run_id, job, _ = submitted
    assert job.returncode == 0, job.stdout + job.stderr
    (row,) = rows(folder / "out" / run_id)
    assert (row["environment_id"], row["success"]) == ("hello", True)
    assert own_containers(run_id) == []


def test_a_run_joins_the_cluster_at_an_address(submitted):
    folder, run_id, _, joined = submitted
    assert joined.returncode == 0, joined.stderr
    (row,) = rows(folder / "out" / f"{run_id}-joined")
    assert row["success"] is True

"""A run that is submitted as a job to a Ray cluster that is there already."""

import json
import shutil
import subprocess
import time

import pytest

from tests.e2e.cluster import TOKEN, ray_head
from tests.e2e.command import REALWORK, REPOSITORY, clean_environment, own_containers, plain, rows, run_file
from tests.endpoint import DONE, Endpoint, by_turn, run
from tests.plugins.modules import EXAMPLE, evaluating

RAY = REALWORK.with_name("ray")
KEY = "sk-canary-of-the-flag"
LISTED = ("actors", "tasks", "jobs", "workers", "objects")
"""What the state API knows of."""


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
    environment = clean_environment(**TOKEN)
    run_id = f"job-{time.time_ns()}"
    config = (folder / "work" / "configs" / "scripted.json").read_text()
    config = config.replace('"rollout_config": {}', f'"rollout_config": {{"trajectory_output_path": "{folder}/out"}}')
    config = config.replace(
        '"environments"', '"plugins": ["beside", {"module": "in_folder", "num_cpus": 0.1}], "environments"'
    )
    (folder / "work" / "configs" / "scripted.json").write_text(config)
    (folder / "work" / "configs" / "beside.py").write_text(EXAMPLE)
    (folder / "work" / "helper.py").write_text("MARK = 0.5\n")
    (folder / "work" / "in_folder.py").write_text(
        "import helper\n" + evaluating("in_folder", "return {'m': helper.MARK}")
    )
    patience = time.monotonic() + 120
    with ray_head(folder, has_dashboard=True) as (address, dashboard, _):
        submit = [RAY, "job", "submit", "--address", dashboard, "--working-dir", "."]
        command = [*submit, "--", "realwork", "run", "configs/scripted.json", "--run-id", run_id]
        job = run_in(folder / "work", command, environment)
        while "No available agent" in job.stderr and time.monotonic() < patience:
            job = run_in(folder / "work", command, environment)
        with Endpoint(by_turn(run("touch done"), DONE)) as endpoint:
            file = run_file(folder, endpoint.base_url)
            join = [REALWORK, "run", file, "--run-id", f"{run_id}-joined", "--address", address, "--llm-api-key", KEY]
            joined = run_in(folder / "work", join, environment)
        told = [
            run_in(folder, [RAY, "list", what, "--detail", "--limit=1000"], environment | {"RAY_ADDRESS": dashboard})
            for what in LISTED
        ]
        check = [REALWORK, "check", "configs/openrouter.json", "--address", address]
        keyless = run_in(folder / "work", check, environment | {"OPENROUTER_API_KEY": "sk-canary-of-the-driver"})
    return folder, run_id, job, joined, keyless, told


def test_a_job_plays_the_run_file_on_the_cluster(submitted):
    folder, run_id, job, *_ = submitted
    assert job.returncode == 0, job.stdout + job.stderr
    (row,) = rows(folder / "out" / run_id)
    assert (row["environment_id"], row["success"]) == ("hello", True)
    assert json.loads(row["plugin_data"])["custom_analyzer"]["analysis"] == {"custom_metric": 42}
    assert {each["name"]: each["value"] for each in row["rewards"]} == {"tests": 1.0, "m": 0.5}
    assert own_containers(run_id) == []


def test_a_run_joins_the_cluster_at_an_address(submitted):
    folder, run_id, _, joined, *_ = submitted
    assert joined.returncode == 0, joined.stderr
    (row,) = rows(folder / "out" / f"{run_id}-joined")
    assert row["success"] is True


def test_a_key_that_only_the_driver_has_is_missed_before_anything_starts(submitted):
    *_, keyless, _ = submitted
    assert keyless.returncode == 2, keyless.stderr
    said = plain(keyless.stderr)
    assert "OPENROUTER_API_KEY is not set in Ray's processes there" in said
    assert "sk-canary" not in said


def test_a_key_is_nowhere_in_what_the_cluster_tells_of_a_run(submitted):
    *_, told = submitted
    assert [each.returncode for each in told] == [0] * len(LISTED), told
    assert "RolloutActor" in told[0].stdout
    assert "RolloutActor.run" in told[1].stdout
    assert not any(KEY in each.stdout + each.stderr for each in told)

"""A run that is submitted as a job to a Ray cluster that is there already."""

import json
import shutil
import signal
import subprocess
import time
import urllib.request

import pytest

from realwork.distributed.metrics import METRICS
from tests.e2e.cluster import TOKEN, free_port, ray_head
from tests.e2e.command import (
    REALWORK,
    REPOSITORY,
    clean_environment,
    environment,
    own_containers,
    plain,
    realwork,
    rows,
    run_file,
    wait_until,
)
from tests.e2e.metrics import scraping
from tests.endpoint import DONE, Endpoint, by_turn, run
from tests.plugins.modules import EXAMPLE, evaluating

RAY = REALWORK.with_name("ray")
KEY = "sk-canary-of-the-flag"
LISTED = ("actors", "tasks", "jobs", "workers", "objects")
"""What the state API knows of."""


def run_in(folder, command, variables):
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def submitted(docker_image, tmp_path_factory):
    """One job: the smallest run file, submitted from a folder of its own, written to a directory that stays."""
    folder = tmp_path_factory.mktemp("job")
    for name in ("configs", "examples"):
        shutil.copytree(REPOSITORY / name, folder / "work" / name)
    variables = clean_environment(**TOKEN)
    without_mode = {name: value for name, value in variables.items() if name != "RAY_AUTH_MODE"}
    run_id = f"job-{time.time_ns()}"
    config = (folder / "work" / "configs" / "scripted.json").read_text()
    config = config.replace('"rollout_config": {}', f'"rollout_config": {{"trajectory_output_path": "{folder}/out"}}')
    config = config.replace(
        '"environments"', '"plugins": ["beside", {"module": "in_folder", "num_cpus": 0.1}], "environments"'
    )
    config = config.replace('"unit_tests": [', '"copy_folders": ["data"], "unit_tests": ["test -f data/copied", ')
    (folder / "work" / "configs" / "data").mkdir()
    (folder / "work" / "configs" / "data" / "copied").write_text("with the job")
    (folder / "work" / "configs" / "scripted.json").write_text(config)
    (folder / "work" / "configs" / "beside.py").write_text(EXAMPLE)
    (folder / "work" / "configs" / "slow.json").write_text(config.replace("scripted_replies", "slow_replies"))
    slow = {"tool_calls": [{"name": "execute_command", "arguments": {"command": "sleep 8; echo hello > hello.txt"}}]}
    (folder / "work" / "configs" / "slow_replies.json").write_text(json.dumps([slow]))
    (folder / "work" / "helper.py").write_text("MARK = 0.5\n")
    (folder / "work" / "in_folder.py").write_text(
        "import helper\n" + evaluating("in_folder", "return {'m': helper.MARK}")
    )
    patience = time.monotonic() + 120
    port = free_port()
    exports = [f"--metrics-export-port={port}"]
    at_once = {"RAY_metrics_report_interval_ms": "1000"}
    with ray_head(folder, has_dashboard=True, options=exports, **at_once) as (address, dashboard, _):
        submit = [RAY, "job", "submit", "--address", dashboard, "--working-dir", "work"]
        command = [*submit, "--", "realwork", "run", "configs/scripted.json", "--run-id", run_id]
        job = run_in(folder, command, variables)
        while "No available agent" in job.stderr and time.monotonic() < patience:
            job = run_in(folder, command, variables)
        with Endpoint(by_turn(run("touch done"), DONE)) as endpoint:
            slow = environment("e", unit_tests=["test -f done", "sleep 3"])  # its process tells of the steps meanwhile
            twice = {"rollout_config": {"max_parallel_rollouts": 1}, "episode_control_config": {"max_episodes": 2}}
            file = run_file(folder, endpoint.base_url, environments=[slow], **twice)
            join = [REALWORK, "run", file, "--run-id", f"{run_id}-joined", "--address", address, "--llm-api-key", KEY]
            with scraping(port) as scraped:
                joined = run_in(folder / "work", join, without_mode)
                time.sleep(2)  # two intervals: what its processes have told last
        told = {what: state_of(dashboard, what) for what in LISTED}
        check = [REALWORK, "check", "configs/openrouter.json", "--address", address]
        keyless = run_in(folder / "work", check, without_mode | {"OPENROUTER_API_KEY": "sk-canary-of-the-driver"})
        left = follow_and_leave(folder, dashboard, f"{run_id}-left", without_mode)
    return folder, run_id, job, joined, keyless, told, left, scraped


def state_of(dashboard, what):
    """All that Ray's state API, which `ray list --detail` asks, tells of its actors, tasks and so on."""
    request = urllib.request.Request(f"{dashboard}/api/v0/{what}?detail=1&limit=1000")
    request.add_header("Authorization", f"Bearer {TOKEN['RAY_AUTH_TOKEN']}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def follow_and_leave(folder, dashboard, run_id, variables):
    """What `realwork submit` says when it is left while the job goes on; waits for the end of that job."""
    command = [REALWORK, "submit", "configs/slow.json", "--address", dashboard, "--run-id", run_id]
    process = subprocess.Popen(
        command,
        cwd=folder / "work",
        env=variables | {"RAY_ADDRESS": "127.0.0.1:1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    first = next(line for line in process.stdout if line.startswith("job "))
    process.stdout.readline()  # of the job's log
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    again = run_in(folder / "work", command, variables)
    wait_until(lambda: rows(folder / "out" / run_id), seconds=120, what="the row of the job that was left")
    return process.returncode, first + said, again


def test_a_job_plays_the_run_file_on_the_cluster(submitted):
    folder, run_id, job, *_ = submitted
    assert job.returncode == 0, job.stdout + job.stderr
    (row,) = rows(folder / "out" / run_id)
    assert (row["environment_id"], row["success"]) == ("hello", True)
    assert json.loads(row["plugin_data"])["custom_analyzer"]["analysis"] == {"custom_metric": 42}
    assert {each["name"]: each["value"] for each in row["rewards"]} == {"tests": 1.0, "m": 0.5}
    assert own_containers(run_id) == []


def test_a_job_that_is_left_goes_on_and_how_to_end_it_is_said(submitted):
    folder, run_id, *_, (code, said, again), _ = submitted
    assert code == 130, said
    job_id = f"realwork-{run_id}-left"
    assert said.startswith(f"job {job_id} at http://127.0.0.1:")
    assert "The job goes on." in said
    assert "ray job stop --address http://127.0.0.1:" in said
    assert again.returncode == 2, again.stdout
    assert f"job {job_id} goes on already. Give another --run-id" in plain(again.stderr)
    assert "Traceback" not in said
    (row,) = rows(folder / "out" / f"{run_id}-left")
    assert row["success"] is True


def test_what_cannot_be_submitted_is_said_before_anything_is_sent(tmp_path):
    (tmp_path / "copied").mkdir()
    (tmp_path / "job").mkdir()
    file = run_file(tmp_path / "job", environments=[environment("e", copy_folders=["../copied"])])
    refused = realwork("submit", file, cwd=tmp_path / "job")
    assert refused.returncode == 2
    assert f"{tmp_path}/copied is not below {tmp_path}/job" in plain(refused.stderr)
    assert "a job's folder goes away with it" in plain(refused.stderr)
    away = run_file(tmp_path / "job", rollout_config={"trajectory_output_path": str(tmp_path / "out")})
    refused = realwork("submit", away, "--address", f"http://127.0.0.1:{free_port()}", cwd=tmp_path / "job")
    assert refused.returncode == 2
    assert "the job could not be submitted to http://127.0.0.1:" in plain(refused.stderr)
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--address", "auto"), "--address: 'auto' is no address of a dashboard, such as http://127.0.0.1:8265"),
        (("--address", "ray://127.0.0.1:10001"), "is no address of a dashboard"),
        (("--run-id", "../x"), "--run-id: '../x' can be no directory name"),
    ],
)
def test_what_names_no_dashboard_and_no_run_is_refused_at_once(tmp_path, options, said):
    refused = realwork("submit", run_file(tmp_path), *options, cwd=tmp_path)
    assert (refused.returncode, said in plain(refused.stderr)) == (2, True), refused.stderr


def test_a_script_that_does_not_travel_is_told_before_anything_is_sent(tmp_path):
    (tmp_path / "job").mkdir()
    (tmp_path / "script.json").write_text("[]")
    file = run_file(tmp_path / "job", llm_config={"model": f"scripted:{tmp_path}/script.json"})
    refused = realwork("submit", file, cwd=tmp_path / "job")
    assert refused.returncode == 2
    assert f"{tmp_path}/script.json is not below {tmp_path}/job" in plain(refused.stderr)


def test_a_run_joins_the_cluster_at_an_address(submitted):
    folder, run_id, _, joined, *_ = submitted
    assert joined.returncode == 0, joined.stderr
    assert [row["success"] for row in rows(folder / "out" / f"{run_id}-joined")] == [True, True]


def test_a_key_that_only_the_driver_has_is_missed_before_anything_starts(submitted):
    keyless = submitted[4]
    assert keyless.returncode == 2, keyless.stderr
    said = plain(keyless.stderr)
    assert "OPENROUTER_API_KEY is not set in Ray's processes there" in said
    assert "sk-canary" not in said


def test_a_key_is_nowhere_in_what_the_cluster_tells_of_a_run(submitted):
    run_id, told = submitted[1], submitted[5]
    assert "RolloutActor" in told["actors"]
    assert "RolloutActor.run" in told["tasks"]
    assert f"{run_id}-joined" in told["jobs"], "how the run was started"
    assert not any(KEY in each for each in told.values())


def test_ray_exports_the_metrics_of_a_run_by_their_names_kinds_and_units(submitted):
    """What the first of its two rollouts tells is there; the end of the second may be lost with its processes."""
    _, run_id, *_, scraped = submitted
    run = f"{run_id}-joined"
    kinds = {f"ray_{each.name}".removesuffix("_total" * (each.kind == "counter")): each.kind for each in METRICS}
    assert scraped.kinds == kinds

    def highest(name, *labels):
        return scraped.highest.get((f"ray_realwork_{name}", run, *labels), 0.0)

    assert highest("attempts_total", "successful", "none") in (1, 2)
    assert highest("steps_total") == highest("model_latency_seconds_count")
    assert highest("steps_total") in (2, 3, 4)
    assert highest("command_latency_seconds_count") in (1, 2)
    assert highest("tokens_total", "prompt") == 10 * highest("steps_total")
    assert highest("tokens_total", "completion") == 5 * highest("steps_total")
    assert highest("rollouts", "in_flight") == 1
    assert highest("rollouts", "waiting") in (1, 2)
    assert highest("containers") in (1, 2)
    assert highest("store_waiting_rows") <= 1
    assert highest("store_rows_total") == highest("store_lag_seconds_count")
    assert highest("store_rows_total") in (1, 2)
    assert 1000 < highest("store_written_bytes_total") < 100_000
    assert 0 < highest("store_lag_seconds_sum") < 30

"""Whole runs on a cluster that is there: what stands in the rows, the exit code and the message."""

import json
import os

import pytest

from realwork.dataset.shards import shards_of
from tests.e2e.command import environment, own_containers, plain, realwork, rows, run_file
from tests.endpoint import DONE, Endpoint, by_turn, error, run

pytestmark = pytest.mark.usefixtures("on_cluster")
EPISODES = int(os.environ.get("REALWORK_EPISODES", "8"))
"""Of the test of many; 64 take a minute more."""


def test_a_dead_endpoint_is_no_reward_and_exit_code_1(docker_image, tmp_path):
    with Endpoint(lambda _: error(500, "down", headers={"retry-after-ms": "1"})) as endpoint:
        file = run_file(tmp_path, endpoint.base_url, environments=[environment("e", max_retries=1)])
        result = realwork("run", file, "--run-id", "dead", "--no-ray", cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert "1 without a grade: model" in result.stderr
    found = rows(tmp_path / "out" / "dead")
    assert [row["attempt"] for row in found] == [0, 1]
    for row in found:
        assert (row["status"], row["failure_cause"], row["terminated_reason"]) == ("failed", "model", "llm_error")
        assert (row["reward"], row["reward_valid"], row["success"]) == (None, False, None)
    assert own_containers("dead") == []


def test_a_failing_init_command_fails_its_environment_only(docker_image, tmp_path):
    with Endpoint(by_turn(run("touch done"), DONE)) as endpoint:
        file = run_file(
            tmp_path,
            endpoint.base_url,
            environments=[
                environment("bad", init_commands=["echo no such package >&2; exit 7"], init_network="none"),
                environment("bare", init_commands=["rm $(command -v find)"], init_network="none"),
                environment("good", init_commands=["touch ready"], unit_tests=["test -f ready"]),
            ],
            episode_control_config={"max_episodes": 3},
        )
        result = realwork("run", file, "--run-id", "init", "--no-ray", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.count("No rollout of bad can be played") == 1
    assert result.stderr.count("exit code 7: no such package") == 1
    assert result.stderr.count("bare: grading in a fresh sandbox needs the program find") == 1
    assert "6 without a grade: sandbox" in result.stderr
    found = rows(tmp_path / "out" / "init")
    assert [row["success"] for row in found if row["environment_id"] == "good"] == [True] * 3
    for name in ("bad", "bare"):
        (failed,) = [row for row in found if row["environment_id"] == name]
        assert (failed["terminated_reason"], failed["reward"], len(failed["steps"])) == ("environment_error", None, 0)


def test_many_rollouts_pay_the_init_once_and_a_second_run_does_not(fresh_name, tmp_path):
    name = fresh_name
    made = f"sleep 4; echo {name}-$(date +%s%N) >made"
    with Endpoint(by_turn(run("cat made"), DONE)) as endpoint:
        results = []
        for run_id, episodes in (("first", 4), ("second", 1)):
            file = run_file(
                tmp_path,
                endpoint.base_url,
                environments=[
                    environment(name, init_commands=[made], init_network="none", unit_tests=["test -f made"])
                ],
                episode_control_config={"max_episodes": episodes},
                grading_config={"mode": "same"},
            )
            results.append(realwork("run", file, "--run-id", run_id, cwd=tmp_path))
        first, second = results
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert f"Preparing environment {name}: 1 init command" in first.stderr
    assert "Preparing environment" not in second.stderr
    found = rows(tmp_path / "out" / "first") + rows(tmp_path / "out" / "second")
    assert len(found) == 5
    assert len({row["messages"][3]["content"] for row in found}) == 1
    assert len({row["image_digest"] for row in found}) == 1
    assert sorted(row["timing"]["image_s"] > 4 for row in found) == [False] * 4 + [True]
    listed = realwork("images", cwd=tmp_path)
    assert name in listed.stdout
    assert realwork("images", "--prune", "--unused-for", "999", cwd=tmp_path).stdout.startswith("0 removed")
    assert name in realwork("images", cwd=tmp_path).stdout


def test_quiet_prints_nothing_when_all_is_well(docker_image, tmp_path):
    with Endpoint(by_turn(run("touch done"), DONE)) as endpoint:
        result = realwork("run", run_file(tmp_path, endpoint.base_url), "--quiet", "--no-ray", cwd=tmp_path)
    assert (result.returncode, result.stdout, plain(result.stderr)) == (0, "", "")


def test_a_run_is_resumed_by_its_directory_and_with_another_run_file_when_that_is_forced(docker_image, tmp_path):
    down = [True]

    def respond(request):
        if down[0]:
            return error(400, "no such thing")
        return by_turn(run("touch done"), DONE)(request)

    with Endpoint(respond) as endpoint:
        file = run_file(tmp_path, endpoint.base_url, rollout_config={"trajectory_output_path": "out"})
        assert realwork("run", file, "--run-id", "twice", "--no-ray", cwd=tmp_path).returncode == 1
        down[0] = False
        resumed = realwork("run", file, "--resume", "out/twice", "--no-ray", cwd=tmp_path)
        assert resumed.returncode == 0, resumed.stderr
        assert [(row["attempt"], row["reward"]) for row in rows(tmp_path / "out" / "twice")] == [(0, None), (1, 1.0)]
        parts = {part: part.read_bytes() for part in (tmp_path / "out" / "twice" / "trajectories").iterdir()}
        again = realwork("run", file, "--resume", "out/twice", "--no-ray", cwd=tmp_path)
        assert (again.returncode, "nothing is missing" in plain(again.stderr)) == (0, True), again.stderr
        more = {"rollout_config": {"trajectory_output_path": "out"}, "episode_control_config": {"max_episodes": 2}}
        file = run_file(tmp_path, endpoint.base_url, **more)
        refused = realwork("run", file, "--resume", "out/twice", "--no-ray", cwd=tmp_path)
        assert refused.returncode == 2
        assert "episode_control_config.max_episodes: 1 in run.json, 2 in this run" in plain(refused.stderr)
        forced = realwork("run", file, "--resume", "out/twice", "--force-config", "--no-ray", cwd=tmp_path)
    assert forced.returncode == 0, forced.stderr
    assert len(rows(tmp_path / "out" / "twice")) == 3
    assert all(part.read_bytes() == content for part, content in parts.items()), "a part is never written again"
    assert json.loads((tmp_path / "out" / "twice" / "run-1.json").read_text())["run_id"] == "twice"


def test_many_episodes_of_10_commands_end_with_a_row_each_and_no_container(docker_image, tmp_path):
    commands = [run(f"echo {number} > done") for number in range(10)]
    with Endpoint(by_turn(*commands, DONE)) as endpoint:
        file = run_file(
            tmp_path,
            endpoint.base_url,
            rollout_config={"max_parallel_rollouts": 4, "store_shards": 2},
            episode_control_config={"max_episodes": EPISODES},
            grading_config={"mode": "same"},
        )
        result = realwork("run", file, "--run-id", "many", cwd=tmp_path, timeout_s=290)
    assert result.returncode == 0, result.stderr
    found = rows(tmp_path / "out" / "many")
    assert [row["sample_index"] for row in sorted(found, key=lambda row: row["sample_index"])] == list(range(EPISODES))
    assert all(row["success"] and row["n_steps"] == 11 for row in found)
    assert own_containers("many") == []
    assert [shard.number for shard in shards_of(tmp_path / "out" / "many")] == [0, 1]

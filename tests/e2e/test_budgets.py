"""What all rollouts of a run share: pauses that the endpoint wants, and the run's budgets."""

import json
import threading
import time

import pytest

from tests.endpoint import DONE, Endpoint, error, run

from .command import environment, plain, realwork, rows, run_file

pytestmark = pytest.mark.usefixtures("on_cluster")


def works(request):
    return DONE if "touch done" in json.dumps(request["messages"]) else run("touch done", timeout=9)


def play(folder, respond, *flags, run_id="r", **sections):
    with Endpoint(respond) as endpoint:
        file = run_file(folder, endpoint.base_url, **sections)
        return realwork("run", file, "--run-id", run_id, "--sandbox", "local", *flags, cwd=folder), endpoint


def test_a_pause_that_one_rollout_is_asked_for_holds_all_of_them(tmp_path):
    came, paused_at, lock = [], [], threading.Lock()

    def respond(request):
        time.sleep(0.2)
        with lock:
            came.append(time.monotonic())
            if len(came) == 12:
                paused_at.append(time.monotonic())
                return error(429, "slow down", headers={"retry-after": "3"})
        return works(request)

    result, _ = play(
        tmp_path,
        respond,
        episode_control_config={"max_episodes": 40},
        rollout_config={"max_parallel_rollouts": 3},
    )
    assert result.returncode == 0, result.stderr
    (paused,) = paused_at
    in_the_pause = [at - paused for at in came if 1.0 < at - paused < 2.9]
    assert in_the_pause == []
    assert sum(at > paused for at in came) > 10


def test_no_rollout_begins_in_a_pause_that_is_longer_than_an_episode(tmp_path):
    came = []

    def respond(request):
        came.append(time.monotonic())
        return error(429, "slow down", headers={"retry-after": "9"}) if len(came) == 1 else works(request)

    result, _ = play(
        tmp_path,
        respond,
        timeout_config={"global_timeout": 6},
        environments=[environment("e", max_retries=0)],
        episode_control_config={"max_episodes": 3},
        rollout_config={"max_parallel_rollouts": 1},
    )
    assert result.returncode == 1, result.stderr
    found = sorted(rows(tmp_path / "out" / "r"), key=lambda row: row["sample_index"])
    assert [row["reward"] for row in found] == [None, 1.0, 1.0]
    assert came[1] - came[0] > 8


def test_requests_of_all_rollouts_keep_the_pace_of_the_run(tmp_path):
    came = []

    def respond(request):
        came.append(time.monotonic())
        return works(request)

    result, _ = play(
        tmp_path,
        respond,
        llm_config={"requests_per_minute": 120},
        episode_control_config={"max_episodes": 6},
        rollout_config={"max_parallel_rollouts": 3},
    )
    assert result.returncode == 0, result.stderr
    assert len(came) == 12
    assert came[-1] - came[0] >= 11 * 0.5 - 1.0


def test_a_spent_budget_finishes_what_was_begun_and_the_run_can_be_taken_up(tmp_path):
    environments = [environment(f"e{number}") for number in range(4)]
    common = {"environments": environments, "episode_control_config": {"max_episodes": 3}}
    common["rollout_config"] = {"max_parallel_rollouts": 1}
    with Endpoint(works) as endpoint:

        def play_with(budget):
            file = run_file(tmp_path, endpoint.base_url, llm_config={"max_run_tokens": budget}, **common)
            result = realwork("run", file, "--run-id", "r", "--sandbox", "local", "--no-ray", cwd=tmp_path)
            return result.returncode, plain(result.stderr), rows(tmp_path / "out" / "r")

        code, said, found = play_with(40)
        assert code == 1, said
        assert "llm_config.max_run_tokens (40) is used up" in said
        assert "not begun. Change the run file and take the run up." in said
        begun = {row["environment_id"] for row in found}
        assert 1 <= len(begun) < 4
        assert len(found) == 3 * len(begun), "open groups are whole"
        asked = len(endpoint.requests)
        code, said, _ = play_with(asked)
        assert (code, len(endpoint.requests)) == (1, asked)
        code, said, found = play_with(10_000)
        assert (code, len(found)) == (0, 12), said
        assert len(endpoint.requests) == 2 * 12


def test_the_price_table_counts_what_the_endpoint_does_not(tmp_path):
    prices = {"test-model": {"input": 1e6, "output": 2e6}}
    environments = [environment(f"e{number}") for number in range(3)]
    llm = {"prices": prices, "max_run_cost_usd": 1.0}
    result, _ = play(
        tmp_path, works, llm_config=llm, environments=environments, rollout_config={"max_parallel_rollouts": 1}
    )
    assert result.returncode == 1
    first, *_ = rows(tmp_path / "out" / "r")
    assert first["total_cost_usd"] == 2 * (10 * 1.0 + 5 * 2.0)

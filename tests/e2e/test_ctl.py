"""A run that goes on is looked at and steered from another process."""

import json
import time

import pytest

from tests.e2e.command import plain, realwork, rows, run_file, running, wait_until
from tests.endpoint import DONE, Endpoint, Request, run

pytestmark = pytest.mark.usefixtures("on_cluster")


def waits_for_go(folder):
    """Every rollout writes its file, then waits until there is a file `go`."""

    def answer(request: Request):
        turn = sum(message["role"] == "assistant" for message in request["messages"])
        return [run("touch done"), run(f"while ! test -f {folder}/go; do sleep 0.1; done"), DONE][turn]

    return answer


def test_a_run_is_looked_at_narrowed_followed_and_one_of_its_rollouts_cancelled(tmp_path):
    run_id = f"steered-{time.time_ns()}"

    def ctl(*words):
        return plain(realwork("ctl", *words, "--run-id", run_id, cwd=tmp_path).stdout)

    with Endpoint(waits_for_go(tmp_path)) as endpoint:
        file = run_file(tmp_path, endpoint.base_url, episode_control_config={"max_episodes": 4})
        with running("run", file, "--run-id", run_id, "--sandbox", "local", cwd=tmp_path) as process:
            wait_until(lambda: len(endpoint.requests) >= 4, seconds=120, what="two rollouts that wait")
            assert ctl("parallel", 1) == "at most 1 rollout at once "
            assert ctl("cancel", "e:0") == f"cancelled {run_id}:e:0:0, which was in flight "
            listed = json.loads(ctl("list", "--json"))
            assert {each["trajectory_id"] for each in listed} <= {f"{run_id}:e:0:0", f"{run_id}:e:1:0"}
            doing = {each["trajectory_id"]: each["doing"] for each in listed}[f"{run_id}:e:1:0"]
            assert (doing["phase"], doing["step"]) == ("acting", 2)
            assert "while ! test -f" in doing["detail"]
            assert "$ while ! test -f" in ctl("list")
            with running("ctl", "tail", "e:1", "--run-id", run_id, cwd=tmp_path) as tail:
                assert any("touch done" in line for line in tail.stdout)
                status = ctl("status")
                (tmp_path / "go").touch()
                said = tail.communicate(timeout=60)[0]
            assert "is no longer in flight" in said
            assert f"{run_id}: running" in status
            assert "1 without a grade: cancelled" in status
            told, _ = process.communicate(timeout=120)
    assert process.returncode == 1, told
    assert "realwork ctl: at most 1 rollout at once" in plain(told)
    found = {row["sample_index"]: (row["status"], row["reward"]) for row in rows(tmp_path / "out" / run_id)}
    assert found == {0: ("cancelled", None)} | dict.fromkeys((1, 2, 3), ("completed", 1.0))


def test_a_run_that_is_not_there_is_said_so(tmp_path):
    missing = realwork("ctl", "status", "--run-id", "nowhere", cwd=tmp_path)
    assert missing.returncode == 2
    assert "error: no run nowhere goes on in this cluster" in plain(missing.stderr)
    dashboard = realwork("ctl", "status", "--address", "http://127.0.0.1:8265", cwd=tmp_path)
    assert dashboard.returncode == 2
    assert "is the address of a dashboard, for 'realwork submit'" in plain(dashboard.stderr)

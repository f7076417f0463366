"""A rollout that loses its container, or its process, goes on from its last snapshot."""

import json
import os
import signal
import uuid

import pytest

from realwork.sandbox import labels, snapshots
from realwork.sandbox.engine import connect
from tests.e2e.command import environment, own_containers, realwork, rows, run_file, running, wait_until
from tests.endpoint import DONE, Endpoint, run

pytestmark = pytest.mark.usefixtures("on_cluster")

TURNS = 6


@pytest.fixture
def run_id(docker_image):
    """The id of a run of which nothing is left when the test has ended."""
    run_id = f"go-on-{uuid.uuid4().hex[:8]}"
    yield run_id
    client = connect()
    for found in snapshots_of(run_id):
        client.remove_image(found["Id"], noprune=True)
    client.close()


def snapshots_of(run_id):
    client = connect()
    try:
        return client.images(filters={"label": [snapshots.SNAPSHOT, f"{labels.RUN}={run_id}"]})
    finally:
        client.close()


class Agent:
    """Notes each step in two places: in the container, and in `asked`; hangs in step 4 until it was cut off once."""

    def __init__(self):
        self.asked = []
        self.was_cut = False

    def __call__(self, request):
        turn = sum(message["role"] == "assistant" for message in request["messages"])
        self.asked.append(turn)
        if turn == TURNS:
            return DONE
        hang = "" if self.was_cut or turn != 4 else "; sleep 300"
        return run(f"echo {turn} >> steps; touch /opt/tool-{turn}; ls /opt | wc -l > tools{hang}")


UNIT_TESTS = [
    "test $(tr -d '\\n' < steps) = 012345",
    "test $(cat tools) = 6",
    "test $(cat prepared) = once",
]


def play(folder, run_id, cut_off, **rollout_config):
    """Play one rollout that `cut_off` strikes in step 4, and return its rows and the turns it asked for."""
    agent = Agent()
    with Endpoint(agent) as endpoint:
        file = run_file(
            folder,
            endpoint.base_url,
            environments=[
                environment("e", unit_tests=UNIT_TESTS, init_commands=["echo once >> prepared"], init_network="none")
            ],
            rollout_config={"snapshot_interval": 3} | rollout_config,
        )
        with running("run", file, "--run-id", run_id, "--output", "results.json", cwd=folder) as process:
            wait_until(lambda: 4 in agent.asked and is_hanging(run_id), seconds=240, what="the fourth step")
            agent.was_cut = True
            cut_off(run_id)
            said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    return rows(folder / "out" / run_id), agent.asked


def is_hanging(run_id):
    client = connect()
    try:
        found = client.containers(filters={"label": f"{labels.RUN}={run_id}"})
        return any("sleep 300" in " ".join(line) for each in found for line in client.top(each["Id"])["Processes"])
    finally:
        client.close()


def lose_container(run_id):
    client = connect()
    for found in client.containers(filters={"label": f"{labels.RUN}={run_id}"}):
        client.remove_container(found["Id"], force=True)
    client.close()


def kill_process(run_id):
    client = connect()
    (container,) = client.containers(filters={"label": f"{labels.RUN}={run_id}"})
    client.close()
    os.kill(json.loads(container["Labels"][labels.OWNER])["pid"], signal.SIGKILL)


@pytest.mark.parametrize(("cut_off", "cause"), [(lose_container, "sandbox"), (kill_process, "node")])
def test_a_rollout_that_is_cut_off_goes_on_from_its_last_snapshot(run_id, tmp_path, cut_off, cause):
    (first, second), asked = play(tmp_path, run_id, cut_off)
    assert (first["status"], first["failure_cause"]) == ("failed", cause)
    assert (first["reward"], first["fork_step"]) == (None, None)
    assert (second["attempt"], second["success"], second["reward"]) == (1, True, 1.0)
    assert (second["parent_trajectory_id"], second["fork_step"]) == (first["trajectory_id"], 3)
    assert asked == [0, 1, 2, 3, 4, 3, 4, 5, 6]
    assert second["n_steps"] == TURNS + 1
    assert [message["role"] for message in second["messages"]] == ["system", "user"] + ["assistant", "tool"] * 7
    assert second["image_digest"] == first["image_digest"]
    assert "+++ b/steps\n@@ -0,0 +1,6 @@\n+0\n+1\n+2\n+3\n+4\n+5\n" in second["final_diff"]
    assert ("prepared" in second["final_diff"], first["final_diff"]) == (False, None)
    assert second["total_prompt_tokens"] == 10 * (TURNS + 1 - 3)
    taken = [step["step_index"] for step in second["steps"] if step["state_snapshot"]]
    assert taken == [2, 5]
    assert (snapshots_of(run_id), own_containers(run_id)) == ([], [])
    shown = realwork("show", tmp_path / "out" / run_id, second["trajectory_id"], cwd=tmp_path).stdout
    assert f"goes on after 3 steps of {first['trajectory_id']}" in shown
    assert "snapshot after step 5: sha256:" in shown


def test_snapshots_that_are_to_be_kept_are_there_after_the_run_and_can_be_opened(run_id, tmp_path):
    (_, second), _ = play(tmp_path, run_id, lose_container, keep_snapshots=True)
    there = {found["Id"] for found in snapshots_of(run_id)}
    named = [step["state_snapshot"]["snapshot_id"] for step in second["steps"] if step["state_snapshot"]]
    assert set(named) == there
    (entry,) = json.loads((tmp_path / "results.json").read_text())
    assert [step["state_snapshot"]["id"] for step in entry["steps"] if step["state_snapshot"]] == named
    for arguments in ((), ("--all", "--run-id", "another")):
        assert realwork("gc", *arguments, cwd=tmp_path).returncode == 0
        assert {found["Id"] for found in snapshots_of(run_id)} == there
    assert realwork("gc", "--all", "--run-id", run_id, cwd=tmp_path).stdout.startswith("removed realwork/snapshot:")
    assert snapshots_of(run_id) == []


def test_an_agent_that_kills_its_container_is_tried_twice_and_leaves_nothing(run_id, tmp_path):
    asked = []

    def respond(request):
        turn = sum(message["role"] == "assistant" for message in request["messages"])
        asked.append(turn)
        if turn == 3:
            lose_container(run_id)
        return run("touch done")

    with Endpoint(respond) as endpoint:
        file = run_file(tmp_path, endpoint.base_url, rollout_config={"snapshot_interval": 2})
        result = realwork("run", file, "--run-id", run_id, cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    first, second = rows(tmp_path / "out" / run_id)
    assert {first["error_type"], second["error_type"]} == {"SandboxLost"}
    assert (first["n_steps"], second["n_steps"], second["fork_step"]) == (3, 3, 2)
    assert asked == [0, 1, 2, 3, 2, 3]
    assert snapshots_of(run_id) == []

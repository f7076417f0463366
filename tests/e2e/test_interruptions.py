"""What is left when a run is cut off: finished rows, and no container."""

import contextlib
import json
import os
import signal
import socket
import threading
import time
import uuid

import pytest

from realwork.sandbox import labels
from realwork.sandbox.engine import connect
from tests.e2e.command import environment, own_containers, realwork, rows, run_file, running, wait_until
from tests.endpoint import DONE, Endpoint, Request, run


def quick_or_slow(request: Request):
    """The environment `quick` ends at once, `slow` runs one long command after the other."""
    turn = sum(message["role"] == "assistant" for message in request["messages"])
    if request["messages"][1]["content"] == "slow":
        return run("sleep 60")
    return run("touch done") if turn == 0 else DONE


@pytest.fixture
def cut_run(docker_image, tmp_path):
    """A run file with two rollouts that end and six that do not, a fresh run id, and an endpoint that plays them."""
    with Endpoint(quick_or_slow) as endpoint:
        file = run_file(
            tmp_path,
            endpoint.base_url,
            environments=[environment("quick", prompt="quick"), environment("slow", prompt="slow")],
            rollout_config={"max_parallel_rollouts": 3},
            episode_control_config={"max_episodes": 3},
        )
        yield file, f"cut-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def foreign_container(docker_image):
    """A container of somebody else that looks much like one of ours."""
    client = connect()
    created = client.create_container(
        docker_image, ["tail", "-f", "/dev/null"], name=f"python-{uuid.uuid4().hex[:8]}", working_dir="/workspace"
    )
    client.start(created["Id"])
    yield created["Id"]
    client.remove_container(created["Id"], force=True)
    client.close()


def wait_for_middle(file, run_id):
    """Until every quick rollout has its row and slow ones are in flight."""
    directory = file.parent / "out" / run_id
    wait_until(lambda: len(rows(directory)) == 3 and len(own_containers(run_id)) >= 3, seconds=240, what="middle")
    time.sleep(2)


def press_in_terminal(process):
    os.killpg(process.pid, signal.SIGINT)


def end_as_timeout_does(process):
    process.send_signal(signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)


@pytest.mark.parametrize("stop", [press_in_terminal, end_as_timeout_does])
def test_ctrl_c_ends_within_30_s_with_finished_rows_kept_and_no_container_left(cut_run, stop):
    file, run_id = cut_run
    with running("run", file, "--run-id", run_id, cwd=file.parent) as process:
        wait_for_middle(file, run_id)
        began = time.monotonic()
        stop(process)
        said, _ = process.communicate(timeout=40)
    assert process.returncode == 130, said
    assert time.monotonic() - began < 30
    assert "Traceback" not in said
    assert own_containers(run_id) == []
    found = rows(file.parent / "out" / run_id)
    assert [row["success"] for row in found if row["environment_id"] == "quick"] == [True] * 3
    cut = [row for row in found if row["environment_id"] == "slow"]
    assert {(row["status"], row["reward"], row["reward_valid"]) for row in cut} == {("cancelled", None, False)}


@pytest.mark.usefixtures("on_cluster")
def test_ctrl_c_in_a_long_init_ends_within_30_s_with_one_row_and_no_container(fresh_name, tmp_path):
    name = fresh_name
    file = run_file(
        tmp_path,
        environments=[environment(name, init_commands=["echo building; sleep 300"], init_network="none")],
        episode_control_config={"max_episodes": 4},
    )
    with running("run", file, "--run-id", name, cwd=tmp_path) as process:
        wait_until(lambda: own_containers(name) != [], seconds=180, what="the build begins")
        time.sleep(1)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=40)
    assert process.returncode == 130, said
    assert time.monotonic() - began < 30
    assert "Traceback" not in said
    assert own_containers(name) == []
    assert [(row["status"], row["reward"]) for row in rows(tmp_path / "out" / name)] == [("cancelled", None)]


@pytest.mark.usefixtures("on_cluster")
def test_an_actor_that_is_killed_while_it_prepares_is_replaced(fresh_name, tmp_path):
    name = fresh_name
    environments = [
        environment(name, init_commands=[f"echo {name}; sleep 5; touch done"], init_network="none", max_retries=1)
    ]
    (tmp_path / "script.json").write_text("[]")
    file = run_file(tmp_path, environments=environments, episode_control_config={"max_episodes": 2})
    with running(
        "run", file, "--run-id", name, "--llm-model", f"scripted:{tmp_path}/script.json", cwd=tmp_path
    ) as process:
        wait_until(lambda: own_containers(name) != [], seconds=180, what="the build begins")
        client = connect()
        (building,) = client.containers(all=True, filters={"label": f"{labels.RUN}={name}"})
        client.close()
        time.sleep(1)
        os.kill(json.loads(building["Labels"][labels.OWNER])["pid"], signal.SIGKILL)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    found = rows(tmp_path / "out" / name)
    assert sorted((row["sample_index"], row["attempt"], row["success"]) for row in found) == [
        (0, 0, None),
        (0, 1, True),
        (1, 0, True),
    ]
    assert own_containers(name) == []


def test_gc_does_not_touch_a_run_that_goes_on_and_a_second_ctrl_c_ends_it_at_once(cut_run):
    file, run_id = cut_run
    with running("run", file, "--run-id", run_id, cwd=file.parent) as process:
        wait_for_middle(file, run_id)
        before = own_containers(run_id)
        assert realwork("gc", cwd=file.parent).returncode == 0
        assert set(own_containers(run_id)) == set(before)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=15)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert realwork("gc", cwd=file.parent).returncode == 0
    assert own_containers(run_id) == []


@pytest.mark.usefixtures("on_cluster")
def test_after_kill_9_of_the_driver_gc_leaves_nothing_of_ours_and_nothing_else_is_touched(cut_run, foreign_container):
    file, run_id = cut_run
    with running("run", file, "--run-id", run_id, cwd=file.parent) as process:
        wait_for_middle(file, run_id)
        process.kill()
        process.wait()
    swept = realwork("gc", cwd=file.parent)
    assert (swept.returncode, own_containers(run_id)) == (0, []), swept.stdout + swept.stderr
    client = connect()
    assert client.inspect_container(foreign_container)["State"]["Running"]
    client.close()
    found = rows(file.parent / "out" / run_id)
    assert [row["success"] for row in found if row["reward_valid"]] == [True] * 3


@pytest.mark.usefixtures("on_cluster")
def test_a_run_that_was_cut_off_is_taken_up_and_plays_only_what_is_missing(docker_image, tmp_path):
    slow = [True]

    def respond(request):
        turn = sum(message["role"] == "assistant" for message in request["messages"])
        if request["messages"][1]["content"] == "slow" and slow[0]:
            return run("sleep 60")
        return run("touch done") if turn == 0 else DONE

    with Endpoint(respond) as endpoint:
        file = run_file(
            tmp_path,
            endpoint.base_url,
            environments=[environment("quick", prompt="quick"), environment("slow", prompt="slow")],
        )
        with running("run", file, "--run-id", "again", cwd=tmp_path) as process:
            wait_until(lambda: len(rows(tmp_path / "out" / "again")) == 1, seconds=240, what="the quick row")
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=40)
        slow[0] = False
        asked = len(endpoint.requests)
        result = realwork("run", file, "--run-id", "again", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert {request["messages"][1]["content"] for request in endpoint.requests[asked:]} == {"slow"}
    graded = [
        (row["environment_id"], row["success"]) for row in rows(tmp_path / "out" / "again") if row["reward_valid"]
    ]
    assert sorted(graded) == [("quick", True), ("slow", True)]


@pytest.mark.usefixtures("on_cluster")
def test_a_killed_actor_costs_one_attempt_and_leaves_no_container(docker_image, tmp_path):
    killed: list[int] = []

    def respond(request):
        turn = sum(message["role"] == "assistant" for message in request["messages"])
        if not killed and turn == 2:
            return run("sleep 60")
        return run("touch done") if turn < 2 else DONE

    with Endpoint(respond) as endpoint:
        file = run_file(tmp_path, endpoint.base_url, rollout_config={"save_trajectory_interval": 1})
        with running("run", file, "--run-id", "killed", cwd=tmp_path) as process:
            wait_until(lambda: len(endpoint.requests) == 3, seconds=240, what="the third request")
            time.sleep(3)
            killed.append(owner_of("killed"))
            os.kill(killed[0], signal.SIGKILL)
            said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    first, second = rows(tmp_path / "out" / "killed")
    assert (first["status"], first["failure_cause"], first["reward"], first["attempt"]) == ("failed", "node", None, 0)
    assert first["n_steps"] == 2
    assert (second["success"], second["reward"], second["attempt"]) == (True, 1.0, 1)
    assert own_containers("killed") == []


def owner_of(run_id):
    """The process that holds the run's only container."""
    client = connect()
    (container,) = client.containers(filters={"label": f"{labels.RUN}={run_id}"})
    client.close()
    return json.loads(container["Labels"][labels.OWNER])["pid"]


@pytest.mark.usefixtures("on_cluster")
def test_ctrl_c_while_actors_start_leaves_rows_that_say_cancelled(cut_run):
    file, run_id = cut_run
    with running("run", file, "--run-id", run_id, cwd=file.parent) as process:
        for line in process.stdout:
            if "Trajectories go to" in line:
                break
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=40)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert {row["status"] for row in rows(file.parent / "out" / run_id)} <= {"cancelled"}, "or none had begun"
    assert own_containers(run_id) == []


def test_an_engine_that_is_lost_when_the_run_has_begun_is_no_reward(docker_image, tmp_path):
    with Endpoint(quick_or_slow) as endpoint, EngineProxy(tmp_path / "engine.sock") as engine:
        file = run_file(tmp_path, endpoint.base_url, environments=[environment("e", max_retries=1)])
        with running("run", file, "--run-id", "lost", cwd=tmp_path, DOCKER_HOST=engine.url) as process:
            for line in process.stdout:
                if "Trajectories go to" in line:
                    break
            engine.close()
            said, _ = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    found = [(row["attempt"], row["failure_cause"], row["reward"]) for row in rows(tmp_path / "out" / "lost")]
    assert found == [(0, "sandbox", None), (1, "sandbox", None)], said


class EngineProxy:
    """A socket that leads to the engine until it is closed: an engine that a test may lose."""

    def __init__(self, path):
        self.url = f"unix://{path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._path = path
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        self._path.unlink(missing_ok=True)
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=relay, args=(client,), daemon=True).start()


def relay(client):
    """Carry bytes both ways between `client` and the engine until both have ended, then close both."""
    with client, socket.socket(socket.AF_UNIX) as engine:
        engine.connect("/var/run/docker.sock")
        back = threading.Thread(target=pump, args=(engine, client), daemon=True)
        back.start()
        pump(client, engine)
        back.join()


def pump(source, target):
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)

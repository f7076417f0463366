"""I15: the key is nowhere but in the processes that ask with it, and where the user put it."""

import os
import signal
import time
import uuid
from pathlib import Path

import pytest

from tests.e2e.command import environment, realwork, run_file, running, wait_until
from tests.endpoint import DONE, Endpoint, error, reply
from tests.invariants.canary import containers_with, holds, logs_with, processes_with, rows_with


def given(place, folder, key):
    """The part of the run file, the flags and the variables by which a key gets to the run from `place`."""
    match place:
        case "variable":
            return {"api_key": "${MY_KEY}"}, [], {"MY_KEY": key}
        case "file":
            (folder / "secret").mkdir()
            (folder / "secret" / "key").write_text(key)
            return {"api_key": f"file:{folder}/secret/key"}, [], {}
        case "flag":
            return {}, ["--llm-api-key", key], {}
    return {"api_key": key}, [], {}


def ray_children(pid):
    """Descendants of the driver `pid`: the processes of its local Ray."""
    children: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        children.setdefault(parent, []).append(int(process.name))
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found += children.get(one, [])
        waiting += children.get(one, [])
    return found


def test_a_key_in_a_variable_is_nowhere_else(docker_image, tmp_path):
    play_and_search(tmp_path, "variable")


@pytest.mark.usefixtures("on_cluster")
@pytest.mark.parametrize("place", ["file", "flag", "literal"])
def test_a_key_is_nowhere_but_where_the_user_put_it(docker_image, tmp_path, place):
    play_and_search(tmp_path, place)


def play_and_search(tmp_path, place):
    """Play a rollout that works and one whose key is refused, and search for the key everywhere else."""
    key, run_id = f"sk-canary-{uuid.uuid4()}", f"i15-{uuid.uuid4().hex[:6]}"
    asked, seen, began = [], {}, time.time()

    def respond(request):
        asked.append(request)
        task = request["messages"][1]["content"]
        if len(asked) == 1:
            seen["command lines"] = processes_with(key, "cmdline")
            seen["environments"] = processes_with(key, "environ")
            seen["containers"] = containers_with(key, run_id)
            return reply(
                None, ("execute_command", {"command": "env; cat /proc/*/environ; touch done; echo sk-planted"})
            )
        if task == "refused":
            return error(401, f"the key {key} is not known")
        return DONE

    llm, flags, variables = given(place, tmp_path, key)
    (tmp_path / "run").mkdir()
    with Endpoint(respond) as endpoint:
        environments = [environment("works", prompt="works"), environment("refused", prompt="refused", max_retries=0)]
        file = run_file(tmp_path / "run", endpoint.base_url, environments=environments, llm_config=llm)
        with running("run", file, "--run-id", run_id, *flags, cwd=tmp_path / "run", **variables) as process:
            output, _ = process.communicate(timeout=200)
    assert process.returncode == 1, output
    assert all(one == f"Bearer {key}" for one in endpoint.authorizations)
    out = tmp_path / "run" / "out"
    assert rows_with("sk-planted", out), "the search finds what is there"
    assert key not in output
    assert holds(key, out) == []
    assert rows_with(key, out) == []
    assert seen["containers"] == []
    assert seen["command lines"] == []
    if place != "variable":
        assert seen["environments"] == []
    assert logs_with(key, began) == []


def test_a_key_is_nowhere_after_everything_was_killed(docker_image, tmp_path):
    key, run_id = f"sk-canary-{uuid.uuid4()}", f"i15-{uuid.uuid4().hex[:6]}"
    llm, flags, variables = given("flag", tmp_path, key)
    (tmp_path / "run").mkdir()
    asked, began = [], time.time()

    def respond(request):
        asked.append(request)
        return reply(None, ("execute_command", {"command": "sleep 1; echo sk-planted"}))

    with Endpoint(respond) as endpoint:
        file = run_file(
            tmp_path / "run", endpoint.base_url, llm_config=llm, rollout_config={"save_trajectory_interval": 1}
        )
        with running("run", file, "--run-id", run_id, *flags, cwd=tmp_path / "run", **variables) as process:
            wait_until(lambda: len(asked) > 2, seconds=240, what="some steps")
            actors = [one for one in ray_children(process.pid) if b"RolloutActor" in _command_line(one)]
            assert actors
            os.kill(actors[0], signal.SIGKILL)
            before = len(asked)
            wait_until(lambda: len(asked) > before + 1, seconds=240, what="another attempt")
            for one in [process.pid, *ray_children(process.pid)]:
                _kill(one)
    realwork("gc", cwd=tmp_path)
    assert holds(key, tmp_path / "run" / "out") == []
    assert rows_with(key, tmp_path / "run" / "out") == []
    assert logs_with(key, began) == []


def _command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return

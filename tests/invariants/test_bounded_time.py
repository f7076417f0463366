"""Every episode ends at most 30 s after its deadline, whatever model, container and engine do (I8); nothing is dropped
while the store stands still, and nothing piles up (I10)."""

import asyncio
import os
import signal
import socket
import threading
import time
import uuid
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from docker.errors import APIError

from realwork.backends import open_backends
from realwork.config import RunConfig
from realwork.model.scripted import ScriptedCall, ScriptedReply
from realwork.plugins.hooks import NoHooks
from realwork.record import RolloutSettings
from realwork.rollout import run_rollout
from realwork.sandbox import labels
from realwork.types import RolloutSpec
from tests.e2e.command import environment, rows, run_file, running
from tests.endpoint import DONE, Endpoint, by_turn, run
from tests.sandbox.owners import descendants, wait_until

DEADLINE_S = 5.0
STANDSTILL_S = 10.0
OVERRUN_S = 30.0
SLEEP = (ScriptedReply(tool_calls=(ScriptedCall(name="execute_command", arguments={"command": "sleep 60"}),)),)


@contextmanager
def slow_endpoint(pause_s):
    """An endpoint that takes every request and sends one byte of an answer every `pause_s` seconds, null for none."""
    ended = threading.Event()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def drip(connection):
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n")
                while not ended.wait(pause_s):
                    connection.sendall(b" ")

        def accept():
            with suppress(OSError), ExitStack() as held:
                while True:
                    connection = held.enter_context(listener.accept()[0])
                    if pause_s is not None:
                        threading.Thread(target=drip, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def played(engine, monkeypatch, *, script=SLEEP, base_url="http://127.0.0.1:9/v1", meanwhile=None):
    """A rollout of 5 s on a private engine and how long it took; `meanwhile` is called once its agent is at work."""
    run_id = f"time-{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    environment = {"id": "e", "docker_image": "realwork/base:bookworm", "prompt": "p", "unit_tests": ["true"]}
    document = {
        "environments": [environment],
        "rollout_config": {},
        "template_prompt": "t",
        "timeout_config": {"global_timeout": DEADLINE_S, "command_timeout": 60, "test_timeout": 5},
        "sandbox_config": {"memory_mib": 256},
        "llm_config": {"model": "m", "base_url": base_url, "timeout": 60},
    }
    config = RunConfig.model_validate(document)
    settings = RolloutSettings(config=config, script=script)
    spec = RolloutSpec(run_id=run_id, environment_id="e", sample_index=0, seed=7)

    def name():
        found = engine.containers(f"{labels.RUN}={run_id}")
        return found[0] if found else None

    def is_at_work():
        if script is None:
            return name()
        with engine.client() as client, suppress(APIError):  # there is none yet, or it does not run yet
            return any(process[-1].endswith("sleep 60") for process in client.top(name())["Processes"])

    async def main():
        async with open_backends(settings) as backends:
            playing = asyncio.create_task(run_rollout(spec, settings, backends, NoHooks()))
            await asyncio.to_thread(wait_until, name, 60, "the container")
            await asyncio.to_thread(wait_until, is_at_work, 60, "the agent's command")
            began = time.monotonic() - 1
            if meanwhile is not None:
                await asyncio.to_thread(meanwhile, await asyncio.to_thread(name))
            trajectory = await playing
            return trajectory, time.monotonic() - began

    trajectory, took_s = asyncio.run(main())
    return trajectory, took_s, run_id


@pytest.fixture
def engine(private_engine):
    yield private_engine
    private_engine.thaw()


@pytest.mark.parametrize("pause_s", [None, 1.0], ids=["black hole", "drip"])
def test_an_endpoint_that_never_comes_to_an_end_cannot_hold_an_episode(engine, monkeypatch, pause_s):
    with slow_endpoint(pause_s) as base_url:
        trajectory, took_s, run_id = played(engine, monkeypatch, script=None, base_url=base_url)
    assert took_s < DEADLINE_S + OVERRUN_S
    assert (trajectory.failure_cause, trajectory.reward) == ("model", None)
    assert engine.containers(f"{labels.RUN}={run_id}") == []


def test_a_paused_container_cannot_hold_an_episode(engine, monkeypatch):
    def pause(name):
        with engine.client() as client:
            client.pause(name)

    trajectory, took_s, run_id = played(engine, monkeypatch, meanwhile=pause)
    assert took_s < DEADLINE_S + OVERRUN_S
    assert (trajectory.failure_cause, trajectory.reward) == ("sandbox", None)
    assert engine.containers(f"{labels.RUN}={run_id}") == []


def test_an_engine_that_stands_still_for_a_while_cannot_hold_an_episode(engine, monkeypatch):
    def freeze(_):
        engine.freeze()
        threading.Timer(20, engine.thaw).start()

    trajectory, took_s, run_id = played(engine, monkeypatch, meanwhile=freeze)
    assert took_s < DEADLINE_S + OVERRUN_S
    assert trajectory.status in ("truncated", "failed")
    wait_until(lambda: engine.containers(f"{labels.RUN}={run_id}") == [], 30, "the end of the container")


def test_an_engine_that_stands_still_for_ever_cannot_hold_an_episode(engine, monkeypatch):
    trajectory, took_s, run_id = played(engine, monkeypatch, meanwhile=lambda _: engine.freeze())
    engine.thaw()
    assert took_s < DEADLINE_S + OVERRUN_S
    assert (trajectory.failure_cause, trajectory.reward) == ("sandbox", None)
    wait_until(lambda: engine.containers(f"{labels.RUN}={run_id}") == [], 30, "the end of the container")


def test_a_store_that_stands_still_holds_the_row_and_not_the_container(engine, tmp_path):
    run_id, own = "stopped-store", f"{labels.RUN}=stopped-store"
    with Endpoint(by_turn(run("sleep 3; touch done"), DONE)) as endpoint:
        file = run_file(tmp_path, endpoint.base_url, environments=[environment("e")])
        with running("run", file, "--run-id", run_id, cwd=tmp_path, DOCKER_HOST=engine.url) as process:
            wait_until(lambda: engine.containers(own), 120, "the container")
            wait_until(lambda: any(map(is_store, descendants(process.pid))), 60, "the store")
            (store,) = filter(is_store, descendants(process.pid))
            os.kill(store, signal.SIGSTOP)
            wait_until(lambda: not engine.containers(own), 60, "the end of the container")
            time.sleep(2)
            assert process.poll() is None
            assert rows(tmp_path / "out" / run_id) == []
            os.kill(store, signal.SIGCONT)
            said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert [(row["success"], row["attempt"]) for row in rows(tmp_path / "out" / run_id)] == [(True, 0)]


@pytest.mark.usefixtures("on_cluster")
def test_while_a_store_stands_still_each_slot_waits_with_its_row_and_nothing_is_lost(tmp_path):
    with Endpoint(by_turn(run("touch done"), DONE)) as endpoint:
        file = run_file(
            tmp_path,
            endpoint.base_url,
            rollout_config={"max_parallel_rollouts": 3},
            episode_control_config={"max_episodes": 12, "safety_limit": 12},
        )
        begun = lambda: sum(len(request["messages"]) == 2 for request in endpoint.requests)  # noqa: E731
        with running("run", file, "--run-id", "still", "--sandbox", "local", cwd=tmp_path) as process:
            wait_until(lambda: begun() >= 4, 120, "the fourth rollout")
            (store,) = [pid for pid in processes() if is_store_of(pid, tmp_path)]
            os.kill(store, signal.SIGSTOP)
            at_stop = begun()
            time.sleep(STANDSTILL_S)
            meanwhile = begun()
            assert process.poll() is None
            os.kill(store, signal.SIGCONT)
            said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert meanwhile <= at_stop + 3
    assert meanwhile < 12
    found = rows(tmp_path / "out" / "still")
    assert sorted(row["sample_index"] for row in found) == list(range(12))
    assert {(row["success"], row["attempt"]) for row in found} == {(True, 0)}


def processes():
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def is_store_of(pid, folder):
    """Whether a process is the store of a run whose output is in `folder`."""
    if not is_store(pid):
        return False
    with suppress(OSError):
        return any(str(folder) in str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir())
    return False


def is_store(pid):
    try:
        return b"ray::StoreActor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return False

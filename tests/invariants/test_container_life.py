"""What dies takes its containers with it (I4), and nothing else (I6).

`REALWORK_KILLED_RUN=actors,driver,raylet,all` kills each of them in a run of its own; the default is what a run of all
tests has time for.
"""

import json
import os
import signal
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest

from realwork.sandbox import labels
from tests.e2e.command import environment, realwork, run_file, running
from tests.endpoint import Endpoint, run
from tests.sandbox.helpers import make_spec
from tests.sandbox.owners import GONE_S, descendants, owner, reapers, wait_until

KILLED = os.environ.get("REALWORK_KILLED_RUN", "driver,all").split(",")


@pytest.fixture
def engine(private_engine):
    return private_engine


@pytest.fixture
def foreign(private_engine):
    """The name of a container of somebody else that looks much like one of ours."""
    name = f"python-{uuid.uuid4().hex[:8]}"
    with private_engine.client() as client:
        host = client.create_host_config(network_mode="none")
        client.create_container(
            "realwork/base:bookworm", ["tail", "-f", "/dev/null"], name=name, host_config=host, working_dir="/workspace"
        )
        client.start(name)
        yield name
        assert client.inspect_container(name)["State"]["Running"]
        client.remove_container(name, force=True)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def named(pids, word):
    return [pid for pid in pids if word in Path(f"/proc/{pid}/comm").read_text()]


def owners_of(engine, run_id):
    with engine.client() as client:
        found = client.containers(all=True, filters={"label": f"{labels.RUN}={run_id}"})
    return {json.loads(one["Labels"][labels.OWNER])["pid"] for one in found}


def kill(engine, process, run_id, what):
    """SIGKILL to the actors, the driver, Ray's node process, or all that the run consists of and its reaper."""
    everything = descendants(process.pid)
    pids = {
        "actors": owners_of(engine, run_id),
        "driver": [process.pid],
        "raylet": named(everything, "raylet"),
        "all": [*reapers(engine), *everything],
    }[what]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@contextmanager
def long_run(engine, folder):
    """The process and the id of a run on `engine` with two containers, which goes on for long."""
    run_id = f"life-{uuid.uuid4().hex[:8]}"
    with Endpoint(lambda _: run("sleep 600")) as endpoint:
        file = run_file(
            folder,
            endpoint.base_url,
            environments=[environment("e", max_retries=0)],
            episode_control_config={"max_episodes": 2},
        )
        with running("run", file, "--run-id", run_id, cwd=folder, DOCKER_HOST=engine.url) as process:
            wait_until(lambda: len(engine.containers(f"{labels.RUN}={run_id}")) == 2, 120, "two containers")
            yield process, run_id


@pytest.fixture(scope="module")
def bystander(private_engine, tmp_path_factory):
    """The id of a run that goes on beside all others."""
    with long_run(private_engine, tmp_path_factory.mktemp("bystander")) as (_, run_id):
        yield run_id


@pytest.mark.parametrize("what", KILLED)
def test_what_is_killed_leaves_no_container_and_another_run_goes_on(engine, bystander, foreign, tmp_path, what):
    beside = f"{labels.RUN}={bystander}"
    before = engine.containers(beside)
    with long_run(engine, tmp_path) as (process, run_id):
        own = f"{labels.RUN}={run_id}"
        dying = engine.containers(own)
        wait_until(lambda: len(reapers(engine)) == 1, 10, "a reaper")
        owners = owners_of(engine, run_id)
        kill(engine, process, run_id, what)
        wait_until(lambda: not any(map(is_alive, owners)), 90, "the end of the owners, which Ray sees to")
        wait_until(lambda: not set(engine.containers(own)) & set(dying), GONE_S, "the end of the containers")
    assert realwork("gc", cwd=Path("/"), DOCKER_HOST=engine.url).returncode == 0
    assert engine.containers(beside) == before
    assert engine.containers(own) == []


def test_gc_leaves_what_lives(engine, foreign):
    spec = make_spec()
    with owner(engine, spec):
        said = realwork("gc", cwd=Path("/"), DOCKER_HOST=engine.url)
        assert said.stdout.startswith("0 removed")
        assert {spec.name, foreign} <= set(engine.containers())

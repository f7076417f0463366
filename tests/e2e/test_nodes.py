"""A run on a cluster whose nodes come and go: every planned rollout has its row, and nothing is left behind."""

import itertools
import json
import re
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from realwork.sandbox import labels
from realwork.sandbox.snapshots import SNAPSHOT
from tests.e2e.cluster import TOKEN, ray_head
from tests.e2e.command import environment, plain, realwork, rows, run_file, running, wait_until
from tests.e2e.several_nodes import NO_ENGINE, several_nodes
from tests.endpoint import DONE, Endpoint, Request, run
from tests.private_engine import PrivateEngine
from tests.sandbox.images import busybox_image, temporary_image

ROOM = 3
NODE_MIB = ROOM * (64 + 200) + 50
EPISODES = 12
HELD_BACK = 12
NAMES = ("built", "bare")
FAKE_MACHINES = {
    "cluster_name": "fake",
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "head_node_type": "ray.head.default",
    "max_workers": 1,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 1,
    "auth": {},
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
    **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands")},
    **{name: [] for name in ("setup_commands", "head_setup_commands", "worker_setup_commands")},
    **{name: [] for name in ("head_start_ray_commands", "worker_start_ray_commands")},
}
"""What Ray's own autoscaler is given; its nodes would be processes of this machine, but have no memory to reserve."""


@pytest.fixture(scope="module")
def engines(docker_image, tmp_path_factory):
    """Two engines with one small image."""
    with temporary_image(busybox_image) as image:
        both = [PrivateEngine(tmp_path_factory.mktemp(name)) for name in ("first", "second")]
        try:
            for engine in both:
                engine.start()
                engine.load(image)
            yield image, both
        finally:
            for engine in both:
                engine.end()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    with several_nodes(tmp_path_factory.mktemp("nodes")) as found:
        yield found


class Model:
    """Plays rollouts of three short commands, the first of which tells when its image was built.

    Attributes:
        goes_on: until it is set, no more than `HELD_BACK` rollouts come to their end.
    """

    def __init__(self):
        self.goes_on = threading.Event()
        self._ended = itertools.count()

    def __call__(self, request: Request):
        turn = sum(message["role"] == "assistant" for message in request["messages"])
        if turn == 3 and next(self._ended) >= HELD_BACK:
            self.goes_on.wait(200)
        return [run("cat /made; touch done; sleep 0.5"), run("sleep 0.5"), run("sleep 0.5"), DONE][turn]


def the_file(
    folder: Path, image: str, base_url: str, *, names: Sequence[str] = NAMES, episodes: int = EPISODES
) -> Path:
    init = ["cat /proc/sys/kernel/random/uuid > /made"]
    environments = {
        "built": environment("built", docker_image=image, init_commands=init, init_network="none"),
        "bare": environment("bare", docker_image=image),
    }
    return run_file(
        folder,
        base_url,
        environments=[environments[name] for name in names],
        rollout_config={"max_parallel_rollouts": 2 * ROOM, "snapshot_interval": 100},
        episode_control_config={"max_episodes": episodes},
        llm_config={"timeout": 240},
        sandbox_config={"memory_mib": 64, "cpus": 0.5},
        grading_config={"mode": "same"},
    )


def begun(directory: Path) -> list[tuple[str, str]]:
    """Each attempt of a run that has ended, and the node on which it began."""
    with sqlite3.connect(f"file:{directory}/ledger.sqlite?mode=ro", uri=True) as ledger:
        return ledger.execute("SELECT trajectory_id, node_id FROM attempts WHERE node_id IS NOT NULL").fetchall()


def test_nodes_and_engines_come_and_go_and_every_rollout_has_its_grade(engines, nodes, tmp_path):
    image, (first, second) = engines
    nodes.join("north", first.url, memory_mib=NODE_MIB)
    nodes.join("south", second.url, memory_mib=NODE_MIB)
    run_id = f"nodes-{time.time_ns()}"
    directory = tmp_path / "out" / run_id
    model = Model()
    with Endpoint(model) as endpoint:
        file = the_file(tmp_path, image, endpoint.base_url)
        command = ("run", file, "--run-id", run_id, "--address", nodes.address)
        variables = TOKEN | {"DOCKER_HOST": NO_ENGINE}
        with running(*command, cwd=tmp_path, **variables) as process:
            wait_until(lambda: len(rows(directory)) >= 4, seconds=120, what="four rows")
            nodes.kill("south")
            wait_until(lambda: len(rows(directory)) >= 8, seconds=120, what="more rows, without a node")
            first.kill()
            time.sleep(2)
            first.start()
            nodes.join("east", second.url, memory_mib=NODE_MIB)
            said = "".join(itertools.takewhile(lambda line: "node east: " not in line, process.stdout))
            model.goes_on.set()
            rest, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said + rest
    told = plain(said)
    assert "plays no rollouts: " in told, "the head has no engine"
    assert f"node north: {ROOM} rollouts fit" in told
    assert "node south is gone" in told
    found = rows(directory)
    graded = sorted((row["environment_id"], row["sample_index"]) for row in found if row["reward"] is not None)
    assert graded == sorted((name, sample) for name in NAMES for sample in range(EPISODES))
    came_late, had_its_engine_killed, lost = causes(directory)
    assert (came_late, lost) == (set(), {"node"})
    assert had_its_engine_killed <= {"sandbox", "grading"}
    made = [
        row["steps"][0]["tool_results"][0]["output"]
        for row in found
        if row["environment_id"] == "built" and row["steps"]
    ]
    assert len(set(made)) == 1, "the image was built once, and handed to the other nodes"
    assert_nothing_left(run_id, first, second)


def test_a_node_that_hangs_is_given_up_and_what_it_goes_on_with_writes_no_second_row(engines, nodes, tmp_path):
    image, (first, second) = engines
    run_id = f"hanging-{time.time_ns()}"
    directory = tmp_path / "out" / run_id
    goes_on = threading.Event()

    def answer(request: Request):
        turn = sum(message["role"] == "assistant" for message in request["messages"])
        if turn == 1:
            goes_on.wait(200)
        return [run("touch done"), DONE][turn]

    def given_up():
        return [row for row in rows(directory) if row["failure_cause"] == "node"]

    with Endpoint(answer) as endpoint:
        file = the_file(tmp_path, image, endpoint.base_url, names=("bare",), episodes=2 * ROOM)
        command = ("run", file, "--run-id", run_id, "--address", nodes.address)
        with running(*command, cwd=tmp_path, **TOKEN | {"DOCKER_HOST": NO_ENGINE}) as process:
            wait_until(lambda: len(endpoint.requests) == 4 * ROOM, seconds=120, what="all rollouts in flight")
            with nodes.hanging("east"):
                wait_until(
                    lambda: len(given_up()) == ROOM, seconds=120, what="the rows of those on the node that hangs"
                )
                goes_on.set()
                said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "node east is gone" in plain(said)
    found = rows(directory)
    assert sorted(row["sample_index"] for row in found if row["reward"] == 1.0) == [*range(2 * ROOM)]
    assert len(found) == 3 * ROOM, "one row for each attempt"
    assert causes(directory) == [set(), {"node"}]
    assert_nothing_left(run_id, first, second)


def causes(directory: Path) -> list[set[str]]:
    """Of each node on which attempts began, why those failed that did; nodes with few causes come first."""
    ungraded = {row["trajectory_id"]: row["failure_cause"] for row in rows(directory) if row["reward"] is None}
    found = {node_id: set() for _, node_id in begun(directory)}
    for trajectory_id, node_id in begun(directory):
        if trajectory_id in ungraded:
            found[node_id].add(ungraded[trajectory_id])
    return sorted(found.values(), key=lambda each: ("node" in each, len(each)))


def assert_nothing_left(run_id: str, *engines: PrivateEngine) -> None:
    of_run = f"{labels.RUN}={run_id}"
    for engine in engines:
        wait_until(lambda of=engine: not of.containers(of_run), seconds=60, what="no container left")
        assert not engine.images(of_run, SNAPSHOT), "no snapshot left"


def test_what_no_node_can_play_is_refused_at_once(engines, nodes, tmp_path):
    image, _ = engines
    file = the_file(tmp_path, image, "http://127.0.0.1:9/v1")
    file.write_text(file.read_text().replace('"memory_mib": 64', '"memory_mib": 99999'))
    refused = realwork("run", file, "--address", nodes.address, cwd=tmp_path, DOCKER_HOST=NO_ENGINE, **TOKEN)
    assert refused.returncode == 2
    assert "one rollout needs 100199 MiB of memory" in plain(refused.stderr)
    assert "Traceback" not in refused.stderr


@pytest.fixture
def short():
    """A folder with a short name, as Ray makes sockets in it."""
    made = Path(tempfile.mkdtemp(prefix="rw", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_the_autoscaler_is_told_how_many_rollouts_want_a_place_and_when_none_does_any_more(tmp_path, short):
    rollout = 256 + 200
    node_types = {
        "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 1},
    }
    (tmp_path / "scaling.json").write_text(json.dumps(FAKE_MACHINES | {"available_node_types": node_types}))
    options = (f"--autoscaling-config={tmp_path}/scaling.json", f"--memory={rollout << 20}", f"--temp-dir={short}")
    slowly = {"name": "execute_command", "arguments": {"command": "touch done; sleep 4"}}
    (tmp_path / "script.json").write_text(json.dumps([{"tool_calls": [slowly]}]))
    file = run_file(
        tmp_path,
        llm_config={"model": "scripted:script.json"},
        rollout_config={"max_parallel_rollouts": 3},
        episode_control_config={"max_episodes": 4},
    )
    variables = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "0"}
    with ray_head(tmp_path, options=options, **variables) as head:
        command = ("run", file, "--run-id", "wanting", "--sandbox", "local", "--address", head.address)
        played = realwork(*command, cwd=tmp_path, **TOKEN)
        told = short / "session_latest" / "logs" / "monitor.log"
        wait_until(lambda: demands(told)[-1:] == ["(none)"], seconds=20, what="the end of the demand")
    assert played.returncode == 0, played.stderr
    assert "1 rollouts run at once, not 3" in plain(played.stderr)
    assert f"{{'memory': {rollout << 20}}}: 3 from request_resources()" in demands(told)


def demands(log: Path) -> list[str]:
    """What the autoscaler said that it was asked for, each time."""
    return re.findall(r"From request_resources:\n (.*)", log.read_text())

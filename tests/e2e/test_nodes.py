"""A run on a cluster whose nodes come and go: every planned rollout has its row, and nothing is left behind."""

import sqlite3
import time
from pathlib import Path

import pytest

from realwork.sandbox import labels
from tests.e2e.cluster import TOKEN
from tests.e2e.command import environment, plain, realwork, rows, run_file, running, wait_until
from tests.e2e.several_nodes import NO_ENGINE, several_nodes
from tests.endpoint import DONE, Endpoint, Request, run
from tests.private_engine import PrivateEngine
from tests.sandbox.images import busybox_image, temporary_image

ROOM = 3
NODE_MIB = ROOM * (64 + 200) + 50
EPISODES = 12
NAMES = ("built", "bare")


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


def answer(request: Request):
    """A rollout of three short commands, the first of which tells when its image was built."""
    turn = sum(message["role"] == "assistant" for message in request["messages"])
    return [run("cat /made; touch done; sleep 0.7"), run("sleep 0.7"), run("sleep 0.7"), DONE][turn]


def the_file(folder: Path, image: str, base_url: str) -> Path:
    init = ["cat /proc/sys/kernel/random/uuid > /made"]
    environments = [
        environment("built", docker_image=image, init_commands=init, init_network="none"),
        environment("bare", docker_image=image),
    ]
    return run_file(
        folder,
        base_url,
        environments=environments,
        rollout_config={"max_parallel_rollouts": 2 * ROOM, "snapshot_interval": 100},
        episode_control_config={"max_episodes": EPISODES},
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
    with Endpoint(answer) as endpoint:
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
            said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    told = plain(said)
    assert "plays no rollouts: " in told, "the head has no engine"
    assert f"node north: {ROOM} rollouts fit" in told
    assert "node south is gone" in told
    assert f"node east: {ROOM} rollouts fit" in told
    found = rows(directory)
    graded = sorted((row["environment_id"], row["sample_index"]) for row in found if row["reward"] is not None)
    assert graded == sorted((name, sample) for name in NAMES for sample in range(EPISODES))
    assert {row["failure_cause"] for row in found if row["reward"] is None} <= {"node", "sandbox"}
    assert any(row["failure_cause"] == "node" for row in found), "what was in flight on the lost node"
    made = [
        row["steps"][0]["tool_results"][0]["output"]
        for row in found
        if row["environment_id"] == "built" and row["steps"]
    ]
    assert len(set(made)) == 1, "the image was built once, and handed to the other nodes"
    assert len({node for _, node in begun(directory)}) == 3, "the node that came late was used"
    for engine in (first, second):
        wait_until(lambda of=engine: not of.containers(f"{labels.RUN}={run_id}"), seconds=30, what="no container left")


def test_what_no_node_can_play_is_refused_at_once(engines, nodes, tmp_path):
    image, _ = engines
    file = the_file(tmp_path, image, "http://127.0.0.1:9/v1")
    file.write_text(file.read_text().replace('"memory_mib": 64', '"memory_mib": 99999'))
    refused = realwork("run", file, "--address", nodes.address, cwd=tmp_path, DOCKER_HOST=NO_ENGINE, **TOKEN)
    assert refused.returncode == 2
    assert "one rollout needs 100199 MiB of memory" in plain(refused.stderr)
    assert "Traceback" not in refused.stderr

"""What an actor was told to be on the disk is there, unchanged, whatever was killed (I2); a run can always go on (I5).

`REALWORK_KILLED=store,driver,raylet,gcs,head,all` kills each of them in a run of its own; the default is what a run of
all tests has time for.
"""

import json
import os
import signal
import subprocess
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

import realwork as package
from realwork.faultpoints import hash_of
from tests.e2e.cluster import joined, ray_head
from tests.e2e.command import environment, realwork, rows, run_file, running, wait_until
from tests.invariants.reader import Reader
from tests.sandbox.owners import descendants

KILLED = os.environ.get("REALWORK_KILLED", "all").split(",")
ROLLOUTS = 60
BEFORE = 12
REPLIES = [{"tool_calls": [{"name": "execute_command", "arguments": {"command": "touch done"}}]}]


def command_of(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def processes(what, driver, head):
    """The processes of the run on this machine that `what` names."""
    everything = {pid: command_of(pid) for root in (driver, head) if root for pid in descendants(root)}
    words = {"store": "ray::StoreActor", "raylet": "/raylet/raylet", "gcs": "/gcs_server"}
    if what in words:
        return [pid for pid, command in everything.items() if words[what] in command]
    if what == "head":
        return descendants(head)
    return [driver] if what == "driver" else [driver, *everything]


def acknowledged(log):
    return dict(line.split() for line in log.read_text().splitlines()) if log.exists() else {}


def stored(directory):
    return {each.spec.trajectory_id: hash_of(each) for each in package.trajectories(directory)}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", KILLED)
def test_every_row_that_was_acknowledged_is_there_after_a_kill(tmp_path, what):
    (tmp_path / "script.json").write_text(json.dumps(REPLIES))
    file = run_file(
        tmp_path,
        environments=[environment(name, max_retries=5) for name in "ab"],
        llm_config={"model": "scripted:script.json"},
        episode_control_config={"max_episodes": ROLLOUTS // 2, "safety_limit": ROLLOUTS},
        rollout_config={"max_parallel_rollouts": 4, "store_shards": 2},
    )
    log, directory = tmp_path / "acks", tmp_path / "out" / "r"
    arguments = ("run", file, "--run-id", "r", "--sandbox", "local")
    noting = {"REALWORK_ACK_LOG": str(log)}
    with ExitStack() as opened:
        head = None
        if what == "head":
            cluster = opened.enter_context(ray_head(tmp_path, **noting))
            opened.enter_context(joined(cluster.address))
            head = cluster.pid
        reader = opened.enter_context(Reader(directory))
        process = opened.enter_context(running(*arguments, cwd=tmp_path, **noting))
        wait_until(lambda: len(acknowledged(log)) >= BEFORE, seconds=120, what="rows that are acknowledged")
        dying = processes(what, process.pid, head)
        assert dying
        for pid in dying:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert len(acknowledged(log)) < ROLLOUTS, "it was over before anything died"
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=60)
    told = acknowledged(log)
    wait_until(lambda: told.items() <= stored(directory).items(), seconds=90, what="the end of the store, and its rows")
    assert (reader.problems, reader.counts) == ([], sorted(reader.counts))
    parts = {path: path.read_bytes() for path in directory.glob("trajectories/part-*.parquet")}
    again = realwork(*arguments, cwd=tmp_path, **noting)
    assert again.returncode == 0, again.stderr
    assert "Traceback" not in again.stderr
    assert {path: path.read_bytes() for path in parts} == parts
    assert told.items() <= stored(directory).items()
    graded = Counter((row["environment_id"], row["sample_index"]) for row in rows(directory) if row["reward_valid"])
    assert graded == Counter((name, sample) for name in "ab" for sample in range(ROLLOUTS // 2))

"""Processes that die at named points leave one graded row for each planned rollout, and parts that can be read (I1-I3).

`REALWORK_CRASH_SEEDS=20 REALWORK_CRASH_ROLLOUTS=40` plays so many runs of so many rollouts; the default is what a run
of all tests has time for.
"""

import json
import os
import signal
import sqlite3
from collections import Counter
from contextlib import closing

import pytest

from realwork.dataset.shards import shards_of
from tests.e2e.command import environment, realwork, rows, run_file
from tests.invariants.reader import Reader

SEEDS = int(os.environ.get("REALWORK_CRASH_SEEDS", "1"))
ROLLOUTS = int(os.environ.get("REALWORK_CRASH_ROLLOUTS", "6"))
ACTOR_POINTS = ("create", "start", "exec", "llm-wait", "grade", "before-commit", "after-ack")
STORE_POINTS = {"after-wal": 0.02, "claimed": 0.2, "renamed": 0.2}
REPLIES = [{"tool_calls": [{"name": "execute_command", "arguments": {"command": "touch done"}}]}]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_dies_at_a_named_point_each_planned_rollout_has_one_graded_row(tmp_path, seed):
    (tmp_path / "script.json").write_text(json.dumps(REPLIES))
    file = run_file(
        tmp_path,
        environments=[environment(name, max_retries=50) for name in "ab"],
        llm_config={"model": "scripted:script.json"},
        episode_control_config={"max_episodes": ROLLOUTS // 2},
        rollout_config={"max_parallel_rollouts": 4, "save_trajectory_interval": 1, "store_shards": 2 - seed % 2},
    )
    armed = dict.fromkeys(ACTOR_POINTS, min(0.07, 1.4 / ROLLOUTS)) | {"after-wal": 0.02, "claimed": 0.2, "renamed": 0.2}
    points = ",".join(f"{name}:{chance}" for name, chance in armed.items())
    directory = tmp_path / "out" / "r"
    with Reader(directory) as reader:
        for number in range(10):
            faults = {"REALWORK_FAULT_POINTS": points, "REALWORK_FAULT_SEED": f"{seed}-{number}"}
            played = realwork("run", file, "--run-id", "r", "--sandbox", "local", cwd=tmp_path, timeout_s=400, **faults)
            assert played.returncode in (0, 1, -signal.SIGKILL), played.stderr  # a driver puts rows into parts, too
            assert "Traceback" not in played.stderr
            if played.returncode == 0:
                break
    found = rows(directory)
    assert (reader.problems, reader.counts) == ([], sorted(reader.counts))
    assert max(Counter(row["trajectory_id"] for row in found).values()) == 1
    graded = Counter((row["environment_id"], row["sample_index"]) for row in found if row["reward_valid"])
    assert graded == Counter((name, sample) for name in "ab" for sample in range(ROLLOUTS // 2))
    lost = [row for row in found if not row["reward_valid"]]
    told = {("failed", "node", None), ("cancelled", "cancelled", None)}  # the latter when the stores died too often
    assert {(row["status"], row["failure_cause"], row["reward"]) for row in lost} <= told
    assert lost, "nothing died"
    shards = shards_of(directory)
    assert len(shards) == 2 - seed % 2
    planned, attempts = [], {}
    for shard in shards:
        with closing(sqlite3.connect(shard.ledger_file(directory))) as ledger:
            planned += [name for (name,) in ledger.execute("SELECT rollout_id FROM plan")]
            attempts |= dict(ledger.execute("SELECT trajectory_id, state FROM attempts"))
    assert sorted(planned) == sorted(f"{name}:{sample}" for name, sample in graded)
    assert attempts == {row["trajectory_id"]: "committed" for row in found}

"""Many rollouts whose actors are killed at random leave every row, and nothing else (I1, I4, I6).

`REALWORK_CHAOS_ROLLOUTS=200` plays as many; the default is what a run of all tests has time for.
"""

import json
import os
import random
import shutil
import signal
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from realwork.sandbox import labels
from tests.e2e.command import environment, realwork, rows, run_file
from tests.sandbox.owners import GONE_S, wait_until

ROLLOUTS = int(os.environ.get("REALWORK_CHAOS_ROLLOUTS", "12"))
KILLS = 12
PAUSE_S = 2.0
RUN = "chaos"
REPLIES = [{"tool_calls": [{"name": "execute_command", "arguments": {"command": "cat made-ready && touch done"}}]}]


@pytest.fixture
def folder():
    """A folder with a short name, as Ray makes sockets in it, for all that a run could write."""
    made = Path(tempfile.mkdtemp(prefix="rw", dir="/tmp"))
    for name in ("tmp", "home", "cwd"):
        (made / name).mkdir()
    yield made
    shutil.rmtree(made)


def images(engine):
    with engine.client() as client:
        return {tag or image["Id"] for image in client.images(all=False) for tag in image["RepoTags"] or [None]}


class Killer:
    """Kills the owner of a container of the run, chosen at random, every now and then."""

    def __init__(self, engine, seed):
        self.killed = 0
        self._engine = engine
        self._dice = random.Random(seed)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._kill)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._ended.set()
        self._thread.join()

    def _kill(self):
        while self.killed < KILLS and not self._ended.wait(self._dice.uniform(0.2, 2 * PAUSE_S)):
            with self._engine.client() as client:
                found = client.containers(filters={"label": f"{labels.RUN}={RUN}"})
            owners = {json.loads(one["Labels"][labels.OWNER])["pid"] for one in found}
            if owners:
                with suppress(ProcessLookupError):
                    os.kill(self._dice.choice(sorted(owners)), signal.SIGKILL)
                    self.killed += 1


@pytest.mark.timeout(600)
def test_rollouts_whose_actors_are_killed_at_random_leave_rows_and_nothing_else(private_engine, folder):
    (folder / "cwd" / "script.json").write_text(json.dumps(REPLIES))
    made = {"init_commands": ["touch made-ready"], "init_network": "none", "max_retries": 20}
    file = run_file(
        folder / "cwd",
        environments=[environment("e", **made), environment("f", grading_config={"mode": "same"}, **made)],
        llm_config={"model": "scripted:script.json"},
        rollout_config={"max_parallel_rollouts": 4, "trajectory_output_path": "out", "snapshot_interval": 1},
        episode_control_config={"max_episodes": ROLLOUTS // 2, "safety_limit": ROLLOUTS},
    )
    before = images(private_engine)
    apart = {"TMPDIR": str(folder / "tmp"), "HOME": str(folder / "home"), "DOCKER_HOST": private_engine.url}
    with Killer(private_engine, seed=7) as killer:
        result = realwork("run", file, "--run-id", RUN, cwd=folder / "cwd", timeout_s=500, **apart)
    assert result.returncode == 0, result.stderr
    assert killer.killed >= min(KILLS, ROLLOUTS // 20)
    found = rows(folder / "cwd" / "out" / RUN)
    graded = [(row["environment_id"], row["sample_index"]) for row in found if row["reward_valid"]]
    assert sorted(graded) == [(name, sample) for name in ("e", "f") for sample in range(ROLLOUTS // 2)]
    assert {row["success"] for row in found if row["reward_valid"]} == {True}
    assert {row["failure_cause"] for row in found if not row["reward_valid"]} <= {"node"}
    own = f"{labels.RUN}={RUN}"
    wait_until(lambda: private_engine.containers(own) == [], GONE_S, "the end of the containers")
    assert {name.partition(":")[0] for name in images(private_engine) - before} <= {"realwork/prepared"}
    assert sorted(path.name for path in (folder / "cwd").iterdir()) == ["out", "run.json", "script.json"]
    assert [path.name for path in (folder / "cwd" / "out").iterdir()] == [RUN]
    assert {path.name for path in (folder / "tmp").iterdir()} <= {"ray"}
    files = {path.relative_to(folder / "home") for path in (folder / "home").rglob("*") if path.is_file()}
    assert files <= {Path(".ray/auth_token")}, "what Ray keeps for its own commands"

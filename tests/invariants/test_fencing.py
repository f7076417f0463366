"""An attempt that was given up and comes back adds, changes and removes nothing of the one in its place (I11)."""

import json
import subprocess
import sys

import pytest

from tests.e2e.command import clean_environment, environment, own_containers, rows, run_file

PLAY = """
import json, os, signal, sys, time
from pathlib import Path

import ray
import realwork
from realwork.distributed.hosts import RayHost
from realwork.distributed.rollout_actor import RolloutActor
from realwork.distributed.store_actor import start_stores
from realwork.errors import RealworkError
from realwork.sandbox import labels
from realwork.sandbox.engine import connect
from realwork.settings import shared_settings
from realwork.types import RolloutSpec

RUN = "fencing"
engine = connect()

def container_of(attempt):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for one in engine.containers(filters={"label": [f"{labels.RUN}={RUN}", f"{labels.ATTEMPT}={attempt}"]}):
            return one
        time.sleep(0.05)
    raise TimeoutError(attempt)

ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
directory = Path("out").absolute() / RUN
directory.mkdir(parents=True)
settings = ray.put(shared_settings(realwork.load_run_file(sys.argv[1])))
stores = start_stores(RayHost(), directory, None, wanted=2, slots=2)
spec = RolloutSpec(run_id=RUN, environment_id="e", sample_index=0)
playing = []
for attempt in range(2):
    actor = ray.remote(RolloutActor).options(num_cpus=0).remote()
    ray.get(actor.setup.remote("r", settings, stores, None, []))
    playing.append(actor.run.remote(spec.model_copy(update={"attempt": attempt}), 0.0, 1.0))
    found = container_of(attempt)
    if attempt == 0:
        time.sleep(4)  # so that it comes to its end before the newer one does
        zombie = json.loads(found["Labels"][labels.OWNER])["pid"]
        os.kill(zombie, signal.SIGSTOP)
newer = found["Id"]
os.kill(zombie, signal.SIGCONT)
try:
    ray.get(playing[0], timeout=60)
    first = "a row"
except RealworkError as error:
    first = str(error)
is_there = [one["State"] for one in engine.containers(all=True) if one["Id"] == newer]
second = ray.get(playing[1], timeout=60)
ray.get(stores.of(spec).close.remote(), timeout=60)
print(json.dumps({"first": first, "newer container": is_there, "second": second.success}))
stores.kill(RayHost())
"""


@pytest.mark.usefixtures("on_cluster")
def test_an_attempt_that_comes_back_is_fenced_and_the_newer_one_untouched(docker_image, tmp_path):
    call = {"name": "execute_command", "arguments": {"command": "sleep 8; touch done"}}
    (tmp_path / "script.json").write_text(json.dumps([{"tool_calls": [call]}]))
    file = run_file(tmp_path, environments=[environment("e")], llm_config={"model": "scripted:script.json"})
    ended = subprocess.run(
        [sys.executable, "-c", PLAY, str(file)],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout.splitlines()[-1])
    assert "another attempt has taken the place of this one" in said["first"]
    assert (said["newer container"], said["second"]) == (["running"], True)
    assert [(row["attempt"], row["success"]) for row in rows(tmp_path / "out" / "fencing")] == [(1, True)]
    assert own_containers("fencing") == []

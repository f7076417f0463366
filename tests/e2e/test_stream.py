"""A trainer in the same process gets trajectories as they are committed."""

import json
import subprocess
import sys
import zlib

import pytest

from realwork.dataset.read import trajectories
from tests.endpoint import DONE, Endpoint, reply
from tests.endpoint import run as runs

from .command import clean_environment, environment, own_containers, run_file

SCRIPT = """
import asyncio, json, os, sys
import realwork

def load():
    return realwork.load_run_file(sys.argv[1])

def told(trajectory):
    return [trajectory.spec.trajectory_id, trajectory.reward, len(trajectory.messages)]

async def main():
    options = {"run_id": "streamed", "address": os.environ["RAY_ADDRESS"]}
    first = realwork.stream(load(), **options)
    singly = [told(await anext(first)) for _ in range(2)]
    await first.aclose()
    on_disk = [told(each) for each in realwork.trajectories("out/streamed")]
    groups = [[told(each) for each in group] async for group in realwork.stream(load(), groups=True, **options)]
    again = [group async for group in realwork.stream(load(), groups=True, **options)]
    return {"singly": singly, "on disk": on_disk, "groups": groups, "again": again}

def stopped_early():
    (task,) = realwork.rollout_source(sys.argv[1], run_id="stopped").get_read_tasks(1)
    tables = task.read_fn()
    first = next(tables).column("trajectory_id").to_pylist()
    tables.close()
    return first, [told(each) for each in realwork.trajectories("out/stopped")]

said = asyncio.run(main())
first, left = stopped_early()
print(json.dumps(said | {"stopped early": first, "left": left}))
"""


RAY_DATA = """
import json, sys
import ray, ray.data
import realwork

ray.init(runtime_env={"env_vars": {"PYTHONPATH": ""}}, log_to_driver=False, logging_level="ERROR")
source = realwork.rollout_source(sys.argv[1], overrides={"sandbox_config": {"kind": "local"}}, run_id="data")
rows = ray.data.read_datasource(source).map(lambda row: {"id": row["trajectory_id"], "n": len(row["messages"])})
print(json.dumps(rows.take_all()))
"""


GROUPS = """
import asyncio, json, os, sys
import realwork
from realwork.opening import SilentObserver

class Told(SilentObserver):
    notes = []

    def note(self, message):
        self.notes.append(message)

async def main():
    run_file = realwork.load_run_file(sys.argv[1], overrides={"sandbox_config": {"kind": "local"}})
    options = {"run_id": "grouped", "address": os.environ["RAY_ADDRESS"], "observer": Told()}
    played = realwork.stream(run_file, groups=True, **options)
    return [[each.spec.sample_index for each in group] async for group in played]

found = asyncio.run(main())
print(json.dumps([found, [note for note in Told.notes if note.startswith("group ")]]))
"""


def play(folder, script, file):
    """What `script` prints as JSON."""
    command = [sys.executable, "-c", script, str(file)]
    ended = subprocess.run(
        command, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.usefixtures("on_cluster")
def test_ray_data_reads_a_run_as_it_is_played(tmp_path):
    replies = [{"tool_calls": [{"name": "execute_command", "arguments": {"command": "touch done"}}]}]
    (tmp_path / "script.json").write_text(json.dumps(replies))
    file = run_file(tmp_path, llm_config={"model": "scripted:script.json"}, episode_control_config={"max_episodes": 3})
    said = play(tmp_path, RAY_DATA, file)
    assert sorted(row["id"] for row in said) == [f"data:e:{sample}:0" for sample in range(3)]
    assert {row["n"] > 3 for row in said} == {True}


@pytest.mark.usefixtures("on_cluster")
def test_a_stream_hands_out_what_is_graded_and_whole_groups_also_of_a_run_that_goes_on(docker_image, tmp_path):
    replies = [{"tool_calls": [{"name": "execute_command", "arguments": {"command": "touch done"}}]}]
    (tmp_path / "script.json").write_text(json.dumps(replies))
    file = run_file(
        tmp_path,
        environments=[environment("a"), environment("b", unit_tests=["false"])],
        llm_config={"model": "scripted:script.json"},
        episode_control_config={"max_episodes": 3},
        rollout_config={"max_parallel_rollouts": 1},
    )
    said = play(tmp_path, SCRIPT, file)
    assert [name for name, *_ in said["singly"]] == ["streamed:a:0:0", "streamed:a:1:0"]
    assert {(reward, messages > 3) for _, reward, messages in said["singly"]} == {(1.0, True)}
    assert [each for each in said["on disk"] if each[1] is not None][:2] == said["singly"]
    found = [[(name.rpartition(":")[0], reward) for name, reward, _ in group] for group in said["groups"]]
    assert found == [[(f"streamed:a:{n}", 1.0) for n in range(3)], [(f"streamed:b:{n}", 0.0) for n in range(3)]]
    assert said["again"] == []
    graded = [each.spec.rollout_id for each in trajectories(tmp_path / "out" / "streamed") if each.graded]
    assert sorted(graded) == [f"{name}:{n}" for name in "ab" for n in range(3)]
    assert said["stopped early"] == ["stopped:a:0:0"]
    assert said["left"][0][:2] == ["stopped:a:0:0", 1.0]
    assert sum(reward is not None for _, reward, _ in said["left"]) < 6
    assert own_containers("streamed") == own_containers("stopped") == []


@pytest.mark.usefixtures("on_cluster")
def test_a_group_is_handed_out_if_it_is_whole_or_was_ended_early_and_one_that_lacks_grades_is_told_of(tmp_path):
    seeds = {zlib.crc32(f"e:{sample}".encode()) & 0x7FFFFFFF: sample for sample in range(8)}

    def respond(request):
        sample = seeds[request["seed"]]
        if sample == 3:
            return reply("No.", finish_reason="content_filter")
        return DONE if request["messages"][-1]["role"] == "tool" else runs("touch done" if sample == 4 else "true")

    with Endpoint(respond) as endpoint:
        file = run_file(
            tmp_path,
            endpoint.base_url,
            episode_control_config={"max_episodes": 8, "group_size": 2, "min_success_rate": 0.25},
            rollout_config={"max_parallel_rollouts": 1},
        )
        groups, notes = play(tmp_path, GROUPS, file)
    assert groups == [[0, 1], [4]]
    assert notes == ["group grouped:e:1 is not handed out: 1 of its 2 rollouts have no grade"]

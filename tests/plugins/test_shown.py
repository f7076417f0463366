"""What `show`, `stats` and `run` tell of what plugins did."""

import json

import pytest

from realwork.analysis.stats import stats
from realwork.dataset.run_directory import note_plugins
from realwork.types import NamedReward
from tests.analysis.records import make_run
from tests.dataset.records import graded, rich
from tests.e2e.command import plain, realwork, run_file
from tests.plugins.modules import filtering, managing, watching

SAID = {
    "guard": {"calls": 1, "seconds": 0.1},
    "judge": {"replaced_reward": 0.5, "calls": 1},
    "easier": {"changed": {"unit_tests": ["true"]}, "calls": 1},
    "tagger": {"analysis": {"loops": 2}, "suggestions": ["stop looping"], "calls": 1},
    "broken": {"error": "post_action: boom", "errors": 2, "calls": 5},
    "trajectory_analyzer": {"analysis": {"actions": {}}, "suggestions": [], "calls": 1},
}
REWARDS = tuple(
    NamedReward(name=name, value=value)
    for name, value in {"tests": 0.5, "directness": 0.7, "judge.reward": 0.33}.items()
)


def shown(folder, trajectory):
    make_run(folder, [trajectory])
    return realwork("show", folder, trajectory.spec.trajectory_id, cwd=folder).stdout


def test_a_trajectory_is_shown_with_what_plugins_did_to_it(tmp_path):
    text = shown(tmp_path, rich(reward=0.33, rewards=REWARDS, plugin_data=json.dumps(SAID)))
    lines = text.splitlines()
    call = next(at for at, line in enumerate(lines) if line.startswith("-> execute_command"))
    assert lines[call + 1].strip() == "rewritten by guard"
    assert text.count("rewritten by guard") == 1
    section = text.partition(" plugins ")[2].partition(" outcome ")[0].splitlines()
    assert [line for line in section if ":" in line] == [
        "rewards: tests 0.50, directness 0.70, judge.reward 0.33",
        "judge: replaced the reward of the tests, 0.50",
        'easier: changed unit_tests: ["true"]',
        'tagger: found {"loops": 2}',
        "tagger: suggests: stop looping",
        "broken: failed 2 of 5 times: post_action: boom",
    ]
    assert "reward 0.33 (by judge; the tests' own 0.50): 1 of 2 test commands passed" in text


def test_plugins_that_only_looked_on_are_not_shown(tmp_path):
    quiet = {name: SAID[name] for name in ("guard", "trajectory_analyzer")}
    text = shown(tmp_path, graded(plugin_data=json.dumps(quiet)))
    assert " plugins " not in text
    assert "reward 1.00: 2 of 2 test commands passed" in text


def test_the_numbers_tell_of_replaced_rewards_and_of_what_managers_decided(tmp_path):
    make_run(tmp_path, [rich(plugin_data=json.dumps(SAID))])
    decided = {"stopped": {"e": 2}, "strategy": {"e": {"max_retries": 0}, "f": {"timeout_multiplier": 1.5}}}
    note_plugins(tmp_path, {"mgr": {"calls": 2, "seconds": 0.5} | decided})
    found = stats(tmp_path).total.plugins
    assert (found["judge"].replaced_rewards, found["tagger"].replaced_rewards) == (1, 0)
    assert (found["mgr"].stopped, found["mgr"].strategy) == (decided["stopped"], decided["strategy"])
    said = realwork("stats", tmp_path, cwd=tmp_path).stdout
    assert "Plugin judge: 1 calls, mean 0.0 ms, the reward of 1 is its own" in said
    managed = "stopped e after 2 episodes, set max_retries 0 for e, set timeout_multiplier 1.5 for f"
    assert f"Plugin mgr: 2 calls, mean 250.0 ms, {managed}" in said


@pytest.fixture
def managed(tmp_path):
    """A run file with four rollouts, of which a manager that prints wants two."""
    stops = managing("mgr", "print('asked'); return context.get('episode_count') < 2", "return {}")
    (tmp_path / "mgr.py").write_text(stops)
    reply = {"tool_calls": [{"name": "execute_command", "arguments": {"command": "touch done"}}]}
    (tmp_path / "script.json").write_text(json.dumps([reply]))
    control, parallel = {"max_episodes": 4}, {"max_parallel_rollouts": 1}
    llm = {"model": "scripted:script.json"}
    return run_file(tmp_path, llm_config=llm, plugins=["mgr"], episode_control_config=control, rollout_config=parallel)


def test_a_run_tells_what_it_left_out_and_what_plugins_print_is_no_result(managed, tmp_path):
    played = realwork("run", managed, "--no-ray", "--run-id", "r", "--sandbox", "local", cwd=tmp_path)
    assert played.returncode == 0, played.stderr
    assert "2 rollouts were made unnecessary by episode control or a plugin" in plain(played.stderr)
    assert "mgr stopped e after 2 episodes" in plain(played.stderr)
    assert "stopped e after 2 episodes" in realwork("stats", tmp_path / "out" / "r", cwd=tmp_path).stdout
    assert "asked" in played.stderr
    assert "asked" not in played.stdout


def test_a_dry_run_loads_the_plugins(managed, tmp_path):
    (tmp_path / "mgr.py").write_text("print('loaded')\ndef nothing(:\n")
    refused = realwork("run", managed, "--dry-run", cwd=tmp_path)
    assert refused.returncode == 2
    assert "plugin mgr: cannot be imported" in plain(refused.stderr)
    (tmp_path / "mgr.py").write_text("print('loaded')\n" + filtering("mgr", "return actions"))
    planned = realwork("run", managed, "--dry-run", cwd=tmp_path)
    assert planned.returncode == 0
    assert "loaded" in planned.stderr
    assert "loaded" not in planned.stdout


def test_the_command_refuses_a_plugin_that_no_other_process_can_run(managed, tmp_path):
    locked = "\n    def __init__(self):\n        import threading\n        self.lock = threading.Lock()\n"
    (tmp_path / "mgr.py").write_text(filtering("mgr", "return actions") + locked)
    refused = realwork("plugins", managed, cwd=tmp_path)
    assert refused.returncode == 2
    assert "plugin mgr: mgr: cannot be pickled, so no other process can run it" in plain(refused.stderr)


def test_the_command_names_plugins_that_are_never_called(managed, tmp_path):
    off = filtering("off", "return actions").replace("Plugin(", "Off(") + "\n    enabled = False\n"
    (tmp_path / "mgr.py").write_text(off + watching("idle", "", "return context").replace("['']", "[]"))
    listed = realwork("plugins", managed, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    (row,) = [line for line in listed.stdout.splitlines() if "off" in line.split()]
    assert "disabled" in row
    assert "idle is never called: its supported_hooks name no hook" in plain(listed.stdout)


def test_a_resource_that_no_local_ray_has_is_refused_before_one_is_started_and_once_for_an_entry(managed, tmp_path):
    document = json.loads(managed.read_text())
    document["plugins"] = [{"module": "mgr", "resources": {"licence": 1}}]
    managed.write_text(json.dumps(document))
    two = filtering("one", "return actions").replace("Plugin(", "One(") + filtering("two", "return actions")
    (tmp_path / "mgr.py").write_text(two)
    for command in ("check", "run"):
        refused = realwork(command, managed, "--sandbox", "local", cwd=tmp_path)
        assert refused.returncode == 2
        said = "plugin one, two: no node has what a call of it reserves: CPU 0.25, licence 1"
        assert refused.stderr.count("no node has") == 1
        assert said in plain(refused.stderr)
        assert "Starting a local Ray" not in refused.stderr

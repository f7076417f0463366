"""Plugins through the command line: whatever they do, the run ends complete and the rows say what happened."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.command import (
    REPOSITORY,
    clean_environment,
    environment,
    own_containers,
    plain,
    realwork,
    rows,
    run_file,
)
from tests.plugins.modules import EXAMPLE, evaluating, filtering, managing, modifying, module, watching

SCRIPTED = {"model": "scripted:script.json"}
REPLIES = [
    {"tool_calls": [{"name": "execute_command", "arguments": {"command": f"touch step-{n} done"}}]} for n in range(3)
]
HOMESICK = """
    def __init__(self):
        self.home = os.getpid()

    def __setstate__(self, state):
        if state["home"] != os.getpid():
            raise RuntimeError("not at home")
        self.__dict__ = state
"""
CANCELLED = "import asyncio; task = asyncio.create_task(asyncio.sleep(9)); task.cancel(); await task"
ODD = {
    "raises": evaluating("raises", "raise ValueError('boom')"),
    "cancelled": evaluating("cancelled", CANCELLED),
    "moody": managing("moody", CANCELLED, "return {}"),
    "hangs": watching("hangs", "post_action", "time.sleep(300)"),
    "exits": filtering("exits", "os._exit(3)"),
    "killed": modifying("killed", "import signal; os.kill(os.getpid(), signal.SIGKILL)"),
    "nonsense": filtering("nonsense", "return 'nonsense'"),
    "locked": watching(
        "locked", "post_episode", "import threading; context.set('own', threading.Lock()); return context"
    ),
    "homesick": watching("homesick", "post_episode", "return context") + HOMESICK,
    "slow": filtering("slow", "time.sleep(0.3); return actions"),
    "unsure": managing("unsure", "return 'no'", "return {}"),
}


def with_plugins(folder, modules, **sections):
    (folder / "script.json").write_text(json.dumps(REPLIES))
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return run_file(folder, llm_config=SCRIPTED, **sections)


@pytest.mark.usefixtures("on_cluster")
def test_a_run_ends_complete_whatever_its_plugins_do_and_the_rows_say_it(tmp_path):
    (tmp_path / "my_custom_plugins").mkdir()
    (tmp_path / "my_custom_plugins" / "analyzer.py").write_text(EXAMPLE)
    entries = [{"module": name, "timeout": 3.0 if name == "hangs" else 30.0, "num_cpus": 0} for name in ODD]
    file = with_plugins(
        tmp_path,
        ODD,
        plugins=["my_custom_plugins.analyzer", *entries],
        episode_control_config={"max_episodes": 2},
    )
    played = realwork("run", file, "--run-id", "odd", "--sandbox", "local", cwd=tmp_path)
    assert played.returncode == 0, played.stderr
    assert "Traceback" not in played.stderr
    found = rows(tmp_path / "out" / "odd")
    assert [(row["success"], row["reward"], row["attempt"]) for row in found] == [(True, 1.0, 0)] * 2
    for row in found:
        said = json.loads(row["plugin_data"])
        assert said["custom_analyzer"]["analysis"] == {"custom_metric": 42}
        assert said["custom_analyzer"]["suggestions"] == ["Custom suggestion based on analysis"]
        errors = {name: each["error"] for name, each in said.items() if "error" in each}
        assert errors.keys() == {"raises", "cancelled", "hangs", "exits", "killed", "nonsense", "locked", "homesick"}
        assert "cannot pickle" in errors["locked"]
        assert "it cannot be unpickled: not at home" in errors["homesick"]
        assert "boom (ValueError, raises.py, line" in errors["raises"]
        assert errors["cancelled"] == "post_test: its code failed (CancelledError)"
        assert errors["hangs"] == "post_action: gave no answer for 3 s"
        assert "its process ended before it answered" in errors["exits"]
        assert "its process ended before it answered" in errors["killed"]
        assert "must answer with a list of actions, not str" in errors["nonsense"]
        assert said["slow"]["calls"] == 4
        assert said["slow"]["seconds"] >= 4 * 0.3
    assert "plugin moody: post_episode: its code failed (CancelledError)" in plain(played.stderr)
    assert "plugin unsure: post_episode: should_continue_rollout must answer true or false" in plain(played.stderr)
    total = json.loads(realwork("stats", "--json", tmp_path / "out" / "odd", cwd=tmp_path).stdout)["total"]["plugins"]
    assert (total["slow"]["calls"], total["slow"]["errors"], total["slow"]["p95_s"] >= 0.3) == (8, 0, True)
    assert (total["exits"]["calls"], total["exits"]["errors"]) == (6, 6), "not asked again after three lost processes"
    assert (total["unsure"]["calls"], total["unsure"]["errors"]) == (2, 2)


def test_a_plugin_that_cannot_be_used_is_named_before_anything_runs(tmp_path):
    locked = filtering("locked", "return actions")
    locked += "\n    def __init__(self):\n        import threading\n        self.lock = threading.Lock()\n"
    file = with_plugins(tmp_path, {"locked": locked, "broken": "import nowhere\n"}, plugins=["locked"])
    refused = realwork("run", file, "--sandbox", "local", cwd=tmp_path)
    assert refused.returncode == 2
    assert "plugin locked: locked: cannot be pickled, so no other process can run it" in plain(refused.stderr)
    file = run_file(tmp_path, llm_config=SCRIPTED, plugins=["broken"])
    refused = realwork("plugins", file, cwd=tmp_path)
    assert refused.returncode == 2
    assert "plugin broken: cannot be imported: No module named 'nowhere'" in plain(refused.stderr)
    assert not (tmp_path / "out").exists()


def test_the_command_lists_what_a_file_loads_and_lets_each_plugin_check_itself(tmp_path):
    listed = realwork("plugins", REPOSITORY / "examples" / "plugins" / "run.json", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    for words in ("pip_rewriter", "environment_modifier", "safety_filter", "post_episode"):
        assert words in listed.stdout
    assert 'settings of pip_rewriter: {"config": {"arguments": ["--no-index"]}}' in listed.stdout
    ready = filtering("ready", "return actions")
    checks = {
        "well": ready + "\n    async def self_check(self):\n        assert os.environ['WELL'] == 'yes'\n",
        "ill": ready.replace("ready", "ill") + "\n    async def self_check(self):\n        return 'no judge answers'\n",
        "stuck": ready.replace("ready", "stuck") + "\n    async def self_check(self):\n        time.sleep(60)\n",
    }
    entries = [{"module": name, "timeout": 2.0, "environment_variables": {"WELL": "yes"}} for name in checks]
    checked = realwork("plugins", with_plugins(tmp_path, checks, plugins=entries), cwd=tmp_path)
    assert checked.returncode == 1
    problems = "error: ill: no judge answers error: stuck: self_check gave no answer for 2 s"
    assert plain(checked.stderr).strip() == problems


@pytest.mark.usefixtures("on_cluster")
def test_a_plugin_gets_what_its_entry_reserves_and_sets(tmp_path):
    code = "return {'cpus': float(os.environ['TOLD']), 'key': float(os.environ.get('LEFT', 0))}"
    judge = {"module": "judge", "num_cpus": 0.5, "environment_variables": {"TOLD": "${TOLD_VALUE}"}}
    file = with_plugins(tmp_path, {"judge": evaluating("judge", code)}, plugins=[judge])
    played = realwork("run", file, "--run-id", "r", "--sandbox", "local", cwd=tmp_path, TOLD_VALUE="0.25")
    assert played.returncode == 0, played.stderr
    (row,) = rows(tmp_path / "out" / "r")
    assert {each["name"]: each["value"] for each in row["rewards"]} == {"tests": 1.0, "cpus": 0.25, "key": 0.0}
    wanting = judge | {"resources": {"node:10.9.9.9": 0.001}}
    file = with_plugins(tmp_path, {}, plugins=[wanting])
    refused = realwork("run", file, "--run-id", "s", "--sandbox", "local", cwd=tmp_path, TOLD_VALUE="1")
    assert refused.returncode == 2
    assert "plugin judge: no node has what a call of it reserves: CPU 0.5, node:10.9.9.9 0.001" in plain(refused.stderr)


LOCAL = """
import json, os, sys
import realwork

run_file = realwork.load_run_file(sys.argv[1], overrides={"sandbox_config": {"kind": sys.argv[3]}})
result = realwork.run(run_file, run_id=sys.argv[2], local=True)
import ray
print(json.dumps({"exit": result.exit_code, "ray": ray.is_initialized(), "pid": os.getpid()}))
"""


def play_locally(file, run_id, *, sandbox="docker"):
    ended = subprocess.run(
        [sys.executable, "-c", LOCAL, str(file), run_id, sandbox],
        cwd=file.parent,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1]), ended.stderr


def test_a_local_run_plays_everything_in_this_process_without_ray(docker_image, tmp_path):
    here = evaluating("here", "return {'pid': os.getpid()}")
    odd = {name: ODD[name] for name in ("raises", "cancelled", "moody", "hangs", "slow")}
    file = with_plugins(
        tmp_path,
        odd | {"here": here},
        plugins=["here", *({"module": name, "timeout": 2.0} for name in odd)],
        environments=[environment("a"), environment("b", init_commands=["touch ready"], init_network="none")],
        episode_control_config={"max_episodes": 2},
    )
    said, _ = play_locally(file, "local")
    assert (said["exit"], said["ray"]) == (0, False)
    found = rows(tmp_path / "out" / "local")
    assert [(row["environment_id"], row["success"]) for row in found] == [("a", True)] * 2 + [("b", True)] * 2
    for row in found:
        assert {each["name"]: each["value"] for each in row["rewards"]}["pid"] == said["pid"]
        plugins = json.loads(row["plugin_data"])
        assert {name for name, each in plugins.items() if "error" in each} == {"raises", "cancelled", "hangs"}
    assert own_containers("local") == []
    again, told = play_locally(file, "local")
    assert (again["exit"], "nothing is missing" in told) == (0, True)


def test_a_critical_plugin_that_fails_fails_its_rollout_and_takes_the_grade(tmp_path):
    plugins = [{"module": "raises", "critical": True}]
    file = with_plugins(tmp_path, {"raises": ODD["raises"]}, plugins=plugins)
    said, _ = play_locally(file, "critical", sandbox="local")
    assert said["exit"] == 1
    found = rows(tmp_path / "out" / "critical")
    assert {(row["status"], row["failure_cause"], row["reward"]) for row in found} == {("failed", "plugin", None)}
    assert "the critical plugin raises failed" in found[0]["error_message"]


def test_a_modifier_cannot_want_more_than_a_rollout_reserves(tmp_path):
    more = "return environment_config.model_copy(update={'sandbox_config': {'memory_mib': 99999}})"
    longer = "return environment_config.model_copy(update={'timeout_config': {'global_timeout': 99999}})"
    modest = "return environment_config.model_copy(update={'unit_tests': ['test -f step-0']})"
    codes = {"more": more, "longer": longer, "modest": modest}
    file = with_plugins(tmp_path, {name: modifying(name, code) for name, code in codes.items()}, plugins=[*codes])
    assert play_locally(file, "wanting", sandbox="local")[0]["exit"] == 0
    (row,) = rows(tmp_path / "out" / "wanting")
    said = json.loads(row["plugin_data"])
    assert "memory_mib must be at most 256" in said["more"]["error"]
    assert "its times allow an attempt of more than" in said["longer"]["error"]
    assert "unit_tests" in said["modest"]["changed"]
    assert [test["test_command"] for test in row["test_results"]] == ["test -f step-0"]


EPISODE = {"episode_id", "environment_id", "trajectory_id"}
JUDGED = EPISODE | {"episode_result", "trajectory", "test_results"}
KEYS = {
    "pre_rollout": {"environments", "config"},
    "post_rollout": {"environments", "config", "results", "rollout_stats"},
    "pre_episode": EPISODE | {"environment_config"},
    "pre_action": EPISODE | {"actions"},
    "post_action": EPISODE | {"action", "result"},
    "pre_test": EPISODE,
    "post_test": JUDGED,
    "post_episode": JUDGED,
}
HOOKS = [*KEYS]
TELLS_ALL = """
    def _note(self, *said):
        with open("noted.jsonl", "a") as file:
            file.write(__import__("json").dumps(said) + "\\n")

    async def initialize(self):
        self._note("initialize")
        return True

    async def execute(self, hook, context):
        keys = sorted(context.as_dict())
        context.set("own", 1)
        self._note(hook, keys)
        return context

    async def cleanup(self):
        self._note("cleanup")
"""


def test_every_hook_is_called_with_its_keys_and_a_manager_stops_the_run(tmp_path):
    enough = managing("enough", "return context.get('episode_count') < 2", "return {'timeout_multiplier': 2.0}")
    file = with_plugins(
        tmp_path,
        {"tells_all": module("BasePlugin", "tells_all", TELLS_ALL, hooks=HOOKS), "enough": enough},
        plugins=["tells_all", "enough"],
        episode_control_config={"max_episodes": 5},
        rollout_config={"max_parallel_rollouts": 1, "trajectory_output_path": "out"},
    )
    assert play_locally(file, "hooks", sandbox="local")[0]["exit"] == 0
    found = rows(tmp_path / "out" / "hooks")
    factors = [json.loads(row["metadata"]).get("timeout_multiplier") for row in found]
    assert ([row["success"] for row in found], factors) == ([True, True], [None, 2.0])
    noted = [json.loads(line) for line in (tmp_path / "noted.jsonl").read_text().splitlines()]
    called = [said for said in noted if said[0] in HOOKS]
    assert {hook: set(keys) - {"own"} for hook, keys in called} == KEYS
    replies = 2 * (len(REPLIES) + 1)
    expected = dict.fromkeys(HOOKS, 2) | {"pre_rollout": 1, "post_rollout": 1}
    assert Counter(hook for hook, _ in called) == expected | {"pre_action": replies, "post_action": replies}
    assert noted.count(["initialize"]) == noted.count(["cleanup"]) == len(called)


@pytest.mark.usefixtures("on_cluster")
def test_bench_measures_what_plugins_add_to_a_step(tmp_path):
    measured = realwork("bench", "plugins", "--steps", 1, "--json", "-", cwd=tmp_path)
    assert measured.returncode == 0, measured.stderr
    numbers = json.loads(measured.stdout)
    assert list(numbers["filtering_ms"]) == ["0", "1", "5"]
    assert numbers["filtering_ms"]["5"]["median"] > numbers["filtering_ms"]["0"]["median"]
    assert numbers["bare_call_ms"]["median"] > 0


def test_the_example_plays_as_its_readme_says(docker_image, tmp_path):
    folder = tmp_path / "plugins"
    folder.mkdir()
    for path in (REPOSITORY / "examples" / "plugins").iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    said, _ = play_locally(folder / "run.json", "example")
    assert said["exit"] == 0
    found = rows(Path(folder / "trajectories" / "example"))
    seeds = set()
    for row in found:
        plugins = json.loads(row["plugin_data"])
        assert plugins["seed_injector"]["changed"] == {"environment_variables": ["TASK_SEED"]}
        (rewritten,) = plugins["pip_rewriter"]["rewritten"]
        assert rewritten["to"]["command"] == "pip install --no-index seed-finder"
        assert plugins["loop_tagger"]["analysis"]["loops"][0]["times"] == 3
        seeds.add(row["seed"])
    assert len(found) == len(seeds) == 2

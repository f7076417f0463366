"""Plugins as Ray tasks, on a real local Ray: whatever they do, the rollout goes on."""

import asyncio
import json
import time

import pytest

import realwork.distributed  # noqa: F401 - sets Ray's switches before it is imported
from realwork.config import EnvironmentConfig
from realwork.distributed.hooks import RayCalls, pack, rollout_hooks
from realwork.errors import InputError
from realwork.plugins.managing import RunPlugins
from realwork.types import CommandAction, RolloutSpec, RolloutSummary
from tests.dataset.records import graded
from tests.plugins.conftest import config
from tests.plugins.modules import EXAMPLE, evaluating, filtering, managing, modifying, watching

SPEC = RolloutSpec(run_id="r", environment_id="calc", sample_index=0)
LS = CommandAction(command="ls")
ENVIRONMENT = EnvironmentConfig(id="calc", docker_image="i", prompt="p", unit_tests=["true"])


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    import logging

    import ray

    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    ray.init(address="local", num_cpus=2, resources={"seat": 1}, **quiet)
    yield
    ray.shutdown()


def play(loaded):
    """An episode with one reply of `ls` and `shutdown now` in the hands of `loaded`."""

    async def played():
        hooks = rollout_hooks(pack(loaded), SPEC, RayCalls())
        environment = await hooks.modify(ENVIRONMENT, lambda changed: None)
        verdicts = await hooks.review([LS, CommandAction(command="shutdown now")])
        trajectory = await hooks.evaluate(graded(passed=1))
        return environment, verdicts, trajectory, json.loads(trajectory.plugin_data)

    return asyncio.run(played())


def test_every_kind_answers_from_a_task(plugins):
    environment, verdicts, trajectory, row = play(
        plugins.load(
            EXAMPLE,
            filtering("shell", "return [CommandAction(command=str(os.getpid())), *actions[1:]]"),
            modifying("longer", "return environment_config.model_copy(update={'prompt': 'q'})"),
            evaluating("judge", "return {'style': 0.5}"),
            watching("watch", "pre_episode", "return context"),
        )
    )
    import os

    assert environment.prompt == "q"
    assert [verdict.decision for verdict in verdicts] == [
        "rewritten by shell",
        "blocked by safety_filter: 'shutdown' is not allowed",
    ]
    assert int(verdicts[0].action.command) != os.getpid()
    assert trajectory.rewards[1].name == "style"
    assert row["custom_analyzer"]["analysis"] == {"custom_metric": 42}
    assert row["trajectory_analyzer"]["analysis"]["actions"] == {}
    assert row["watch"]["calls"] == 1
    assert not [name for name, said in row.items() if "error" in said]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ValueError('boom')", "its code failed: boom (ValueError, plugins_"),
        ("os._exit(1)", "its process ended before it answered"),
        ("sys.exit(1)", "SystemExit"),
        ("import signal; os.kill(os.getpid(), signal.SIGKILL)", "its process ended before it answered"),
        ("import asyncio; raise asyncio.CancelledError", "pre_action: its code failed (CancelledError)"),
        ("raise KeyboardInterrupt", "pre_action: its code failed (KeyboardInterrupt)"),
        ("return 'nonsense'", "must answer with a list of actions, not str"),
        ("raise type('Own', (Exception,), {'__init__': lambda self, a, b: None})(1, 2)", "Own"),
    ],
)
def test_a_plugin_that_fails_is_recorded_and_the_episode_goes_on(plugins, code, said):
    _, verdicts, trajectory, row = play(plugins.users(filtering("odd", code), EXAMPLE))
    assert [verdict.decision for verdict in verdicts] == ["allowed", "allowed"]
    assert said in row["odd"]["error"]
    assert "error" not in row["custom_analyzer"]
    assert trajectory.reward == 0.5


def test_a_plugin_that_hangs_is_cut_with_its_process(plugins, tmp_path):
    code = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(300)"
    _, verdicts, _, row = play(plugins.users(plugins.entry(filtering("slow", code), timeout=6.0)))
    assert verdicts[0].decision == "allowed"
    assert row["slow"]["error"] == "pre_action: gave no answer for 6 s"
    process, end = f"/proc/{(tmp_path / 'pid').read_text()}", time.monotonic() + 15
    while (tmp_path / process).exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not (tmp_path / process).exists()


def test_a_call_that_waits_for_its_process_keeps_its_whole_time(plugins):
    entries = [
        plugins.entry(evaluating(name, f"time.sleep(0.7); return {{'{name}': 1}}"), timeout=1.2, num_cpus=2)
        for name in ("a", "b", "c")
    ]
    _, _, trajectory, row = play(plugins.users(*entries))
    assert [name for name, said in row.items() if "error" in said] == []
    assert {each.name for each in trajectory.rewards} == {"tests", "a", "b.b", "c.c"}


def test_a_process_that_ends_before_its_time_is_up_is_named_as_such(plugins):
    text = filtering("dies", "os._exit(1)") + "\n    idempotent = True\n"
    _, _, _, row = play(plugins.users(plugins.entry(text, timeout=2.0)))
    assert row["dies"]["error"] == "pre_action: its process ended before it answered"


def test_a_plugin_that_cannot_be_pickled_is_named_before_anything_runs(plugins):
    text = filtering("locked", "return actions")
    text += "\n    def __init__(self):\n        import threading\n        self.lock = threading.Lock()\n"
    loaded = plugins.users(text, EXAMPLE)
    with pytest.raises(InputError) as caught:
        pack(loaded)
    (problem,) = caught.value.problems
    assert problem.startswith(f"plugin {loaded[0].entry.module}: locked: cannot be pickled")
    assert "lock" in problem


def test_a_plugin_that_cannot_be_unpickled_is_recorded(plugins):
    (packed,) = pack(plugins.users(filtering("odd", "return actions")))

    async def reviewed():
        hooks = rollout_hooks([packed.model_copy(update={"code": b"no pickle"})], SPEC, RayCalls())
        assert (await hooks.review([LS]))[0].decision == "allowed"
        return json.loads(hooks.annotate(graded()).plugin_data)

    assert "it cannot be unpickled" in asyncio.run(reviewed())["odd"]["error"]


def test_helper_modules_that_no_worker_can_import_travel_along(plugins):
    helper = plugins.write("def command():\n    return 'helped'\n")
    text = f"import {helper}\n" + filtering(
        "helped", f"return [CommandAction(command={helper}.command()), *actions[1:]]"
    )
    _, verdicts, _, row = play(plugins.users(text))
    assert "error" not in row["helped"]
    assert verdicts[0].action.command == "helped"


def test_managers_decide_together_and_one_that_fails_decides_nothing(plugins):
    entries = [
        managing("eager", "return True", "return {'timeout_multiplier': 2.0, 'max_retries': 1}"),
        plugins.entry(
            managing("first", "return context.get('episode_count') < 2", "return {'max_retries': 0}"), priority=1
        ),
        managing("odd", "return 'no'", "return {}"),
    ]
    packed = pack(plugins.users(*entries))
    summary = RolloutSummary(spec=SPEC, status="completed", terminated_reason="completed", success=True, reward=1.0)

    async def decided():
        managers = RunPlugins(packed, config(), RayCalls())
        managers.begin()
        return await managers.after(summary), await managers.after(summary), await managers.end()

    before, after, errors = asyncio.run(decided())
    assert (before.stopped_by, after.stopped_by) == (None, "first")
    assert (after.strategy.timeout_multiplier, after.strategy.max_retries) == (2.0, 0)
    assert "must answer true or false, not 'no'" in errors["odd"]


@pytest.mark.parametrize(("is_idempotent", "calls"), [(True, 2), (False, 1)])
def test_a_call_is_made_once_more_when_its_process_dies_if_the_plugin_says_that_it_may(
    plugins, tmp_path, is_idempotent, calls
):
    text = filtering("dies", f"open({str(tmp_path / 'calls')!r}, 'a').write('x'); os._exit(1)")
    _, _, _, row = play(plugins.users(text + f"\n    idempotent = {is_idempotent}\n"))
    assert (tmp_path / "calls").read_text() == "x" * calls
    assert "its process ended before it answered" in row["dies"]["error"]


def test_a_call_has_what_its_entry_reserves_and_remembers_what_the_last_one_set(plugins):
    text = filtering(
        "tells",
        "import ray; n = context.get('n', 0); context.set('n', n + 1); "
        "has = ray.get_runtime_context().get_assigned_resources(); "
        "return [CommandAction(command=f\"{n} {has['CPU']} {has['seat']}\")]",
    )
    packed = pack(plugins.users(plugins.entry(text, num_cpus=0.5, resources={"seat": 0.25})))

    async def reviewed():
        hooks = rollout_hooks(packed, SPEC, RayCalls())
        return [(await hooks.review([LS]))[0].action.command for _ in range(2)]

    assert asyncio.run(reviewed()) == ["0 0.5 0.25", "1 0.5 0.25"]

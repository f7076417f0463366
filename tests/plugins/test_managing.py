"""The plugins of a run between its rollouts, in this process."""

import asyncio
import time

import pytest

from realwork.errors import PluginError
from realwork.plugins.dispatch import PluginHooks
from realwork.plugins.managing import RunPlugins
from realwork.types import RolloutSpec, RolloutSummary
from tests.dataset.records import graded
from tests.plugins.conftest import config
from tests.plugins.modules import managing, module


def ended(sample, environment_id="calc", **outcome):
    spec = RolloutSpec(run_id="r", environment_id=environment_id, sample_index=sample)
    passed = {"status": "completed", "terminated_reason": "completed", "success": True, "reward": 1.0}
    return RolloutSummary(spec=spec, **passed | outcome)


LOST = {"status": "failed", "terminated_reason": "environment_error", "success": None, "reward": None}


def run_of(plugins, *entries):
    packed, calls = plugins.in_process(*entries)
    return RunPlugins(packed, config(), calls)


def test_managers_are_told_totals_and_the_last_attempts_those_before_a_taking_up_included(plugins):
    stats = {"attempts": 150, "graded": 149, "successful": 148, "failed": 1, "mean_reward": 148 / 149}
    seen = "(context.get('episode_count'), context.get('environment_id'), context.get('rollout_stats'))"
    last = "[each.spec.sample_index for each in context.get('results')] == list(range(50, 150))"
    run = run_of(plugins, managing("full", f"return not ({seen} == (149, 'calc', {stats!r}) and {last})", "return {}"))
    run.take_up(ended(0, **LOST))
    run.take_up(ended(1, success=False, reward=0.0))
    for sample in range(2, 148):
        run.take_up(ended(sample))
    run.take_up(ended(0, "other"))

    async def played():
        return [(await run.after(ended(sample))).stopped_by for sample in (148, 149)], run.data()["full"]

    decided, said = asyncio.run(played())
    assert decided == [None, "full"]
    assert (said["calls"], said.get("error")) == (2, None)


def test_an_environment_that_was_taken_up_is_decided_on_before_its_next_rollout(plugins):
    enough = managing("enough", "return context.get('episode_count') < 2", "return {'timeout_multiplier': 2.0}")
    run = run_of(plugins, enough)
    for sample in range(2):
        run.take_up(ended(sample))
    decision = asyncio.run(run.decide("calc"))
    assert (decision.stopped_by, decision.strategy.timeout_multiplier) == ("enough", 2.0)
    assert asyncio.run(run.decide("other")).stopped_by is None


def test_environments_do_not_wait_for_one_another_and_have_a_memory_each(plugins):
    code = "import asyncio; await asyncio.sleep(0.3); n = context.get('n', 0); context.set('n', n + 1); return n < 1"
    run = run_of(plugins, managing("slow", code, "return {}"))

    async def played():
        began = time.monotonic()
        first = await asyncio.gather(*(run.after(ended(0, name)) for name in "abcd"))
        return time.monotonic() - began, first, await run.after(ended(1, "a"))

    waited, first, again = asyncio.run(played())
    assert waited < 0.9
    assert [each.stopped_by for each in first] == [None] * 4
    assert again.stopped_by == "slow"
    assert run.data()["slow"]["calls"] == 5


def test_a_critical_manager_that_fails_raises(plugins):
    run = run_of(plugins, plugins.entry(managing("odd", "return 'no'", "return {}"), critical=True))
    with pytest.raises(PluginError, match="critical plugin odd failed"):
        asyncio.run(run.after(ended(0)))


def test_the_end_of_a_run_tells_the_totals_and_the_last_attempts(plugins):
    code = """    async def execute(self, hook, context):
        assert context.get('config').template_prompt == 't' and context.get('environments')[0].id == 'calc'
        if hook == 'post_rollout':
            assert (len(context.get('results')), context.get('rollout_stats')['attempts']) == (1000, 1200)
        return context
"""
    run = run_of(plugins, module("BasePlugin", "watch", code, hooks=["pre_rollout", "post_rollout"]))

    async def played():
        run.begin()
        for sample in range(1200):
            await run.after(ended(sample))
        return await run.end()

    assert asyncio.run(played()) == {}
    assert run.data()["watch"]["calls"] == 2


def test_a_manager_is_not_called_at_the_hooks_of_an_episode(plugins):
    text = managing("names", "return True", "return {}").replace("= []", "= ['post_episode']")
    packed, calls = plugins.in_process(text)
    spec = RolloutSpec(run_id="r", environment_id="calc", sample_index=0)
    asyncio.run(PluginHooks(packed, spec, calls).evaluate(graded()))
    assert calls.calls == []

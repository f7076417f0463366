import asyncio
import json
from contextlib import nullcontext

import pytest

from realwork.config import EnvironmentConfig
from realwork.errors import PluginError
from realwork.plugins.dispatch import PluginHooks
from realwork.types import CommandAction, Observation, RolloutSpec
from tests.dataset.records import failed, graded
from tests.plugins.modules import EXAMPLE, evaluating, filtering, modifying, module, watching

SPEC = RolloutSpec(run_id="r", environment_id="calc", sample_index=0)
ENVIRONMENT = EnvironmentConfig(
    id="calc", docker_image="i", prompt="p", unit_tests=["true"], environment_variables={"KEY": "hush"}
)
LS, PWD = CommandAction(command="ls"), CommandAction(command="pwd")


def hooks_of(plugins, *entries):
    packed, calls = plugins.in_process(*entries)
    return PluginHooks(packed, SPEC, calls), calls


def review(plugins, *entries, actions=(LS, PWD)):
    """The verdicts of `entries`, and what they leave in the row."""

    async def reviewed():
        hooks, _ = hooks_of(plugins, *entries)
        return await hooks.review(actions), data(hooks)

    return asyncio.run(reviewed())


def data(hooks):
    return json.loads(hooks.annotate(graded()).plugin_data)


def evaluate(plugins, *entries, trajectory=None):
    async def evaluated():
        hooks, _ = hooks_of(plugins, *entries)
        return await hooks.evaluate(trajectory or graded(passed=1))

    trajectory = asyncio.run(evaluated())
    return trajectory, json.loads(trajectory.plugin_data)


def decisions(verdicts):
    return [verdict.decision for verdict in verdicts]


def test_an_action_that_is_left_out_is_blocked_with_the_reason(plugins):
    text = (
        filtering("strict", "return actions[1:]")
        + "\n    def block_reason(self, action):\n        return 'no ' + action.command\n"
    )
    verdicts, _ = review(plugins, text)
    assert decisions(verdicts) == ["blocked by strict: no ls", "allowed"]
    assert verdicts[0].action.problem == "blocked by strict: no ls"


def test_a_changed_action_runs_changed_and_both_are_recorded(plugins):
    text = filtering("soft", "return [actions[0], actions[1].model_copy(update={'command': 'id'})]")
    verdicts, said = review(plugins, text)
    assert decisions(verdicts) == ["allowed", "rewritten by soft"]
    assert verdicts[1].action.command == "id"
    (change,) = said["soft"]["rewritten"]
    assert (change["step"], change["from"]["command"], change["to"]["command"]) == (0, "pwd", "id")


def test_filters_see_what_those_of_higher_priority_have_left(plugins):
    first = plugins.entry(filtering("first", "return actions[:1]"), priority=5)
    second = filtering("second", "return [CommandAction(command=f'echo {len(actions)}')]")
    verdicts, _ = review(plugins, second, first)
    assert decisions(verdicts) == ["rewritten by second", "blocked by first: not allowed"]
    assert verdicts[0].action.command == "echo 1"


def test_of_two_equal_actions_one_can_be_left_out(plugins):
    verdicts, _ = review(plugins, filtering("once", "return actions[:1]"), actions=(LS, LS))
    assert decisions(verdicts) == ["allowed", "blocked by once: not allowed"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ValueError('boom')", "pre_action: its code failed: boom (ValueError, plugins_"),
        ("return None", "must answer with a list of actions, not None"),
        ("return 42", "not int"),
        ("return ['ls']", "pre_action: it must answer with a list of actions, not with str in it"),
        ("return actions + actions", "not the given ones"),
        ("return [CommandAction(command='x')] * (3 if len(actions) == 2 else 2)", "not the given ones"),
        ("return [CommandAction(command='a\\0b'), actions[1]]", "NUL"),
        ("return [CommandAction(command='\\ud800'), actions[1]]", "valid text"),
        (
            "return [actions[0].model_copy(update={'command': 3}), actions[1]]",
            "command: Input should be a valid string",
        ),
        ("sys.exit(3)", "SystemExit"),
        ("context.set('keep', lambda: 1); return actions", "pickle"),
    ],
)
def test_a_filter_that_fails_or_talks_nonsense_allows_everything_and_is_recorded(plugins, code, said):
    verdicts, row = review(plugins, filtering("odd", code))
    assert decisions(verdicts) == ["allowed", "allowed"]
    assert said in row["odd"]["error"]
    assert row["odd"]["errors"] == 1


def test_a_filter_that_blocks_an_action_and_rewrites_its_neighbour_is_asked_of_each_alone(plugins):
    code = "return [each.model_copy(update={'command': 'id -u'}) for each in actions if each.command != 'pwd']"
    text = filtering("both", code) + "\n    def block_reason(self, action):\n        return 'no pwd'\n"
    id_ = CommandAction(command="id")
    verdicts, said = review(plugins, text, actions=(LS, PWD, id_))
    assert decisions(verdicts) == ["rewritten by both", "blocked by both: no pwd", "rewritten by both"]
    assert "error" not in said["both"]
    assert said["both"]["calls"] == 1


@pytest.mark.parametrize(
    "change",
    ["object.__setattr__(actions[0], 'command', 'id')", "actions[0].__dict__['command'] = 'id'"],
)
def test_an_action_that_a_filter_changes_in_place_is_a_change_like_any_other(plugins, change):
    verdicts, said = review(plugins, filtering("sly", f"{change}; return actions"))
    assert decisions(verdicts) == ["rewritten by sly", "allowed"]
    assert said["sly"]["rewritten"][0]["from"]["command"] == "ls"
    verdicts, said = review(plugins, filtering("sly", f"{change.replace(repr('id'), '3')}; return actions"))
    assert said["sly"]["error"].startswith("pre_action: an action that it answered with is wrong: ")
    assert "\n" not in said["sly"]["error"]


def test_a_critical_plugin_that_fails_raises_with_its_name(plugins):
    with pytest.raises(PluginError, match="critical plugin odd failed: pre_action: its code failed: boom"):
        review(plugins, plugins.entry(filtering("odd", "raise ValueError('boom')"), critical=True))


def test_a_plugin_that_hangs_is_given_up_after_three_times(plugins):
    text = filtering("slow", "import asyncio; await asyncio.sleep(60)")

    async def reviewed():
        hooks, calls = hooks_of(plugins, plugins.entry(text, timeout=0.05))
        for _ in range(5):
            assert decisions(await hooks.review([LS])) == ["allowed"]
        return calls.calls, data(hooks)

    calls, row = asyncio.run(reviewed())
    assert len(calls) == 3
    assert row["slow"]["error"] == "pre_action: gave no answer for 0.05 s"


@pytest.mark.parametrize("critical", [False, True])
def test_a_plugin_that_hung_in_one_rollout_is_not_asked_in_the_next_of_the_same_process(plugins, critical):
    text = filtering("slow", "import asyncio; await asyncio.sleep(60)")
    packed, calls = plugins.in_process(plugins.entry(text, timeout=0.05))

    async def reviewed(count):
        hooks = PluginHooks([each.model_copy(update={"critical": critical}) for each in packed], SPEC, calls)
        for _ in range(count):
            with pytest.raises(PluginError) if critical else nullcontext():
                await hooks.review([LS])
        return data(hooks)["slow"]

    said = [asyncio.run(reviewed(2)) for _ in range(3)]
    assert [row["calls"] for row in said] == [2, 1, 0]
    assert said[1]["error"] == "pre_action: gave no answer for 0.05 s"
    assert said[2]["error"] == "not asked any more: it hung or lost its process 3 times in a row"
    assert said[2]["errors"] == 1


class StartingSlowly:
    """Calls as `calls` does, each after `start_s`, as a process that has to be started."""

    def __init__(self, calls, start_s):
        self.calls, self.start_s, self.losses = calls, start_s, calls.losses

    async def __call__(self, plugin, call, state, limit_s):
        await asyncio.sleep(self.start_s)
        return await self.calls(plugin, call, state, limit_s)


def test_the_start_of_a_process_is_not_of_the_time_of_those_that_answer_nor_of_those_that_watch(plugins):
    quick = {"timeout": 0.05}
    entries = [
        plugins.entry(modifying("m", "return environment_config.model_copy(update={'prompt': 'q'})"), **quick),
        plugins.entry(filtering("f", "return actions[1:]"), **quick),
        plugins.entry(watching("w", "post_action", "return context"), **quick),
    ]

    async def played():
        packed, calls = plugins.in_process(*entries)
        hooks = PluginHooks(packed, SPEC, StartingSlowly(calls, 0.3))
        environment = await hooks.modify(ENVIRONMENT, lambda changed: None)
        verdicts = await hooks.review([LS, PWD])
        hooks.acted(PWD, Observation(call_id="c", tool_name="t", status="ok"))
        await hooks.settle()
        return environment.prompt, decisions(verdicts), data(hooks)

    prompt, decided, row = asyncio.run(played())
    assert (prompt, decided) == ("q", ["blocked by f: not allowed", "allowed"])
    assert [said["calls"] for said in row.values()] == [1, 1, 1]
    assert not [name for name, said in row.items() if "error" in said]


def test_what_a_plugin_sets_in_the_context_comes_back_with_its_next_call(plugins):
    code = "n = context.get('n', 0); context.set('n', n + 1); return [CommandAction(command=str(n))]"

    async def reviewed():
        hooks, _ = hooks_of(plugins, filtering("counts", code))
        return [(await hooks.review([LS]))[0].action.command for _ in range(3)]

    assert asyncio.run(reviewed()) == ["0", "1", "2"]


def test_a_hook_that_nobody_answers_calls_nobody(plugins):
    async def played():
        hooks, calls = hooks_of(plugins, evaluating("judge", "return {}"))
        await hooks.modify(ENVIRONMENT, lambda changed: None)
        await hooks.review([LS])
        hooks.acted(LS, Observation(call_id="c", tool_name="t", status="ok"))
        hooks.testing()
        return calls.calls

    assert asyncio.run(played()) == []


def modify(plugins, *entries):
    async def modified():
        hooks, _ = hooks_of(plugins, *entries)
        return await hooks.modify(ENVIRONMENT, lambda changed: None), data(hooks)

    return asyncio.run(modified())


def test_modifiers_change_the_environment_one_after_the_other_and_the_row_says_how(plugins):
    one = "return environment_config.model_copy(update={'prompt': environment_config.prompt + '1'})"
    changes = "{'environment_variables': {'NEW': 'hush'}, 'prompt': environment_config.prompt + '2'}"
    two = f"return environment_config.model_dump() | {changes}"
    environment, row = modify(plugins, modifying("one", one), modifying("two", two))
    assert (environment.prompt, environment.environment_variables) == ("p12", {"NEW": "hush"})
    assert row["one"]["changed"] == {"prompt": "p1"}
    assert row["two"]["changed"] == {"prompt": "p12", "environment_variables": ["KEY", "NEW"]}
    more = "return environment_config.model_dump() | {'environment_variables': {'KEY': 'hush', 'NEW': 'x'}}"
    assert modify(plugins, modifying("more", more))[1]["more"]["changed"] == {"environment_variables": ["NEW"]}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("return None", "pre_episode: it must answer with the environment, not None"),
        ("return environment_config.model_copy(update={'unit_tests': []})", "unit_tests"),
        ("return environment_config.model_copy(update={'id': 'other'})", "must not change the environment's id"),
        ("return environment_config.model_copy(update={'prompt': '\\ud800'})", "surrogates"),
        ("raise RuntimeError", "RuntimeError"),
    ],
)
def test_a_wrong_environment_is_not_taken(plugins, code, said):
    environment, row = modify(plugins, modifying("odd", code))
    assert environment == ENVIRONMENT
    assert said in row["odd"]["error"]
    assert "hush" not in row["odd"]["error"]


def test_evaluators_add_named_rewards(plugins):
    trajectory, _ = evaluate(plugins, evaluating("judge", "return {'style': 0.25, 'tests': 1}"))
    assert [(each.name, each.value) for each in trajectory.rewards] == [
        ("tests", 0.5),
        ("style", 0.25),
        ("judge.tests", 1.0),
    ]
    assert trajectory.reward == 0.5


@pytest.mark.parametrize("code", ["return {'quality': 1, 'style': 0}", "raise ValueError('boom')"])
def test_a_reward_of_the_second_evaluator_has_its_name_in_front_whatever_the_first_does(plugins, code):
    second = evaluating("second", "return {'quality': 0.5, 'speed': 0.25}")
    trajectory, _ = evaluate(plugins, second, plugins.entry(evaluating("first", code), priority=1))
    own = [] if "boom" in code else ["quality", "style"]
    assert [each.name for each in trajectory.rewards] == ["tests", *own, "second.quality", "second.speed"]


def test_a_replaced_reward_says_so_and_the_first_in_priority_wins(plugins):
    late = evaluating("late", "return {'reward': 0.1}")
    first = plugins.entry(evaluating("first", "return {'reward': -2}"), priority=1)
    trajectory, row = evaluate(plugins, late, first)
    assert (trajectory.reward, trajectory.success) == (-2.0, False)
    assert row["first"]["replaced_reward"] == 0.5
    assert "first had replaced it before" in row["late"]["error"]
    assert [each.name for each in trajectory.rewards] == ["tests", "first.reward", "late.reward"]


@pytest.mark.parametrize(
    "code",
    [
        "return {'reward': float('nan')}",
        "return {'x': float('inf')}",
        "return {'x': '1'}",
        "return {'x': True}",
        "return {'x': None}",
        "return {1: 1.0}",
        "return [1.0]",
        "return None",
    ],
)
def test_a_reward_that_is_no_finite_number_is_not_taken(plugins, code):
    trajectory, row = evaluate(plugins, evaluating("odd", code))
    assert (trajectory.reward, len(trajectory.rewards)) == (0.5, 1)
    assert row["odd"]["error"].startswith("post_test: ")


def test_a_trajectory_without_a_grade_is_analyzed_but_never_judged(plugins):
    trajectory, row = evaluate(plugins, evaluating("judge", "return {'reward': 1.0}"), EXAMPLE, trajectory=failed())
    assert (trajectory.reward, trajectory.rewards) == (None, ())
    assert "judge" not in row
    assert row["custom_analyzer"]["analysis"] == {"custom_metric": 42}
    assert row["custom_analyzer"]["suggestions"] == ["Custom suggestion based on analysis"]


def test_what_cannot_be_written_as_json_is_an_error(plugins):
    _, row = evaluate(plugins, EXAMPLE.replace('{"custom_metric": 42}', "{'x': object()}"))
    assert "type object, which is not JSON" in row["custom_analyzer"]["error"]


@pytest.mark.parametrize(("answer", "found"), [("'loops'", "str"), ("None", "None"), ("['a', 1]", "with int in it")])
def test_suggestions_that_are_no_list_of_texts_are_an_error(plugins, answer, found):
    _, row = evaluate(plugins, EXAMPLE.replace('["Custom suggestion based on analysis"]', answer))
    said = f"post_episode: suggest_improvements must answer with a list of texts, not {found}"
    assert row["custom_analyzer"]["error"] == said


def test_who_only_watches_is_not_waited_for_before_the_episode_has_ended(plugins):
    code = "import asyncio; await asyncio.sleep(0.2); n = context.get('n', 0) + 1; context.set('n', n); return context"

    async def played():
        hooks, calls = hooks_of(plugins, watching("watch", "post_action", code))
        began = asyncio.get_running_loop().time()
        for _ in range(3):
            hooks.acted(LS, Observation(call_id="c", tool_name="t", status="ok"))
            await hooks.review([LS])
        waited = asyncio.get_running_loop().time() - began
        return waited, json.loads((await hooks.evaluate(graded())).plugin_data), calls.calls

    waited, row, calls = asyncio.run(played())
    assert waited < 0.1
    assert calls == [("watch", "post_action")] * 3
    assert row["watch"]["calls"] == 3


def test_watchers_that_never_end_are_cut_and_recorded(plugins):
    code = "import asyncio; await asyncio.sleep(60)"

    async def played():
        hooks, _ = hooks_of(plugins, plugins.entry(watching("watch", "post_action", code), timeout=0.1))
        for _ in range(20):
            hooks.acted(LS, Observation(call_id="c", tool_name="t", status="ok"))
        async with asyncio.timeout(2):
            return json.loads((await hooks.evaluate(graded())).plugin_data)

    assert asyncio.run(played())["watch"]["error"].startswith("post_action: ")


WATCHES_AND_FILTERS = """    async def filter_actions(self, actions, context):
        context.set('answered', context.get('answered', 0) + 1)
        return [CommandAction(command=f"{context.get('answered')} {context.get('watched')}")]

    async def execute(self, hook, context):
        if hook == 'post_action':
            import asyncio; await asyncio.sleep(0.3)
            context.set('watched', context.get('watched', 0) + 1)
            return context
        return await super().execute(hook, context)
"""


def test_answers_do_not_wait_for_what_the_same_plugin_watches_and_both_remember(plugins):
    async def played():
        hooks, _ = hooks_of(plugins, module("ActionFilterPlugin", "both", WATCHES_AND_FILTERS, hooks=["post_action"]))
        began, said = asyncio.get_running_loop().time(), []
        for _ in range(2):
            hooks.acted(LS, Observation(call_id="c", tool_name="t", status="ok"))
            await asyncio.sleep(0.01)
            said.append((await hooks.review([LS]))[0].action.command)
        waited = asyncio.get_running_loop().time() - began
        await hooks.settle()
        said.append((await hooks.review([LS]))[0].action.command)
        return waited, said

    waited, said = asyncio.run(played())
    assert waited < 0.3
    assert said == ["1 None", "2 None", "3 2"]


def test_a_call_that_the_end_of_an_episode_cuts_is_no_failure_not_even_of_a_critical_plugin(plugins):
    slow = filtering("slow", "import asyncio; await asyncio.sleep(60); return actions")

    async def played():
        hooks, _ = hooks_of(plugins, plugins.entry(slow, critical=True))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await hooks.review([LS])
        return await hooks.evaluate(graded(passed=1))

    trajectory = asyncio.run(played())
    said = json.loads(trajectory.plugin_data)["slow"]
    assert (trajectory.reward, said["cut"], said.get("error")) == (0.5, 1, None)


def test_only_losses_in_a_row_are_counted(plugins):
    code = "self.n = getattr(self, 'n', 0) + 1; import asyncio; await asyncio.sleep(0 if self.n % 3 == 0 else 9)"

    async def played():
        hooks, calls = hooks_of(plugins, plugins.entry(filtering("odd", f"{code}; return actions"), timeout=0.03))
        for _ in range(7):
            await hooks.review([LS])
        return len(calls.calls)

    assert asyncio.run(played()) == 7


def test_a_rollout_that_is_cancelled_leaves_no_call_behind(plugins):
    code = "import asyncio; await asyncio.sleep(60)"

    async def played():
        hooks, _ = hooks_of(plugins, watching("watch", "pre_test", code))
        hooks.testing()
        await asyncio.sleep(0.01)
        hooks.close()
        await asyncio.sleep(0.01)
        return asyncio.all_tasks() - {asyncio.current_task()}, data(hooks)

    left, said = asyncio.run(played())
    assert (left, said["watch"]["cut"], said["watch"].get("error")) == (set(), 1, None)


def test_watchers_are_called_side_by_side(plugins):
    texts = [
        watching(f"w{n}", "pre_test", "import asyncio; await asyncio.sleep(0.3); return context") for n in range(4)
    ]

    async def played():
        hooks, _ = hooks_of(plugins, *texts)
        began = asyncio.get_running_loop().time()
        hooks.testing()
        await hooks.settle()
        return asyncio.get_running_loop().time() - began, data(hooks)

    waited, said = asyncio.run(played())
    assert waited < 0.9
    assert [each["calls"] for each in said.values()] == [1] * 4


def test_an_answer_of_any_kind_is_at_most_a_mebibyte_larger_than_what_it_changes(plugins):
    large = CommandAction(command="x" * (2 << 20))
    verdicts, said = review(plugins, filtering("same", "return [actions[0]]"), actions=(large,))
    assert (decisions(verdicts), said["same"].get("error")) == (["allowed"], None)
    verdicts, said = review(plugins, filtering("big", "return [CommandAction(command='x' * (2 << 20)), actions[1]]"))
    assert decisions(verdicts) == ["allowed", "allowed"]
    assert said["big"]["error"] == "pre_action: it answered with more than 1 MiB"
    _, said = modify(plugins, modifying("big", "return environment_config.model_dump() | {'prompt': 'x' * (2 << 20)}"))
    assert "more than 1 MiB" in said["big"]["error"]
    _, said = evaluate(plugins, evaluating("many", "return {f'r{n}': 1.0 for n in range(200000)}"))
    assert "more than 1 MiB" in said["many"]["error"]
    _, said = evaluate(plugins, EXAMPLE.replace('{"custom_metric": 42}', "{'x': 'y' * (2 << 20)}"))
    assert "more than 1 MiB" in said["custom_analyzer"]["error"]


def test_the_row_shows_a_long_action_that_was_rewritten_shortened(plugins):
    _, said = review(plugins, filtering("soft", "return [CommandAction(command='x' * 100_000), actions[1]]"))
    assert 2000 <= len(said["soft"]["rewritten"][0]["to"]["command"]) < 2100

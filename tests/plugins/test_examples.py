"""The plugins of examples/plugins."""

import asyncio
import json
import sys

import pytest

from realwork.config import EnvironmentConfig
from realwork.plugins.base import PluginHookType
from realwork.plugins.calls import call_plugin
from realwork.plugins.checking import check_plugins
from realwork.plugins.loading import load_plugins
from realwork.plugins.told import HookCall
from realwork.types import CommandAction, FunctionCall, Message, ReadAction, RolloutSpec, ToolCall
from tests.dataset.records import graded
from tests.e2e.command import REPOSITORY
from tests.endpoint import Endpoint, reply
from tests.plugins.conftest import config

FOLDER = REPOSITORY / "examples" / "plugins"
SPEC = RolloutSpec(run_id="r", environment_id="calc", sample_index=0)


@pytest.fixture(autouse=True)
def forgotten():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name in ("llm_judge", "pip_rewriter", "seed_injector", "loop_tagger"):
            del sys.modules[name]


def load(module, **settings):
    loaded = load_plugins(config({"module": module, "config": settings}), folder=FOLDER)
    return loaded[-1]


def called(module, call, **settings):
    return asyncio.run(call_plugin(load(module, **settings).plugin, call))


@pytest.mark.parametrize(
    ("command", "changed"),
    [
        ("pip install flask", "pip install --no-index flask"),
        ("cd a && python -m pip install -r r.txt; ls", "cd a && python -m pip install --no-index -r r.txt; ls"),
        ("pip install --no-index flask", None),
        ("pip list", None),
        ("echo unpip install", None),
    ],
)
def test_the_rewriter_adds_arguments_to_pip_install_and_to_nothing_else(command, changed):
    actions = (CommandAction(command=command), ReadAction(path="pip install x"))
    call = HookCall(hook=PluginHookType.PRE_ACTION, spec=SPEC, actions=actions)
    answer = called("pip_rewriter", call, arguments=["--no-index"])
    assert [each.action for each in answer.filtered] == [CommandAction(command=changed or command), actions[1]]


def test_the_injector_gives_each_rollout_a_seed_which_every_attempt_keeps():
    environment = EnvironmentConfig(
        id="calc", docker_image="i", prompt="p", unit_tests=["true"], environment_variables={"A": "1"}
    )
    seeds = []
    for sample, attempt in ((0, 0), (0, 1), (1, 0)):
        spec = SPEC.model_copy(update={"sample_index": sample, "attempt": attempt})
        call = HookCall(hook=PluginHookType.PRE_EPISODE, spec=spec, environment=environment)
        variables = called("seed_injector", call, variable="SEED").environment.environment_variables
        assert variables["A"] == "1"
        seeds.append(int(variables["SEED"]))
    assert seeds[0] == seeds[1] != seeds[2]


def messages(*commands):
    calls = [
        ToolCall(id=f"{n}", function=FunctionCall(name="execute_command", arguments=json.dumps({"command": command})))
        for n, command in enumerate(commands)
    ]
    return (Message(role="user", content="p"), *(Message(role="assistant", tool_calls=(call,)) for call in calls))


@pytest.mark.parametrize(("commands", "times"), [("lslls", []), ("lllsss", [3, 3]), ("sllll", [4]), ("", [])])
def test_the_tagger_finds_the_same_call_three_times_in_a_row(commands, times):
    call = HookCall(hook=PluginHookType.POST_EPISODE, spec=SPEC, trajectory=graded(messages=messages(*commands)))
    said = json.loads(called("loop_tagger", call).data)
    assert said["analysis"]["is_loop"] == bool(times)
    assert [loop["times"] for loop in said["analysis"]["loops"]] == times
    assert len(said["suggestions"]) == len(times)


def test_the_judge_asks_a_model_and_says_when_it_cannot(monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "sk-judge")
    call = HookCall(hook=PluginHookType.POST_TEST, spec=SPEC, trajectory=graded(messages=messages("echo a", "ls")))
    with Endpoint(lambda request: reply("7 of 10")) as endpoint:
        answer = called("llm_judge", call, base_url=endpoint.base_url, model="judge")
        (asked,) = endpoint.requests
    assert answer.rewards == (("directness", 0.7),)
    assert asked["model"] == "judge"
    assert "echo a" in asked["messages"][1]["content"]
    with Endpoint(lambda request: reply("fine work")) as endpoint:
        answer = called("llm_judge", call, base_url=endpoint.base_url, model="judge")
    assert "the judge gave no mark but said: fine work" in answer.error
    loaded = load("llm_judge", base_url="http://127.0.0.1:9/v1", model="judge")
    assert check_plugins([loaded])[0].problem is None
    monkeypatch.delenv("JUDGE_API_KEY")
    assert "JUDGE_API_KEY is not set" in check_plugins([loaded])[0].problem

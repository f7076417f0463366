"""One call of a packed plugin, in this process."""

import asyncio
import os

import pytest

import realwork.distributed  # noqa: F401 - sets Ray's switches before it is imported
from realwork.distributed.hooks import LocalCalls, call_packed, pack
from realwork.plugins.base import PluginHookType
from realwork.plugins.checking import check_plugins
from realwork.plugins.panel import Panel
from realwork.plugins.told import HookCall
from realwork.types import CommandAction, RolloutSpec
from tests.plugins.modules import filtering

SPEC = RolloutSpec(run_id="r", environment_id="calc", sample_index=0)
LS = CommandAction(command="ls")
CALL = HookCall(hook=PluginHookType.PRE_ACTION, spec=SPEC, actions=(LS,))


@pytest.mark.parametrize("name", ["asyncio.CancelledError", "KeyboardInterrupt", "GeneratorExit"])
def test_whatever_a_plugin_raises_becomes_an_answer(plugins, name):
    (packed,) = pack(plugins.users(filtering("odd", f"import asyncio; raise {name}")))
    said = f"pre_action: its code failed ({name.rpartition('.')[2]})"
    assert call_packed((packed.code, {}), CALL, {}).error == said
    assert asyncio.run(LocalCalls()(packed, CALL, {}, 10.0)).error == said


def test_calls_side_by_side_in_one_process_leave_its_variables_as_they_were(plugins, monkeypatch):
    monkeypatch.setenv("SHARED", "before")
    monkeypatch.delenv("OWN", raising=False)
    code = "time.sleep({}); return [CommandAction(command=os.environ['SHARED'] + os.environ['OWN'])]"
    wanted = {"environment_variables": {"SHARED": "plugin's ", "OWN": "own"}}
    quick = plugins.entry(filtering("quick", code.format(0.1)), **wanted)
    slow = plugins.entry(filtering("slow", code.format(0.3)), **wanted)
    hangs = plugins.entry(filtering("hangs", code.format(2)), timeout=0.2, **wanted)
    packed = pack(plugins.users(quick, slow, hangs))

    async def played():
        panel = Panel(packed, LocalCalls())
        return await panel.ask_all(packed, CALL)

    answers = asyncio.run(played())
    said = [[each.action.command for each in answer.filtered or ()] for answer in answers]
    assert said == [["plugin's own"], ["plugin's own"], []]
    assert (os.environ["SHARED"], os.environ.get("OWN")) == ("before", None)


def test_a_self_check_that_hangs_does_not_keep_its_variables(plugins, monkeypatch):
    monkeypatch.delenv("OWN", raising=False)
    text = filtering("stuck", "return actions") + "\n    async def self_check(self):\n        time.sleep(2)\n"
    (checked,) = check_plugins(
        plugins.users(plugins.entry(text, timeout=0.1, environment_variables={"OWN": "hush hush"}))
    )
    assert checked.problem == "self_check gave no answer for 0.1 s"
    assert "OWN" not in os.environ


def test_values_of_an_entry_s_variables_stand_in_no_error(plugins):
    text = filtering("leaky", "raise ValueError('no http://h/?token=' + os.environ['TOKEN'])")
    text += "\n    async def self_check(self):\n        return 'no ' + os.environ['TOKEN']\n"
    loaded = plugins.users(plugins.entry(text, environment_variables={"TOKEN": "hush-hush"}))
    (packed,) = pack(loaded)
    here = asyncio.run(LocalCalls()(packed, CALL, {}, 10.0))
    for answer in (here, call_packed((packed.code, packed.environment_variables), CALL, {})):
        assert "its code failed: no http://h/?token=*** (ValueError" in answer.error
    assert check_plugins(loaded)[0].problem == "no ***"

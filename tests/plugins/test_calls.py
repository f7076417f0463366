"""One call of a packed plugin, in this process."""

import asyncio

import pytest

import realwork.distributed  # noqa: F401 - sets Ray's switches before it is imported
from realwork.distributed.hooks import LocalCalls, call_packed, pack
from realwork.plugins.base import PluginHookType
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
    assert asyncio.run(LocalCalls()(packed, CALL, {})).error == said

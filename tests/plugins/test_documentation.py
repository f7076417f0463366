"""The code in the documentation of plugins."""

import asyncio
import json
import re

from realwork.plugins.dispatch import PluginHooks
from realwork.types import CommandAction, Observation, RolloutSpec
from tests.dataset.records import graded
from tests.e2e.command import REPOSITORY

README = REPOSITORY / "examples" / "plugins" / "README.md"
SPEC = RolloutSpec(run_id="r", environment_id="calc", sample_index=0)


def test_the_watcher_of_the_documentation_leaves_its_findings_in_the_row(plugins):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    packed, calls = plugins.in_process(code)
    hooks = PluginHooks(packed, SPEC, calls)

    async def episode():
        for status in ("ok", "error", "error"):
            observation = Observation(call_id="c", tool_name="execute_command", status=status)
            hooks.acted(CommandAction(command="x"), observation)
        return await hooks.evaluate(graded())

    said = json.loads(asyncio.run(episode()).plugin_data)["failure_counter"]
    assert (said["analysis"], said["calls"]) == ({"failures": 2}, 4)

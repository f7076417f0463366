"""Lets `pip install` use what the sandbox can reach: adds arguments, such as a mirror or a folder of wheels.

Config: `arguments`, the words that are added.
"""

import re
from collections.abc import Sequence

from realwork.plugins import ActionFilterPlugin, PluginContext, PluginHookType
from realwork.types import Action, CommandAction

INSTALL = re.compile(r"((?:^|[\s;&|(])(?:python3? -m )?pip3? install)(?=\s)")


class PipRewriter(ActionFilterPlugin):
    name = "pip_rewriter"
    version = "1.0.0"
    supported_hooks = [PluginHookType.PRE_ACTION]

    def __init__(self, arguments: Sequence[str] = ("--no-index", "--find-links", "/wheels")) -> None:
        self._arguments = " ".join(arguments)

    async def filter_actions(self, actions: list[Action], context: PluginContext) -> list[Action]:
        return [self._rewritten(action) for action in actions]

    def _rewritten(self, action: Action) -> Action:
        if not isinstance(action, CommandAction) or self._arguments in action.command:
            return action
        command = INSTALL.sub(lambda found: f"{found[1]} {self._arguments}", action.command)
        return action.model_copy(update={"command": command})

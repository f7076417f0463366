"""Plugin modules as users write them, as text: each test writes those that it needs into a folder of its own."""

EXAMPLE = """
from realwork.plugins import PluginHookType, TrajectoryAnalyzerPlugin
from realwork.types import Trajectory


class CustomAnalyzerPlugin(TrajectoryAnalyzerPlugin):
    @property
    def name(self) -> str:
        return "custom_analyzer"

    @property
    def version(self) -> str:
        return "1.0.0"

    @property
    def supported_hooks(self) -> list[PluginHookType]:
        return [PluginHookType.POST_EPISODE]

    async def analyze_trajectory(self, trajectory: Trajectory) -> dict[str, Any]:
        return {"custom_metric": 42}

    async def suggest_improvements(self, trajectory: Trajectory) -> list[str]:
        return ["Custom suggestion based on analysis"]
"""


def module(kind, name, body, hooks=()):
    """A module with one plugin of the base class `kind`; `body` is indented as in a class."""
    return f"""
import os, sys, time
from typing import Any
from realwork.plugins import *
from realwork.types import *

class Plugin({kind}):
    name = {name!r}
    version = "1"
    supported_hooks = {list(hooks)!r}
{body}
"""


def filtering(name, code):
    return module(
        "ActionFilterPlugin", name, f"    async def filter_actions(self, actions, context):\n        {code}\n"
    )


def evaluating(name, code):
    body = f"    async def evaluate_episode(self, episode_result, trajectory):\n        {code}\n"
    return module("EpisodeEvaluatorPlugin", name, body)


def modifying(name, code):
    body = f"    async def modify_environment(self, environment_config, context):\n        {code}\n"
    return module("EnvironmentModifierPlugin", name, body)


def watching(name, hook, code):
    return module("BasePlugin", name, f"    async def execute(self, hook, context):\n        {code}\n", hooks=[hook])


def managing(name, go_on, strategy):
    return module(
        "RolloutManagerPlugin",
        name,
        f"    async def should_continue_rollout(self, context):\n        {go_on}\n\n"
        f"    async def modify_rollout_strategy(self, context):\n        {strategy}\n",
    )

"""What an episode did with its steps and its time, and what could be better."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from realwork.plugins.base import PluginHookType, TrajectoryAnalyzerPlugin
from realwork.types import Observation, Trajectory

_SLOWEST = 3
_OFTEN = 3
_CODES = {126: "not_executable", 127: "command_not_found", 130: "interrupted", 137: "killed"}
_SAYINGS = {
    "no such file or directory": "no_such_file",
    "permission denied": "permission_denied",
    "no space left on device": "no_space",
    "modulenotfounderror": "missing_module",
    "syntaxerror": "syntax_error",
    "syntax error": "syntax_error",
    "assertionerror": "assertion",
    "network is unreachable": "no_network",
    "could not resolve host": "no_network",
    "temporary failure in name resolution": "no_network",
}


class TrajectoryAnalyzer(TrajectoryAnalyzerPlugin):
    """Actions by tool, errors by category, durations, slowest steps."""

    @property
    def name(self) -> str:
        return "trajectory_analyzer"

    @property
    def version(self) -> str:
        return "1.0.0"

    @property
    def supported_hooks(self) -> list[PluginHookType]:
        return [PluginHookType.POST_EPISODE]

    async def analyze_trajectory(self, trajectory: Trajectory) -> dict[str, Any]:
        observations = _observations(trajectory)
        slowest = sorted(trajectory.steps, key=lambda step: -(step.llm_s + step.env_s))[:_SLOWEST]
        return {
            "actions": dict(Counter(observation.tool_name for observation in observations)),
            "errors": dict(_errors(observations)),
            "llm_s": round(sum(step.llm_s for step in trajectory.steps), 3),
            "env_s": round(sum(step.env_s for step in trajectory.steps), 3),
            "slowest_steps": [
                {"step": step.index, "llm_s": round(step.llm_s, 3), "env_s": round(step.env_s, 3)} for step in slowest
            ],
        }

    async def suggest_improvements(self, trajectory: Trajectory) -> list[str]:
        errors = _errors(_observations(trajectory))
        suggestions = []
        if errors["timeout"] >= _OFTEN:
            suggestions.append(f"{errors['timeout']} commands ran out of time: raise timeout_config.command_timeout.")
        if errors["no_network"]:
            suggestions.append("Commands wanted the network: install in init_commands, or open 'network'.")
        if errors["missing_module"] + errors["command_not_found"] >= _OFTEN:
            suggestions.append("Programs or modules were missing again and again: install them in init_commands.")
        if errors["invalid"] >= _OFTEN:
            suggestions.append(f"{errors['invalid']} tool calls were malformed: the model may not know the tools well.")
        if trajectory.terminated_reason == "action_limit":
            suggestions.append("The episode reached its step limit: raise rollout_config.max_steps or split the task.")
        if trajectory.terminated_reason == "global_timeout":
            suggestions.append("The episode's time was over: raise timeout_config.global_timeout.")
        return suggestions


def _observations(trajectory: Trajectory) -> list[Observation]:
    return [observation for step in trajectory.steps for observation in step.observations]


def _errors(observations: Sequence[Observation]) -> Counter[str]:
    return Counter(_category(observation) for observation in observations if observation.status != "ok")


def _category(observation: Observation) -> str:
    if observation.status != "error":
        return observation.status
    if observation.exit_code in _CODES:
        return _CODES[observation.exit_code]
    said = f"{observation.error}\n{observation.output}".lower()
    return next((category for saying, category in _SAYINGS.items() if saying in said), "failed")

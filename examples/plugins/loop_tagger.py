"""Tags episodes in which the agent went round in circles: the same command three times in a row.

Config: `times`, how often is a loop.
"""

from itertools import groupby
from typing import Any

from realwork.plugins import PluginHookType, TrajectoryAnalyzerPlugin
from realwork.types import Trajectory


class LoopTagger(TrajectoryAnalyzerPlugin):
    name = "loop_tagger"
    version = "1.0.0"
    supported_hooks = [PluginHookType.POST_EPISODE]

    def __init__(self, times: int = 3) -> None:
        self._times = times

    async def analyze_trajectory(self, trajectory: Trajectory) -> dict[str, Any]:
        loops = self._loops(trajectory)
        return {"is_loop": bool(loops), "loops": [{"call": call, "times": times} for call, times in loops]}

    async def suggest_improvements(self, trajectory: Trajectory) -> list[str]:
        return [f"It called the same {times} times in a row: {call[:80]}" for call, times in self._loops(trajectory)]

    def _loops(self, trajectory: Trajectory) -> list[tuple[str, int]]:
        calls = [
            f"{call.function.name} {call.function.arguments}"
            for message in trajectory.messages
            for call in message.tool_calls
        ]
        runs = [(call, sum(1 for _ in group)) for call, group in groupby(calls)]
        return [(call, times) for call, times in runs if times >= self._times]

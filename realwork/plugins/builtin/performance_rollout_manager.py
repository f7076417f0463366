"""Stops the rollouts of an environment that is solved, or has had enough; acts only when the run file configures it."""

from typing import Any

from realwork.plugins.base import PluginContext, PluginHookType, RolloutManagerPlugin


class PerformanceRolloutManager(RolloutManagerPlugin):
    """Goes on until `success_threshold` of at least `min_episodes` graded episodes succeed, or `max_episodes` are."""

    def __init__(self, success_threshold: float = 0.8, min_episodes: int = 3, max_episodes: int = 10) -> None:
        if not 0 < success_threshold <= 1:
            raise ValueError(f"success_threshold must be above 0 and at most 1, not {success_threshold!r}")
        if not 1 <= min_episodes <= max_episodes:
            raise ValueError(f"1 <= min_episodes <= max_episodes must hold, not {min_episodes!r} and {max_episodes!r}")
        self._success_threshold = success_threshold
        self._min_episodes = min_episodes
        self._max_episodes = max_episodes

    @property
    def name(self) -> str:
        return "performance_rollout_manager"

    @property
    def version(self) -> str:
        return "1.0.0"

    @property
    def supported_hooks(self) -> list[PluginHookType]:
        return [PluginHookType.POST_EPISODE]

    async def should_continue_rollout(self, context: PluginContext) -> bool:
        stats = context.get("rollout_stats")
        graded, successful = int(stats["graded"]), int(stats["successful"])
        if graded < self._min_episodes:
            return True
        return successful / graded < self._success_threshold and graded < self._max_episodes

    async def modify_rollout_strategy(self, context: PluginContext) -> dict[str, Any]:
        return {}

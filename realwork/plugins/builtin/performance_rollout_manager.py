"""Stops the rollouts of an environment that is solved, or has had enough; acts only when the run file configures it."""

from typing import Any

from realwork.plugins.base import PluginContext, PluginHookType, RolloutManagerPlugin


class PerformanceRolloutManager(RolloutManagerPlugin):
    """Goes on until `success_threshold` of at least `min_episodes` graded episodes succeed, or `max_episodes` are."""

    def __init__(self, success_threshold: float = 0.8, min_episodes: int = 3, max_episodes: int = 10) -> None:
        _check(success_threshold, min_episodes, max_episodes)
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


def _check(success_threshold: Any, min_episodes: Any, max_episodes: Any) -> None:
    """Make sure that the settings are numbers that make sense.

    Raises:
        ValueError: naming the one that does not.
    """
    is_number = isinstance(success_threshold, int | float) and not isinstance(success_threshold, bool)
    if not is_number or not 0 < success_threshold <= 1:
        raise ValueError(f"success_threshold must be a number above 0 and at most 1, not {success_threshold!r}")
    for name, count in (("min_episodes", min_episodes), ("max_episodes", max_episodes)):
        if type(count) is not int or count < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {count!r}")
    if min_episodes > max_episodes:
        raise ValueError(f"min_episodes ({min_episodes}) must not be above max_episodes ({max_episodes})")

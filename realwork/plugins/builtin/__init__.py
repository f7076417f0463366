"""The plugins that come with realwork, by the name that an entry of the run file configures them with."""

from realwork.config import PluginEntry, RunConfig
from realwork.plugins.base import BasePlugin
from realwork.plugins.builtin.performance_rollout_manager import PerformanceRolloutManager
from realwork.plugins.builtin.safety_filter import SafetyFilter
from realwork.plugins.builtin.trajectory_analyzer import TrajectoryAnalyzer

BUILTIN: dict[str, type[BasePlugin]] = {
    "safety_filter": SafetyFilter,
    "trajectory_analyzer": TrajectoryAnalyzer,
    "performance_rollout_manager": PerformanceRolloutManager,
}
_ALWAYS_ON = ("safety_filter", "trajectory_analyzer")


def all_entries(config: RunConfig) -> list[PluginEntry]:
    """The entries of `config` after those of the plugins that need not be named; none when plugins are switched off."""
    if not config.rollout_config.enable_plugins:
        return []
    named = {entry.module for entry in config.plugins}
    return [PluginEntry(module=name) for name in _ALWAYS_ON if name not in named] + config.plugins

"""The plugins that come with realwork, by the name that an entry of the run file configures them with."""

from realwork.plugins.base import BasePlugin
from realwork.plugins.builtin.performance_rollout_manager import PerformanceRolloutManager
from realwork.plugins.builtin.safety_filter import SafetyFilter
from realwork.plugins.builtin.trajectory_analyzer import TrajectoryAnalyzer

BUILTIN: dict[str, type[BasePlugin]] = {
    "safety_filter": SafetyFilter,
    "trajectory_analyzer": TrajectoryAnalyzer,
    "performance_rollout_manager": PerformanceRolloutManager,
}
ALWAYS_ON = ("safety_filter", "trajectory_analyzer")

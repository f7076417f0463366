"""User code on episode events: what a plugin module imports."""

from realwork.plugins.base import (
    ActionFilterPlugin,
    BasePlugin,
    EnvironmentModifierPlugin,
    EpisodeEvaluatorPlugin,
    EpisodeResult,
    PluginContext,
    PluginHookType,
    PluginType,
    RolloutManagerPlugin,
    TrajectoryAnalyzerPlugin,
)

__all__ = [
    "ActionFilterPlugin",
    "BasePlugin",
    "EnvironmentModifierPlugin",
    "EpisodeEvaluatorPlugin",
    "EpisodeResult",
    "PluginContext",
    "PluginHookType",
    "PluginType",
    "RolloutManagerPlugin",
    "TrajectoryAnalyzerPlugin",
]

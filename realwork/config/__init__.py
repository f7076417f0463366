"""The run file's model: every section, field, default and unit, frozen and closed.

A `RunConfig` that exists is valid in itself; whether its folders, images and key can be had is asked elsewhere. Types
are strict: "5" is no number, `true` no integer, an integer does for a float. What may be secret shows in no `repr` and
in no validation error. Loading a file, with every mistake named at once, is `realwork.runfile`.
"""

from realwork.config.environments import EnvironmentConfig, GradingConfig, TimeoutConfig, UnitTest
from realwork.config.llm import DEFAULT_BASE_URL, DEFAULT_MODEL, SCRIPTED_PREFIX, LlmConfig, Price
from realwork.config.run import (
    DUPLICATE_IDS,
    EpisodeControlConfig,
    PluginEntry,
    RolloutConfig,
    RunConfig,
    SandboxConfig,
    is_url,
    split_url,
)

__all__ = [
    "DEFAULT_BASE_URL",
    "DEFAULT_MODEL",
    "DUPLICATE_IDS",
    "SCRIPTED_PREFIX",
    "EnvironmentConfig",
    "EpisodeControlConfig",
    "GradingConfig",
    "LlmConfig",
    "PluginEntry",
    "Price",
    "RolloutConfig",
    "RunConfig",
    "SandboxConfig",
    "TimeoutConfig",
    "UnitTest",
    "is_url",
    "split_url",
]

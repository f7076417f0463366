"""Gives each rollout a seed of its own, in an environment variable of its sandbox: samples differ, and can be repeated.

Config: `variable`, its name.
"""

import zlib

from realwork.config import EnvironmentConfig
from realwork.plugins import EnvironmentModifierPlugin, PluginContext, PluginHookType


class SeedInjector(EnvironmentModifierPlugin):
    name = "seed_injector"
    version = "1.0.0"
    supported_hooks = [PluginHookType.PRE_EPISODE]

    def __init__(self, variable: str = "TASK_SEED") -> None:
        self._variable = variable

    async def modify_environment(
        self, environment_config: EnvironmentConfig, context: PluginContext
    ) -> EnvironmentConfig:
        seed = zlib.crc32(context.get("episode_id").encode())  # the same for every attempt of a rollout
        variables = environment_config.environment_variables | {self._variable: str(seed)}
        return environment_config.model_copy(update={"environment_variables": variables})

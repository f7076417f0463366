"""Run file to sandbox and model: the only place that knows which implementation a name stands for.

Engine and client are imported where they are first opened: loading the client takes longer than a container's life, and
the scripted model and the local sandbox do without.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from realwork.config import EnvironmentConfig
from realwork.model.base import Model
from realwork.model.scripted import ScriptedModel
from realwork.rollout import RolloutSettings, longest_s
from realwork.sandbox.base import Sandbox, SandboxSpec
from realwork.types import RolloutSpec


class ConfiguredBackends:
    """The `Backends` that a run file names."""

    def __init__(self, settings: RolloutSettings) -> None:
        self._settings = settings
        self._config = settings.config
        self._is_docker = self._config.sandbox_config.kind == "docker"

    async def ensure_image(self, environment: EnvironmentConfig) -> None:
        """See `Backends.ensure_image`."""
        if self._is_docker:
            from realwork.sandbox.image import ensure_image

            await ensure_image(environment.docker_image)

    def open_sandbox(self, spec: RolloutSpec, environment: EnvironmentConfig) -> AbstractAsyncContextManager[Sandbox]:
        """See `Backends.open_sandbox`."""
        wanted = self._sandbox_spec(spec, environment)
        if self._is_docker:
            from realwork.sandbox.docker import open_container

            return open_container(wanted)
        from realwork.sandbox.local import open_local

        return open_local(wanted)

    @asynccontextmanager
    async def open_model(self, spec: RolloutSpec) -> AsyncIterator[Model]:
        """See `Backends.open_model`."""
        llm = self._config.llm_config
        if self._settings.script is not None:
            yield ScriptedModel(llm.model, self._settings.script, spec.environment_id)
            return
        from realwork.model.openai import OpenAIModel, open_endpoint

        key = self._settings.api_key
        async with open_endpoint(llm, key.get_secret_value() if key else "EMPTY") as client:
            yield OpenAIModel(client, llm, seed=spec.seed)

    def _sandbox_spec(self, spec: RolloutSpec, environment: EnvironmentConfig) -> SandboxSpec:
        limits = self._config.sandbox_config
        return SandboxSpec(
            name=f"realwork-{uuid.uuid4().hex}",
            image=environment.docker_image,
            network=environment.init_network if environment.init_commands else self._config.network(environment),
            working_directory=environment.working_directory,
            environment_variables=environment.environment_variables,
            labels={
                "realwork.run": spec.run_id,
                "realwork.rollout": spec.rollout_id,
                "realwork.attempt": str(spec.attempt),
            },
            deadline_s=longest_s(self._config, environment),
            memory_mib=limits.memory_mib,
            cpus=limits.cpus,
            pids=limits.pids,
            shm_mib=limits.shm_mib,
            runtime=limits.runtime,
        )

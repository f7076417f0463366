"""Run file to sandbox and model: the only place that knows which implementation a name stands for.

Engine and client are imported where they are first opened: loading the client takes longer than a container's life, and
the scripted model and the local sandbox do without.
"""

import logging
import platform
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from realwork.config import EnvironmentConfig
from realwork.errors import SandboxError
from realwork.model.base import Model
from realwork.model.scripted import ScriptedModel
from realwork.record import RolloutSettings
from realwork.rollout import Backends, longest_s
from realwork.sandbox import labels
from realwork.sandbox.base import Sandbox, SandboxSpec
from realwork.types import RolloutSpec

if TYPE_CHECKING:
    from realwork.sandbox.engine import Engine

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_backends(settings: RolloutSettings, *, with_channel: bool = True) -> AsyncIterator[Backends]:
    """What the run file of `settings` names, with one connection to the engine for the length of the block.

    Without a channel every command in a container is an exec of its own.

    Raises:
        SandboxError: the engine does not answer.
    """
    if settings.config.sandbox_config.kind == "local":
        yield _LocalBackends(settings)
        return
    from realwork.sandbox.engine import open_engine

    async with open_engine() as engine:
        yield _DockerBackends(settings, engine, with_channel)


class _ModelBackend:
    """Opens the model; the half that all backends share."""

    def __init__(self, settings: RolloutSettings) -> None:
        self._settings = settings

    @asynccontextmanager
    async def open_model(self, spec: RolloutSpec) -> AsyncIterator[Model]:
        """See `Backends.open_model`."""
        llm = self._settings.config.llm_config
        if self._settings.script is not None:
            yield ScriptedModel(llm.model, self._settings.script, spec.environment_id)
            return
        from realwork.model.openai import OpenAIModel, open_endpoint

        key = self._settings.api_key
        async with open_endpoint(llm, key.get_secret_value() if key else "EMPTY") as client:
            yield OpenAIModel(client, llm, seed=spec.seed)


class _DockerBackends(_ModelBackend):
    """Containers of one engine."""

    def __init__(self, settings: RolloutSettings, engine: "Engine", with_channel: bool) -> None:
        super().__init__(settings)
        self._engine = engine
        self._with_channel = with_channel

    async def ensure_image(self, environment: EnvironmentConfig) -> None:
        """See `Backends.ensure_image`."""
        from realwork.sandbox.image import ensure_image

        await ensure_image(self._engine, environment.docker_image)

    def open_sandbox(self, spec: RolloutSpec, environment: EnvironmentConfig) -> AbstractAsyncContextManager[Sandbox]:
        """See `Backends.open_sandbox`."""
        from realwork.sandbox.docker import open_container

        wanted = _sandbox_spec(self._settings, spec, environment)
        return open_container(wanted, engine=self._engine, with_channel=self._with_channel)

    async def forget_snapshots(self, spec: RolloutSpec) -> None:
        """See `Backends.forget_snapshots`; those that are to be kept stay."""
        from realwork.sandbox import snapshots

        try:
            which = snapshots.is_temporary_of(self._settings.driver)
            await snapshots.remove_all(self._engine, run_id=spec.run_id, rollout_id=spec.rollout_id, which=which)
        except SandboxError as error:
            log.warning("Snapshots of %s are left for the garbage collection: %s", spec.rollout_id, error)


class _LocalBackends(_ModelBackend):
    """Temporary folders of this machine, without isolation."""

    async def ensure_image(self, environment: EnvironmentConfig) -> None:
        """See `Backends.ensure_image`; there is no image."""

    def open_sandbox(self, spec: RolloutSpec, environment: EnvironmentConfig) -> AbstractAsyncContextManager[Sandbox]:
        """See `Backends.open_sandbox`."""
        from realwork.sandbox.local import open_local

        return open_local(_sandbox_spec(self._settings, spec, environment))

    async def forget_snapshots(self, spec: RolloutSpec) -> None:
        """See `Backends.forget_snapshots`; there are none."""


def _sandbox_spec(settings: RolloutSettings, spec: RolloutSpec, environment: EnvironmentConfig) -> SandboxSpec:
    config, limits = settings.config, settings.config.sandbox_config
    return SandboxSpec(
        name=f"realwork-{uuid.uuid4().hex}",
        image=environment.docker_image,
        network=environment.init_network if environment.init_commands else config.network(environment),
        working_directory=environment.working_directory,
        environment_variables=environment.environment_variables,
        labels={
            labels.RUN: spec.run_id,
            labels.ROLLOUT: spec.rollout_id,
            labels.ATTEMPT: str(spec.attempt),
            labels.NODE: platform.node(),
            labels.DRIVER: settings.driver,
        },
        deadline_s=longest_s(config, environment),
        memory_mib=limits.memory_mib,
        cpus=limits.cpus,
        pids=limits.pids,
        shm_mib=limits.shm_mib,
        runtime=limits.runtime,
    )

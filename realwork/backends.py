"""Run file to sandbox and model: the only place that knows which implementation a name stands for.

Engine and client are imported where they are first opened: loading the client takes longer than a container's life, and
the scripted model and the local sandbox do without.
"""

import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from realwork.config import EnvironmentConfig
from realwork.environment import prepare
from realwork.errors import ImageError, SandboxError
from realwork.grading import check_gradable
from realwork.model.base import Model
from realwork.model.gate import Gate
from realwork.model.scripted import ScriptedModel
from realwork.record import RolloutSettings
from realwork.rollout import Backends, longest_s, preparation_s
from realwork.sandbox import labels
from realwork.sandbox.base import CommandResult, Sandbox, SandboxSpec
from realwork.sandbox.cpu_slots import CpuSlots, NoSlots, Slots
from realwork.sandbox.memory import open_memory
from realwork.secret import Secret, read_key
from realwork.types import RolloutSpec

if TYPE_CHECKING:
    from realwork.model.endpoint import Endpoint
    from realwork.sandbox.engine import Engine
    from realwork.sandbox.prepared import Fetch

log = logging.getLogger(__name__)
TIDY_EVERY_S = 600.0
CLIENT = "realwork.model.openai"


@asynccontextmanager
async def open_backends(
    settings: RolloutSettings,
    *,
    gate: Gate | None = None,
    given_key: Secret | None = None,
    with_channel: bool = True,
) -> AsyncIterator[Backends]:
    """What the run file of `settings` names, with one connection to the engine for the length of the block.

    Every model passes `gate` before it asks, with `given_key` where no process finds the key by itself.
    Without a channel every command in a container is an exec of its own.

    Raises:
        SandboxError: the engine does not answer.
    """
    async with AsyncExitStack() as stack:
        models = _Models(settings, stack, gate, given_key)
        match settings.config.sandbox_config.kind:
            case "local":
                yield _LocalBackends(settings, models)
                return
            case "memory":
                yield _MemoryBackends(settings, models)
                return
        from realwork.sandbox.attended import attended
        from realwork.sandbox.engine import open_engine

        engine = await stack.enter_async_context(open_engine())
        await stack.enter_async_context(attended(engine))
        yield _DockerBackends(settings, models, engine, with_channel)


class _Models:
    """Opens the models of rollouts, on connections that all rollouts of this process share."""

    def __init__(
        self, settings: RolloutSettings, opened: AsyncExitStack, gate: Gate | None, given_key: Secret | None
    ) -> None:
        self._settings = settings
        self._opened = opened
        self._gate = gate
        self._given_key = given_key
        self._endpoint: Endpoint | None = None
        if settings.script is None:  # a second of loading, meanwhile the first container starts
            threading.Thread(target=import_module, args=(CLIENT,), daemon=True).start()

    async def open(self, spec: RolloutSpec) -> Model:
        """The model of the rollout `spec`.

        Raises:
            ModelRefused: the key is not to be found here.
        """
        llm = self._settings.config.llm_config
        if self._settings.script is not None:
            played = spec.resumed.fork_step if spec.resumed else 0
            return ScriptedModel(llm.model, self._settings.script, spec.environment_id, played=played)
        from realwork.model.openai import OpenAIModel, open_endpoint

        if self._endpoint is None:
            key = read_key(self._settings.key, self._given_key, os.environ)
            self._endpoint = await self._opened.enter_async_context(open_endpoint(llm, key))
        return OpenAIModel(self._endpoint, llm, seed=spec.seed, gate=self._gate)


class _CommonBackend:
    """Opens the model and gives CPU slots; the half that all backends share."""

    def __init__(self, settings: RolloutSettings, models: _Models) -> None:
        self._settings = settings
        self._models = models

    @asynccontextmanager
    async def open_model(self, spec: RolloutSpec) -> AsyncIterator[Model]:
        """See `Backends.open_model`."""
        yield await self._models.open(spec)

    def slots(self) -> Slots:
        """See `Backends.slots`."""
        count = self._settings.config.rollout_config.cpu_slots
        return NoSlots() if count is None else CpuSlots(count)


class _DockerBackends(_CommonBackend):
    """Containers of one engine, each from an image in which its environment stands ready.

    An image with volumes is the exception, as no commit contains what is in them: there every sandbox is prepared anew.
    """

    def __init__(self, settings: RolloutSettings, models: _Models, engine: "Engine", with_channel: bool) -> None:
        super().__init__(settings, models)
        self._engine = engine
        self._with_channel = with_channel
        self._gradable: set[str] = set()
        self._tidied_at = time.monotonic()

    async def prepare(self, spec: RolloutSpec, environment: EnvironmentConfig, fetch: "Fetch | None" = None) -> bool:
        """See `Backends.prepare`; every now and then, images that nobody needs any more leave the engine."""
        if environment.needs_preparation and time.monotonic() > self._tidied_at + TIDY_EVERY_S:
            self._tidied_at = time.monotonic()
            await self._tidy()
        return await self._image(spec, environment, fetch) is not None or not environment.init_commands

    async def _tidy(self) -> None:
        from realwork.sandbox.kept import tidy

        try:
            await tidy(self._engine)
        except SandboxError as error:
            log.warning("The engine's unused images are not looked at: %s", error)

    @asynccontextmanager
    async def open_sandbox(self, spec: RolloutSpec, environment: EnvironmentConfig) -> AsyncIterator[Sandbox]:
        """See `Backends.open_sandbox`."""
        async with AsyncExitStack() as stack:
            try:
                sandbox = await self._open(stack, spec, environment)
            except ImageError:  # its image was removed a moment ago; if it is missing for good, that is said now
                sandbox = await self._open(stack, spec, environment)
            if environment.id not in self._gradable:
                await check_gradable(sandbox, environment, self._settings.config.grading(environment))
                self._gradable.add(environment.id)
            await sandbox.hand_over()
            yield sandbox

    async def _open(self, stack: AsyncExitStack, spec: RolloutSpec, environment: EnvironmentConfig) -> Sandbox:
        from realwork.sandbox.docker import DockerSandbox, open_container

        network = self._settings.config.network(environment)
        if spec.resumed is not None:
            alike = _sandbox_spec(self._settings, spec, environment, network=network)
            return await stack.enter_async_context(
                DockerSandbox.restore(
                    alike, spec.resumed.snapshot_id, engine=self._engine, with_channel=self._with_channel
                )
            )
        image = await self._image(spec, environment)
        if image is not None:
            ready = _sandbox_spec(self._settings, spec, environment, image=image, network=network)
            return await stack.enter_async_context(
                open_container(ready, engine=self._engine, with_channel=self._with_channel)
            )
        first = environment.init_network if environment.init_commands else network
        bare = _sandbox_spec(self._settings, spec, environment, network=first)
        sandbox = await stack.enter_async_context(
            open_container(bare, engine=self._engine, with_channel=self._with_channel)
        )
        await _prepare(self._settings, spec, environment, sandbox)
        if first != network:
            await sandbox.set_network(network)
        return sandbox

    async def _image(
        self, spec: RolloutSpec, environment: EnvironmentConfig, fetch: "Fetch | None" = None
    ) -> str | None:
        """The image in which `environment` stands ready; null if each sandbox has to be prepared."""
        from realwork.sandbox.image import ensure_image
        from realwork.sandbox.prepared import Recipe, ensure_prepared

        base = await ensure_image(self._engine, environment.docker_image)
        if not environment.needs_preparation:
            return environment.docker_image
        if base.has_volumes:
            return None
        recipe = Recipe(
            base_id=base.image_id,
            folders=tuple(folder.digest for folder in self._settings.folders.get(spec.environment_id, ())),
            init_commands=tuple(environment.init_commands),
            init_network=environment.init_network if environment.init_commands else "none",
            environment_variables=self._prepared_with(environment),
            working_directory=environment.working_directory,
            user=self._settings.config.limits(environment).user,
        )
        build = _sandbox_spec(self._settings, spec, environment).model_copy(
            update={"deadline_s": preparation_s(self._settings.config, environment)}
        )
        prepare = partial(_prepare, self._settings, spec, environment)
        return await ensure_prepared(self._engine, recipe, build, prepare, environment_id=environment.id, fetch=fetch)

    def _prepared_with(self, environment: EnvironmentConfig) -> dict[str, str]:
        """The variables that init commands see: the run file's, so that those of one rollout need no image of its own.

        Commands that a plugin has changed see what it has set beside them.
        """
        own = self._settings.config.environment(environment.id)
        is_changed = environment.init_commands != own.init_commands
        return environment.environment_variables if is_changed else own.environment_variables

    async def has_snapshot(self, snapshot_id: str) -> bool:
        """See `Backends.has_snapshot`."""
        from realwork.sandbox import snapshots

        return await snapshots.is_here(self._engine, snapshot_id)

    async def forget_snapshots(self, spec: RolloutSpec) -> None:
        """See `Backends.forget_snapshots`; those that are to be kept stay."""
        from realwork.sandbox import snapshots

        try:
            which = snapshots.is_temporary_of(self._settings.driver)
            await snapshots.remove_all(self._engine, run_id=spec.run_id, rollout_id=spec.rollout_id, which=which)
        except SandboxError as error:
            log.warning("Snapshots of %s are left for the garbage collection: %s", spec.rollout_id, error)


class _LocalBackends(_CommonBackend):
    """Temporary folders of this machine, without isolation."""

    async def prepare(self, spec: RolloutSpec, environment: EnvironmentConfig, fetch: "Fetch | None" = None) -> bool:
        """See `Backends.prepare`; there is no image."""
        return not environment.init_commands

    @asynccontextmanager
    async def open_sandbox(self, spec: RolloutSpec, environment: EnvironmentConfig) -> AsyncIterator[Sandbox]:
        """See `Backends.open_sandbox`."""
        from realwork.sandbox.local import open_local

        async with open_local(_sandbox_spec(self._settings, spec, environment)) as sandbox:
            await _prepare(self._settings, spec, environment, sandbox)
            yield sandbox

    async def has_snapshot(self, snapshot_id: str) -> bool:
        """See `Backends.has_snapshot`; there are none."""
        return False

    async def forget_snapshots(self, spec: RolloutSpec) -> None:
        """See `Backends.forget_snapshots`; there are none."""


class _MemoryBackends(_LocalBackends):
    """Sandboxes that run nothing, in which every command succeeds, for measuring all else."""

    @asynccontextmanager
    async def open_sandbox(self, spec: RolloutSpec, environment: EnvironmentConfig) -> AsyncIterator[Sandbox]:
        """See `Backends.open_sandbox`."""
        async with open_memory(otherwise=CommandResult(exit_code=0)) as sandbox:
            yield sandbox


async def _prepare(
    settings: RolloutSettings, spec: RolloutSpec, environment: EnvironmentConfig, sandbox: Sandbox
) -> None:
    timeout_s = settings.config.timeouts(environment).global_timeout
    await prepare(sandbox, environment, settings.folders.get(spec.environment_id, ()), timeout_s)
    await sandbox.hand_over()


def _sandbox_spec(
    settings: RolloutSettings,
    spec: RolloutSpec,
    environment: EnvironmentConfig,
    *,
    image: str | None = None,
    network: str = "none",
) -> SandboxSpec:
    config, limits = settings.config, settings.config.limits(environment)
    return SandboxSpec(
        name=f"realwork-{uuid.uuid4().hex}",
        image=image or environment.docker_image,
        network=network,
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
        disk_mib=limits.disk_mib,
        capabilities=limits.needed_capabilities,
        user=limits.user,
        read_only=limits.read_only,
        runtime=limits.runtime,
    )

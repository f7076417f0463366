"""What must be there before a run starts: an engine that answers, and images with a shell.

Runs on any node; says what is wrong in sentences and starts no container.
"""

import asyncio
import os
from collections.abc import Callable

from realwork.config import RunConfig
from realwork.errors import SandboxError
from realwork.sandbox.abilities import abilities
from realwork.sandbox.engine import Engine, open_engine
from realwork.sandbox.image import check_shell, ensure_image
from realwork.types import Record


class EngineNeeds(Record):
    """What an engine must have for a run.

    Attributes:
        images: each image, and the ids of the environments whose sandboxes are made of it.
        networks: names of networks of the engine, beside none and bridge.
        runtimes: names of OCI runtimes, beside the engine's own.
    """

    images: dict[str, str]
    networks: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()


def engine_needs(config: RunConfig) -> EngineNeeds | None:
    """What an engine must have for `config`; null for the local sandbox, which needs none."""
    if config.sandbox_config.kind != "docker":
        return None
    images: dict[str, list[str]] = {}
    networks = set()
    runtimes = {config.limits(environment).runtime for environment in config.environments}
    for environment in config.environments:
        images.setdefault(environment.docker_image, []).append(environment.id)
        networks |= {config.network(environment)} | ({environment.init_network} if environment.init_commands else set())
    return EngineNeeds(
        images={image: ", ".join(ids) for image, ids in images.items()},
        networks=tuple(sorted(networks - {"none", "bridge"})),
        runtimes=tuple(sorted(runtime for runtime in runtimes if runtime is not None)),
    )


def capacity_problems(config: RunConfig) -> list[str]:
    """Whether this machine is too small for even one rollout of some environment, in sentences."""
    memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    cpus = os.cpu_count() or 1
    problems = []
    for index, environment in enumerate(config.environments):
        limits = config.limits(environment)
        place = "sandbox_config" if environment.sandbox_config is None else f"environments[{index}].sandbox_config"
        if limits.memory_mib > memory_mib:
            problems.append(f"{place}.memory_mib: {limits.memory_mib} MiB, but this machine has {memory_mib} MiB")
        if limits.cpus > cpus:
            problems.append(f"{place}.cpus: {limits.cpus:g} CPUs, but this machine has {cpus}")
    return list(dict.fromkeys(problems))


def engine_problems(needs: EngineNeeds | None, on_progress: Callable[[str], None] = lambda _: None) -> list[str]:
    """What keeps the engine of this machine from making the run's containers, one sentence each.

    Missing images are pulled, with `on_progress` told of it.
    """
    return asyncio.run(_engine_problems(needs, on_progress)) if needs else []


def engine_shortcomings(needs: EngineNeeds | None) -> list[str]:
    """What the engine of this machine cannot enforce; each completes "the engine does not enforce"."""
    return asyncio.run(_engine_shortcomings(needs)) if needs else []


async def _engine_shortcomings(needs: EngineNeeds) -> list[str]:
    try:
        async with open_engine() as engine:
            found = await abilities(engine, next(iter(needs.images)))
    except SandboxError as error:
        return [f"it cannot be told what ({error})"]
    return [each.sentence for each in found.shortcomings]


async def _engine_problems(needs: EngineNeeds, on_progress: Callable[[str], None]) -> list[str]:
    try:
        async with open_engine() as engine:
            problems = await _missing_parts(engine, needs)
            for image, environments in needs.images.items():
                if problem := await _image_problem(engine, image, on_progress):
                    problems.append(f"docker_image of {environments}: {problem}")
    except SandboxError as error:
        return [str(error)]
    return problems


async def _missing_parts(engine: Engine, needs: EngineNeeds) -> list[str]:
    """Runtime and networks that the engine does not have."""
    problems = []
    runtimes = (await abilities(engine, None)).runtimes
    problems += [
        f"sandbox_config.runtime: the engine has no '{name}', only {', '.join(runtimes)}"
        for name in needs.runtimes
        if name not in runtimes
    ]
    if needs.networks:
        there = {one["Name"] for one in await engine.call("listing networks", engine.client.networks)}
        problems += [f"network: the engine has none called '{name}'" for name in needs.networks if name not in there]
    return problems


async def _image_problem(engine: Engine, image: str, on_progress: Callable[[str], None]) -> str | None:
    try:
        await ensure_image(engine, image, on_progress)
        await check_shell(engine, image)
    except SandboxError as error:
        return str(error)
    return None

"""What must be there before a run starts: an engine that answers, and images with a shell.

Runs on any node; says what is wrong in sentences and starts no container.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from realwork.config import RunConfig
from realwork.errors import ModelRefused, SandboxError
from realwork.sandbox.abilities import abilities
from realwork.sandbox.engine import Engine, open_engine
from realwork.sandbox.image import can_be_pulled, check_shell, ensure_image, inspect_image
from realwork.sandbox.kept import data_directory
from realwork.secret import NO_KEY, KeySource, Secret, read_key
from realwork.types import Record

T = TypeVar("T")


class EngineNeeds(Record):
    """What an engine must have for a run.

    Attributes:
        images: each image, and the ids of the environments whose sandboxes are made of it.
        networks: names of networks of the engine, beside none and bridge, and the fields that name them.
        runtimes: names of OCI runtimes, beside the engine's own; likewise.
    """

    images: dict[str, str]
    networks: dict[str, str] = {}
    runtimes: dict[str, str] = {}


class Question(Record):
    """What is asked of a machine that is to play rollouts.

    Attributes:
        needs: what its engine must have; null where no engine is needed.
        cpus: CPUs that its largest sandbox may use.
        pulls: whether missing images are pulled, which may take as long as it takes.
    """

    needs: EngineNeeds | None
    key: KeySource = KeySource()
    cpus: float = 0.0
    pulls: bool = False


class MachineFacts(Record):
    """What a machine answered.

    Attributes:
        problems: what keeps it from playing rollouts, in sentences; empty when nothing does.
        missing_images: those that its engine does not have, and could pull.
        engine: its version, with storage driver and cgroup version; empty where none is needed, or none answers.
        shortcomings: what its engine cannot enforce; each completes "the engine does not enforce".
        free_disk_mib: where its engine keeps images and containers, null where that cannot be seen.
    """

    problems: tuple[str, ...] = ()
    missing_images: tuple[str, ...] = ()
    engine: str = ""
    shortcomings: tuple[str, ...] = ()
    free_disk_mib: int | None = None


def engine_needs(config: RunConfig) -> EngineNeeds | None:
    """What an engine must have for `config`; null for the local sandbox, which needs none."""
    if config.sandbox_config.kind != "docker":
        return None
    images: dict[str, str] = {}
    networks: dict[str, str] = {}
    runtimes: dict[str, str] = {}
    for environment in config.environments:
        _add(images, environment.docker_image, environment.id)
        asked = {f"network of {environment.id}": config.network(environment)}
        if environment.init_commands:
            asked[f"init_network of {environment.id}"] = environment.init_network
        for field, network in asked.items():
            if network not in ("none", "bridge"):
                _add(networks, network, field)
        if runtime := config.limits(environment).runtime:
            _add(runtimes, runtime, environment.id)
    return EngineNeeds(images=images, networks=networks, runtimes=runtimes)


def _add(needs: dict[str, str], name: str, who: str) -> None:
    needs[name] = f"{needs[name]}, {who}" if name in needs else who


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


def examine(question: Question) -> MachineFacts:
    """What there is to know of this machine before it plays a rollout."""
    facts = complete(_engine_facts(question)) if question.needs is not None else MachineFacts()
    cpus = os.cpu_count() or 1
    if question.cpus > cpus:
        told = f"sandbox_config.cpus: {question.cpus:g} CPUs, but this machine has {cpus}"
        facts = facts.model_copy(update={"problems": (*facts.problems, told)})
    return facts.model_copy(update={"problems": (*facts.problems, *key_problems(question.key))})


async def _engine_facts(question: Question) -> MachineFacts:
    needs = question.needs or EngineNeeds(images={})
    missing: list[str] = []
    try:
        async with open_engine() as engine:
            problems = await _missing_parts(engine, needs)
            for image, environments in needs.images.items():
                if not question.pulls and await inspect_image(engine, image) is None and can_be_pulled(image):
                    missing.append(image)
                elif problem := await _image_problem(engine, image, lambda _line: None):
                    problems.append(f"docker_image of {environments}: {problem}")
            usable = next((image for image in needs.images if image not in missing), None) if not problems else None
            found = await abilities(engine, usable)
            free_mib = await _free_disk_mib(engine)
    except SandboxError as error:
        return MachineFacts(problems=(str(error),))
    return MachineFacts(
        problems=tuple(problems),
        missing_images=tuple(missing),
        engine=found.version,
        shortcomings=tuple(each.sentence for each in found.shortcomings),
        free_disk_mib=free_mib,
    )


async def _free_disk_mib(engine: Engine) -> int | None:
    """What is free where an engine of this machine keeps its data."""
    directory = await data_directory(engine)
    return (await asyncio.to_thread(shutil.disk_usage, directory)).free >> 20 if directory is not None else None


def engine_problems(needs: EngineNeeds | None, on_progress: Callable[[str], None] = lambda _: None) -> list[str]:
    """What keeps the engine of this machine from making the run's containers, one sentence each.

    Missing images are pulled, with `on_progress` told of it.
    """
    return complete(_engine_problems(needs, on_progress)) if needs else []


def complete(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; where an event loop is running already, in a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()


def key_problems(source: KeySource) -> list[str]:
    """What keeps Ray's processes of this node from finding the key, in sentences."""
    try:
        read_key(source, Secret(NO_KEY), os.environ)
    except ModelRefused as error:
        return [f"llm_config.api_key: {error}"]
    return []


def engine_shortcomings(needs: EngineNeeds | None) -> list[str]:
    """What the engine of this machine cannot enforce; each completes "the engine does not enforce"."""
    return complete(_engine_shortcomings(needs)) if needs else []


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
        f"runtime of {environments}: the engine has no '{name}', only {', '.join(runtimes)}"
        for name, environments in needs.runtimes.items()
        if name not in runtimes
    ]
    if needs.networks:
        there = {one["Name"] for one in await engine.call("listing networks", engine.client.networks)}
        problems += [
            f"{fields}: the engine has no network called '{name}'"
            for name, fields in needs.networks.items()
            if name not in there
        ]
    return problems


async def _image_problem(engine: Engine, image: str, on_progress: Callable[[str], None]) -> str | None:
    try:
        await ensure_image(engine, image, on_progress)
        await check_shell(engine, image)
    except SandboxError as error:
        return str(error)
    return None

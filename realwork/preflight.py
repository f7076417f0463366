"""What must be there before a run starts: an engine that answers, and images with a shell.

Runs on any node; says what is wrong in sentences and starts no container.
"""

import asyncio
from collections.abc import Callable

from realwork.config import RunConfig
from realwork.errors import SandboxError
from realwork.sandbox.engine import Engine, open_engine
from realwork.sandbox.image import check_shell, ensure_image


def engine_problems(config: RunConfig, *, on_progress: Callable[[str], None] = lambda _: None) -> list[str]:
    """What keeps this machine from playing rollouts of `config`, one sentence each.

    Missing images are pulled, with `on_progress` told of it. Empty for the local sandbox, which needs nothing.
    """
    if config.sandbox_config.kind != "docker":
        return []
    return asyncio.run(_engine_problems(config, on_progress))


async def _engine_problems(config: RunConfig, on_progress: Callable[[str], None]) -> list[str]:
    environments: dict[str, list[str]] = {}
    for environment in config.environments:
        environments.setdefault(environment.docker_image, []).append(environment.id)
    try:
        async with open_engine() as engine:
            problems = [await _image_problem(engine, image, on_progress) for image in environments]
    except SandboxError as error:
        return [str(error)]
    return [
        f"docker_image of {', '.join(ids)}: {problem}"
        for ids, problem in zip(environments.values(), problems, strict=True)
        if problem
    ]


async def _image_problem(engine: Engine, image: str, on_progress: Callable[[str], None]) -> str | None:
    try:
        await ensure_image(engine, image, on_progress)
        await check_shell(engine, image)
    except SandboxError as error:
        return str(error)
    return None

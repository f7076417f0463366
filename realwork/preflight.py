"""What must be there before a run starts: an engine that answers, and images with a shell.

Runs on any node; says what is wrong in sentences and starts no container.
"""

import asyncio
from collections.abc import Callable, Mapping

from realwork.config import RunConfig
from realwork.errors import SandboxError
from realwork.sandbox.engine import Engine, open_engine
from realwork.sandbox.image import check_shell, ensure_image


def images_needed(config: RunConfig) -> dict[str, str]:
    """Each image that the sandboxes of `config` are made of, and the ids of its environments; local ones need none."""
    if config.sandbox_config.kind != "docker":
        return {}
    images: dict[str, list[str]] = {}
    for environment in config.environments:
        images.setdefault(environment.docker_image, []).append(environment.id)
    return {image: ", ".join(ids) for image, ids in images.items()}


def engine_problems(images: Mapping[str, str], on_progress: Callable[[str], None] = lambda _: None) -> list[str]:
    """What keeps this machine from making containers of `images_needed`, one sentence each.

    Missing images are pulled, with `on_progress` told of it.
    """
    return asyncio.run(_engine_problems(images, on_progress)) if images else []


async def _engine_problems(images: Mapping[str, str], on_progress: Callable[[str], None]) -> list[str]:
    try:
        async with open_engine() as engine:
            problems = {image: await _image_problem(engine, image, on_progress) for image in images}
    except SandboxError as error:
        return [str(error)]
    return [f"docker_image of {images[image]}: {problem}" for image, problem in problems.items() if problem]


async def _image_problem(engine: Engine, image: str, on_progress: Callable[[str], None]) -> str | None:
    try:
        await ensure_image(engine, image, on_progress)
        await check_shell(engine, image)
    except SandboxError as error:
        return str(error)
    return None

"""The images of an engine, listed and removed while others remove some, too.

Guarantees: an image that somebody else has just removed counts as removed; what the engine cannot do because an image
goes at that very moment is tried again, `TRIES` times in all.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from docker.errors import APIError, ImageNotFound, NotFound

from realwork.sandbox.engine import Engine, EngineClient

T = TypeVar("T")

TRIES = 3
PAUSE_S = 0.2


async def list_images(engine: Engine, doing: str, **wanted: Any) -> list[dict[str, Any]]:
    """What the engine says of its images, those that are `wanted` in the words of the SDK.

    Raises:
        SandboxError: the engine does not answer, or refused again and again.
    """
    work = partial(engine.client.images, **wanted)
    found: list[dict[str, Any]] = await engine.call(doing, partial(persist, work))
    return found


def remove_image(client: EngineClient, name: str) -> None:
    """Remove an image, or one of its names, but not what it was made of; not an error: that there is none. Blocks.

    Raises:
        APIError: the engine refused.
    """

    def work() -> None:
        try:
            client.remove_image(name, noprune=True)
        except NotFound:
            return
        except APIError as error:
            if not error.is_server_error() or _is_here(client, name):
                raise

    persist(work)


def persist(work: Callable[[], T]) -> T:
    """What `work` returns, which is tried again when the engine fails at it; what it refuses stays refused. Blocks."""
    for _ in range(TRIES - 1):
        try:
            return work()
        except APIError as error:
            if not error.is_server_error():
                raise
            time.sleep(PAUSE_S)
    return work()


def _is_here(client: EngineClient, name: str) -> bool:
    try:
        client.inspect_image(name)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return False
    return True

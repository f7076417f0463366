"""Images: whether the engine has one, how it gets one, whether commands can be run in it.

Guarantees: an image that is present is never pulled; one that is missing is pulled once, however many ask at the same
time through one `Engine`.
"""

import asyncio
import threading
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from docker.errors import ImageNotFound, NotFound

from realwork.errors import ImageError, SandboxError
from realwork.sandbox import labels
from realwork.sandbox.engine import Engine, EngineClient
from realwork.sandbox.refusals import NoAnswer
from realwork.sandbox.shelf import persist
from realwork.types import Record

OWN_IMAGES = "realwork/base:"
"""Made on this machine, never pulled: in a public registry the name may be anybody's."""
REMEDY = "check its name, log in to its registry, or load it into the engine with `docker load`"
PULL_S = 3600.0
CHECK_S = 60.0


class ImageFacts(Record):
    """An image on the engine.

    Attributes:
        image_id: its content id.
        has_volumes: whether parts of its containers' file systems are volumes, which no commit contains.
    """

    image_id: str
    has_volumes: bool


async def ensure_image(
    engine: Engine, image: str, on_progress: Callable[[str], None] = lambda _line: None
) -> ImageFacts:
    """What there is to know of `image`, which is pulled if the engine does not have it.

    `on_progress` gets a line for each stage of each layer, in this event loop.

    Raises:
        ImageError: it cannot be had; the message says what the engine answered and what to do.
        SandboxError: the engine does not answer.
    """
    async with engine.lock(image):
        found = await inspect_image(engine, image)
        if found is None and not can_be_pulled(image):
            raise ImageError(f"The engine does not have the image {image}: run cluster/setup.sh (or make setup)")
        if found is None:
            await _pull(engine, image, on_progress)
            found = await inspect_image(engine, image)
    if found is None:
        raise ImageError(f"The image {image} was pulled, but the engine does not have it under this name")
    return ImageFacts(image_id=found["Id"], has_volumes=bool(found["Config"].get("Volumes")))


def can_be_pulled(image: str) -> bool:
    """Whether a registry may have `image`."""
    return not image.startswith(OWN_IMAGES)


async def check_shell(engine: Engine, image: str) -> None:
    """Make sure that `image` has a `/bin/sh`, without running anything of it.

    Raises:
        ImageError: it has none, or is not on the engine.
    """
    await engine.call_within(CHECK_S, f"looking for /bin/sh in {image}", partial(_look_for_shell, engine.client, image))


def _look_for_shell(client: EngineClient, image: str) -> None:
    container_id = client.create_container(
        image,
        name=f"realwork-check-{uuid.uuid4().hex[:12]}",
        entrypoint=["/bin/sh"],
        labels=labels.own_labels(CHECK_S),
        network_disabled=True,
    )["Id"]
    try:
        chunks, _ = client.get_archive(container_id, "/bin/sh")
        for _ in chunks:
            pass
    except ImageNotFound:
        raise
    except NotFound as error:
        raise ImageError(f"The image {image} has no /bin/sh, which every command needs; take another image") from error
    finally:
        client.remove_container(container_id, force=True, v=True)


async def inspect_image(engine: Engine, image: str) -> dict[str, Any] | None:
    """What the engine says of an image, null when it does not have it."""
    try:
        look = partial(engine.client.inspect_image, image)
        found: dict[str, Any] = await engine.call(f"looking for the image {image}", partial(persist, look))
    except ImageError:
        return None
    return found


async def layers(engine: Engine, image: str) -> frozenset[str]:
    """The layers of an image, each by the digest of its tar; none if the engine does not have it.

    Raises:
        SandboxError: the engine does not answer.
    """
    found = await inspect_image(engine, image)
    return frozenset(((found or {}).get("RootFS") or {}).get("Layers") or ())


async def _pull(engine: Engine, image: str, on_progress: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    stop = threading.Event()

    def report(line: str) -> None:
        loop.call_soon_threadsafe(on_progress, line)

    work = partial(_pull_blocking, engine.client, image, report, stop)
    try:
        await engine.call_within(PULL_S, f"pulling {image}", work)
    except NoAnswer:
        raise
    except SandboxError as error:
        raise ImageError(f"The image {image} cannot be had: {error}; {REMEDY}") from error
    finally:
        stop.set()


def _pull_blocking(client: EngineClient, image: str, report: Callable[[str], None], stop: threading.Event) -> None:
    tag = None if "@" in image or ":" in image.rpartition("/")[2] else "latest"
    events = client.pull(image, tag=tag, stream=True, decode=True)
    said: dict[str, str] = {}
    for event in events:
        if stop.is_set():
            events.close()
            return
        if "error" in event:
            raise ImageError(str(event["error"]))
        layer, status = str(event.get("id", "")), str(event.get("status", ""))
        if said.get(layer) != status:
            said[layer] = status
            report(f"{image}: {layer} {status}".replace("  ", " "))

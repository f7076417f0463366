"""The prepared images that the engine keeps: which there are, and how they are removed.

Guarantees: an image is touched only under the very name that its own label gives it, so never one that somebody made
from a prepared image; one that a container uses stays.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from realwork.errors import SandboxError
from realwork.sandbox import prepared
from realwork.sandbox.engine import Engine
from realwork.sandbox.image import inspect_image
from realwork.types import Record

REMOVE_S = 55.0


class PreparedImage(Record):
    """A prepared image on the engine.

    Attributes:
        environment: the one that it was first made for.
        base: the image that it was made of; `is_stale` if that name now stands for another image, or none.
        added_bytes: what it takes beside its base.
        containers: how many there are of it, in any state.
    """

    name: str
    environment: str
    base: str
    added_bytes: int
    created_at: datetime
    last_used_at: datetime
    containers: int
    is_stale: bool


async def prepared_images(engine: Engine) -> list[PreparedImage]:
    """Every prepared image on the engine, the one used last first.

    Raises:
        SandboxError: the engine does not answer.
    """
    client = engine.client
    images = await engine.call("listing images", client.images, filters={"label": prepared.PREPARED})
    containers = await engine.call("listing containers", client.containers, all=True)
    in_use = Counter(str(each["ImageID"]) for each in containers)
    found = [await _described(engine, each, in_use) for each in images if _own_name(each) in (each["RepoTags"] or ())]
    return sorted((each for each in found if each), key=lambda each: each.last_used_at, reverse=True)


async def prune(engine: Engine, *, unused_for: timedelta = timedelta(0)) -> list[PreparedImage]:
    """Remove the prepared images that no container uses and nobody has used for `unused_for`; what was removed.

    A run that still needs one makes it again.

    Raises:
        SandboxError: the engine does not answer.
    """
    unneeded = prunable(await prepared_images(engine), datetime.now(UTC) - unused_for)
    return [each for each in unneeded if await remove(engine, each)]


def prunable(images: Iterable[PreparedImage], before: datetime) -> list[PreparedImage]:
    """Those of `images` that no container uses and whose last use was `before`."""
    return [each for each in images if not each.containers and each.last_used_at <= before]


async def remove(engine: Engine, image: PreparedImage) -> bool:
    """Remove an image by its name; false if the engine refused, because a container has come to use it."""
    work = partial(engine.client.remove_image, image.name, force=False, noprune=False)
    try:
        await engine.call_within(REMOVE_S, f"removing {image.name}", work)
    except SandboxError:
        return False
    return True


def _own_name(image: dict[str, Any]) -> str:
    return prepared.image_name(image["Labels"][prepared.PREPARED])


async def _described(engine: Engine, image: dict[str, Any], in_use: Counter[str]) -> PreparedImage | None:
    """Null if it was removed meanwhile."""
    name, labels = _own_name(image), image["Labels"]
    found = await inspect_image(engine, name)
    if found is None:
        return None
    base = await inspect_image(engine, labels[prepared.BASE])
    history = await engine.call(f"asking for the size of {name}", engine.client.history, name)
    return PreparedImage(
        name=name,
        environment=labels[prepared.ENVIRONMENT],
        base=labels[prepared.BASE],
        added_bytes=int(history[0]["Size"]),  # of the newest layer, which the commit added
        created_at=datetime.fromisoformat(found["Created"]),
        last_used_at=prepared.last_used(found),
        containers=in_use[str(found["Id"])],
        is_stale=base is None or base["Id"] != labels[prepared.BASE_ID],
    )

"""The prepared images that the engine keeps: which there are, and how they are removed.

Guarantees: an image is touched only under the very name that its own label gives it, so never one that somebody made
from a prepared image; one that a container uses, or that an image has been made of, stays and keeps its name.
"""

import shutil
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from realwork.errors import ImageError, SandboxError
from realwork.sandbox import prepared
from realwork.sandbox.engine import UNIX, Engine
from realwork.sandbox.image import inspect_image
from realwork.sandbox.shelf import list_images, persist, remove_image
from realwork.types import Record

REMOVE_S = 55.0
WATERMARK = 0.85
UNUSED_FOR = timedelta(days=30)
SHORTEST_REST = timedelta(hours=1)
"""What was used since then is not removed to make room."""


class PreparedImage(Record):
    """A prepared image on the engine.

    Attributes:
        environment: the one that it was first made for.
        base: the image that it was made of; `is_stale` if that name now stands for another image, or none.
        added_bytes: what it takes beside its base.
        containers: how many there are of it, in any state.
        descendants: how many images were made of it, such as snapshots; without it they would still hold its files.
    """

    name: str
    environment: str
    base: str
    added_bytes: int
    created_at: datetime
    last_used_at: datetime
    containers: int
    descendants: int
    is_stale: bool


async def prepared_images(engine: Engine) -> list[PreparedImage]:
    """Every prepared image on the engine, the one used last first.

    Raises:
        SandboxError: the engine does not answer.
    """
    client = engine.client
    images = await list_images(engine, "listing images", filters={"label": prepared.PREPARED})
    containers = await engine.call("listing containers", client.containers, all=True)
    in_use = Counter(str(each["ImageID"]) for each in containers)
    born = await _descendants(engine)
    own = [each for each in images if _own_name(each) in (each["RepoTags"] or ())]
    found = [await _described(engine, each, in_use, born) for each in own]
    return sorted((each for each in found if each), key=lambda each: each.last_used_at, reverse=True)


async def prune(engine: Engine, *, unused_for: timedelta = timedelta(0)) -> list[PreparedImage]:
    """Remove the prepared images that nothing uses and nobody has used for `unused_for`; what was removed.

    A run that still needs one makes it again.

    Raises:
        SandboxError: the engine does not answer.
    """
    unneeded = prunable(await prepared_images(engine), datetime.now(UTC) - unused_for)
    return [each for each in unneeded if await remove(engine, each)]


async def tidy(
    engine: Engine, *, unused_for: timedelta = UNUSED_FOR, watermark: float = WATERMARK
) -> list[PreparedImage]:
    """Remove the prepared images that nobody has used for `unused_for`, and more to make room; what was removed.

    As long as the disk of the engine's data is fuller than `watermark`, a share of it, the one used least recently
    goes, but none that was used within `SHORTEST_REST`; nothing goes for that where this disk cannot be seen.

    Raises:
        SandboxError: the engine does not answer.
    """
    now = datetime.now(UTC)
    rested = prunable(await prepared_images(engine), now - SHORTEST_REST)
    old = prunable(rested, now - unused_for)
    removed = [each for each in old if await remove(engine, each)]
    directory = await data_directory(engine)
    for image in sorted((each for each in rested if each not in old), key=lambda each: each.last_used_at):
        if directory is None or await _fullness(engine, directory) <= watermark:
            break
        if await remove(engine, image):
            removed.append(image)
    return removed


async def data_directory(engine: Engine) -> Path | None:
    """Where the engine keeps its images, null if that is not on this machine, or cannot be seen.

    Raises:
        SandboxError: the engine does not answer.
    """
    found = await engine.call("asking where images are kept", engine.client.info)
    directory = Path(found["DockerRootDir"])
    is_near = engine.client.address.startswith(UNIX)
    return directory if is_near and await engine.call(f"looking for {directory}", _is_visible, directory) else None


def _is_visible(directory: Path) -> bool:
    try:
        return directory.is_dir()
    except PermissionError:
        return False


async def _fullness(engine: Engine, directory: Path) -> float:
    disk = await engine.call(f"measuring the disk of {directory}", shutil.disk_usage, directory)
    return disk.used / (disk.used + disk.free)  # as `df` does, which leaves out what root alone may use


def prunable(images: Iterable[PreparedImage], before: datetime) -> list[PreparedImage]:
    """Those of `images` that no container uses, no image was made of and whose last use was `before`."""
    unused = [each for each in images if not each.containers and not each.descendants]
    return [each for each in unused if each.last_used_at <= before]


async def remove(engine: Engine, image: PreparedImage) -> bool:
    """Remove an image by its name; false if a container uses it, an image was made of it, or the engine refused."""
    work = partial(remove_image, engine.client, image.name)
    try:
        found = await inspect_image(engine, image.name)
        if found is not None and (await _descendants(engine))[str(found["Id"])]:
            return False  # the engine would take the name only
        await engine.call_within(REMOVE_S, f"removing {image.name}", work)
    except SandboxError:
        return False
    return True


def _own_name(image: dict[str, Any]) -> str:
    return prepared.image_name(image["Labels"][prepared.PREPARED])


async def _descendants(engine: Engine) -> Counter[str]:
    """How many images with a name or without one were made of each image, by its id."""
    images = await list_images(engine, "listing all images", all=True)
    parents = {str(each["Id"]): str(each.get("ParentId") or "") for each in images}
    count: Counter[str] = Counter()
    for image_id in parents:
        ancestor = image_id
        while ancestor := parents.get(ancestor, ""):
            count[ancestor] += 1
    return count


async def _described(
    engine: Engine, image: dict[str, Any], in_use: Counter[str], descendants: Counter[str]
) -> PreparedImage | None:
    """Null if it was removed meanwhile."""
    name, labels = _own_name(image), image["Labels"]
    found = await inspect_image(engine, name)
    if found is None:
        return None
    base = await inspect_image(engine, labels[prepared.BASE])
    look = partial(engine.client.history, name)
    try:
        history = await engine.call(f"asking for the size of {name}", partial(persist, look))
    except ImageError:
        return None
    return PreparedImage(
        name=name,
        environment=labels[prepared.ENVIRONMENT],
        base=labels[prepared.BASE],
        added_bytes=int(history[0]["Size"]),  # of the newest layer, which the commit added
        created_at=datetime.fromisoformat(found["Created"]),
        last_used_at=prepared.last_used(found),
        containers=in_use[str(found["Id"])],
        descendants=descendants[str(found["Id"])],
        is_stale=base is None or base["Id"] != labels[prepared.BASE_ID],
    )

"""Snapshots of containers: the files of one as an image of its engine, and how such images go again.

Guarantees: a container stands still for as long as the copy takes, but no longer than `SNAPSHOT_S`; a snapshot takes no
more of the disk than `MOST_BYTES`; the values of the container's variables do not stand in the configuration of the
image; only images with our snapshot label are ever removed, and never what they were made of; a snapshot that nobody
waits for any more is removed.
"""

import logging
import math
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from realwork.errors import SandboxError
from realwork.sandbox import containers, labels
from realwork.sandbox.engine import Engine, EngineClient
from realwork.sandbox.image import inspect_image
from realwork.sandbox.refusals import NoAnswer
from realwork.sandbox.shelf import list_images, remove_image
from realwork.types import Snapshot

log = logging.getLogger(__name__)

SNAPSHOT = "realwork.snapshot"
"""The label of every snapshot: `TEMPORARY`, or `KEPT` for one that stays until everything is asked for."""
TEMPORARY = "temporary"
KEPT = "kept"
REPOSITORY = "realwork/snapshot"
MOST_BYTES = 1 << 30
"""Of a snapshot, so that the copies do not take the disk from others; the engine writes the holes of a sparse file out,
and a file of 1 TB costs an agent nothing."""
SNAPSHOT_S = 30.0
REMOVE_S = 30.0


async def take(
    engine: Engine,
    container_id: str,
    *,
    variables: Sequence[str],
    lifetime_s: float,
    keep: bool,
    timeout_s: float = SNAPSHOT_S,
) -> Snapshot | None:
    """The files of the container as they are now; null when parts of them lie in volumes, which no image can hold.

    Args:
        variables: names of environment variables whose values may be secret.
        lifetime_s: after so many seconds the garbage collection may remove it, unless it is to be kept.

    Raises:
        SandboxLost: the container is gone.
        SandboxError: it would be larger than `MOST_BYTES`, or the engine refused or did not come to an end in time;
            the container goes on.
    """
    found = await containers.inspect(engine, container_id)
    if found.get("Mounts"):
        log.info("No snapshot: parts of the container's files lie in volumes")
        return None
    own = {
        SNAPSHOT: KEPT if keep else TEMPORARY,
        labels.DEADLINE: str(math.ceil(time.time() + lifetime_s)),
        labels.OWNER: "",  # the process that took it may die before another one restores it
        labels.LEASE: "",
    }
    conf = {"Env": [f"{name}=" for name in variables], "Labels": own}
    taken_at = datetime.now(UTC)
    work = partial(_commit, engine.client, container_id, conf)
    try:
        image_id, size_bytes = await engine.call_within(
            timeout_s, "taking a snapshot", work, lambda made: _discard(engine.client, made[0])
        )
    except NoAnswer:
        await _let_go_on(engine, container_id)
        raise
    return Snapshot(id=image_id, taken_at=taken_at, size_bytes=size_bytes)


async def is_here(engine: Engine, snapshot_id: str) -> bool:
    """Whether the engine has this snapshot.

    Raises:
        SandboxError: the engine does not answer.
    """
    return await inspect_image(engine, snapshot_id) is not None


async def remove(engine: Engine, snapshot_id: str) -> None:
    """Remove a snapshot, but not the image that it was made of; not an error: that there is none.

    Raises:
        SandboxError: it is in use, or the engine does not answer.
    """
    work = partial(remove_image, engine.client, snapshot_id)
    await engine.call_within(REMOVE_S, f"removing snapshot {snapshot_id}", work)


async def remove_all(
    engine: Engine, *, run_id: str | None = None, rollout_id: str | None = None, which: Callable[[dict[str, str]], bool]
) -> tuple[list[str], list[str]]:
    """Remove the snapshots, of a run or a rollout or all of them, whose labels fit.

    The names of those removed, and of temporary ones that stay. One that cannot be removed is logged and stays.

    Raises:
        SandboxError: the engine does not answer.
    """
    wanted = [SNAPSHOT]
    wanted += [f"{labels.RUN}={run_id}"] if run_id is not None else []
    wanted += [f"{labels.ROLLOUT}={rollout_id}"] if rollout_id is not None else []
    found = await list_images(engine, "listing snapshots", filters={"label": wanted})
    removed: list[str] = []
    kept: list[str] = []
    for image in _newest_first(found):
        name = next((tag for tag in image.get("RepoTags") or () if tag.startswith(f"{REPOSITORY}:")), None)
        if name is None:  # somebody's own, made of a snapshot, with its labels
            continue
        if which(image["Labels"]) and await _removed(engine, name):
            removed.append(name)
        elif image["Labels"][SNAPSHOT] == TEMPORARY:
            kept.append(name)
    return removed, kept


def _newest_first(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`found` in an order in which the engine removes them: each before the one it is made of, in whatever second."""
    by_id = {image["Id"]: image for image in found}

    def age(image: dict[str, Any]) -> int:
        parent = by_id.get(image["ParentId"])
        return 0 if parent is None else age(parent) + 1

    return sorted(found, key=age, reverse=True)


def is_temporary_of(driver: str) -> Callable[[dict[str, str]], bool]:
    """Whether labels are those of a temporary snapshot of that driver's run."""
    return lambda found: found[SNAPSHOT] == TEMPORARY and found.get(labels.DRIVER, "") == driver


def is_abandoned(found: dict[str, str]) -> bool:
    """Whether labels are those of a temporary snapshot that no living run can want any more."""
    return found[SNAPSHOT] == TEMPORARY and labels.is_abandoned(found)


def _commit(client: EngineClient, container_id: str, conf: dict[str, Any]) -> tuple[str, int]:
    """Id and size of the new image; the container is paused meanwhile, so that its size stays as it was measured.

    The pause of the engine's own commit begins too late for that: a file of 1 TB comes up within a millisecond, and no
    commit that has begun can be stopped.
    """
    client.pause(container_id)
    try:
        size_bytes = client.written_bytes(container_id)
        if size_bytes > MOST_BYTES:
            raise SandboxError(f"A snapshot of {size_bytes >> 20} MiB is refused; at most {MOST_BYTES >> 20} are taken")
        made = client.commit(container_id, REPOSITORY, uuid.uuid4().hex[:12], pause=False, conf=conf)
    finally:
        with suppress(APIError):  # `take` has waited long enough, or the container is gone
            client.unpause(container_id)
    return str(made["Id"]), size_bytes


def _discard(client: EngineClient, image_id: str) -> None:
    """Remove, in the thread that took it, a snapshot that nobody waits for any more."""
    try:
        remove_image(client, image_id)
    except (DockerException, RequestException) as error:
        log.warning("Snapshot %s is left for the garbage collection: %s", image_id, error)


async def _removed(engine: Engine, image_id: str) -> bool:
    try:
        await remove(engine, image_id)
    except SandboxError as error:
        log.warning("Snapshot %s cannot be removed: %s", image_id, error)
        return False
    return True


async def _let_go_on(engine: Engine, container_id: str) -> None:
    """End the pause of a container whose copy takes too long."""
    try:
        await engine.call("letting a container go on", engine.client.unpause, container_id)
    except SandboxError as error:
        log.info("The container was not paused any more: %s", error)

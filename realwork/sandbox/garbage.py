"""Removes what its owner can no longer remove.

Guarantees: only a container with our owner label and name, or an image with our snapshot label and name, is ever
touched; one whose owner lives stays, unless its deadline is past or everything is asked for.
"""

import logging
from typing import Any

from realwork.errors import SandboxError
from realwork.sandbox import containers, labels, snapshots
from realwork.sandbox.engine import Engine
from realwork.types import Record

log = logging.getLogger(__name__)


class GarbageReport(Record):
    """Names of containers and snapshots of ours: which were removed, and which stay because they may be needed."""

    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


async def collect_garbage(engine: Engine, *, everything: bool = False, run_id: str | None = None) -> GarbageReport:
    """Remove containers and snapshots whose owner is dead or whose deadline is past; with `everything`, all of ours.

    With `run_id`, only those of that run are looked at. What cannot be removed is logged and counts as kept.

    Raises:
        SandboxError: the engine does not answer.
    """
    wanted = [labels.OWNER] if run_id is None else [labels.OWNER, f"{labels.RUN}={run_id}"]
    found: list[dict[str, Any]] = await engine.call(
        "listing containers", engine.client.containers, all=True, filters={"label": wanted}
    )
    removed: list[str] = []
    kept: list[str] = []
    for container in found:
        if not labels.is_own(container):
            continue
        name = str((container.get("Names") or [container["Id"]])[0]).lstrip("/")
        gone = everything or labels.is_abandoned(container["Labels"])
        (removed if gone and await _removed(engine, container["Id"], name) else kept).append(name)
    images = await snapshots.remove_all(
        engine, run_id=run_id, which=lambda found: everything or snapshots.is_abandoned(found)
    )
    return GarbageReport(removed=(*removed, *images[0]), kept=(*kept, *images[1]))


async def _removed(engine: Engine, container_id: str, name: str) -> bool:
    try:
        await containers.remove_by_id(engine, container_id)
    except SandboxError as error:
        log.warning("Container %s cannot be removed: %s", name, error)
        return False
    return True

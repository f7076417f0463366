"""The life of a container of ours: create, start, remove.

Guarantees: it is named and labelled before it exists; only a container with the lease of this very opening is removed
by name; removal is tried until the engine knows the container no more, for a bounded time, and never raises; what it
leaves is tried again in the background as long as there is a connection to the engine.
"""

import asyncio
import logging
import math
import time
from functools import partial
from typing import Any

from docker.errors import DockerException
from docker.types import LogConfig, Ulimit
from requests.exceptions import RequestException

from realwork.errors import ImageError, SandboxError, SandboxLost
from realwork.sandbox import labels, scripts
from realwork.sandbox.abilities import abilities
from realwork.sandbox.base import SandboxSpec
from realwork.sandbox.engine import Engine
from realwork.sandbox.first_shell import FirstShell
from realwork.sandbox.refusals import NameInUse, NoAnswer

log = logging.getLogger(__name__)

OPEN_FILES = 8192
"""Not above what engines themselves are started with."""
CREATE_S = 55.0
START_S = 55.0
REMOVE_S = 10.0
"""With the 10 s of `uncancelled`, less than an episode may overrun its deadline."""
RETRY_S = 5.0
LONGEST_RETRY_S = 60.0


class Container:
    """One container of ours, from before it exists until after it is gone; with a `first_shell` if there is one."""

    def __init__(self, engine: Engine, spec: SandboxSpec, first_shell: FirstShell | None = None) -> None:
        self._engine = engine
        self._spec = spec
        self._first_shell = first_shell
        self._labels = labels.own_labels(spec.deadline_s)
        self._id: str | None = None
        self._may_exist = False

    async def create(self) -> None:
        """Create it; one of the same name whose owner is dead makes way.

        Raises:
            ImageError: the image is missing.
            NameInUse: the name belongs to somebody else.
            SandboxError: the engine refused.
        """
        try:
            await self._create()
        except NameInUse:
            if not await _evict(self._engine, self._spec.name):
                raise
            await self._create()

    async def start(self) -> None:
        """Start what was created, its streams attached if it has a first shell.

        Raises:
            ImageError: the image has no `/bin/sh`.
            SandboxError: the engine refused, for example a network that does not exist.
        """
        if self._first_shell is not None:
            await self._first_shell.attach(self._id or self._spec.name)
        work = partial(self._engine.client.start, self._id or self._spec.name)
        try:
            await self._engine.call_within(START_S, f"starting container {self._spec.name}", work)
        except SandboxError as error:
            if "/bin/sh" in str(error) and "no such file" in str(error):
                raise ImageError(f"The image {self._spec.image} has no /bin/sh, which every command needs") from error
            raise

    async def inspect(self) -> dict[str, Any]:
        """What the engine says of it."""
        return await inspect(self._engine, self._id or self._spec.name)

    async def remove(self) -> None:
        """Remove it, if it exists; after a failure, which is logged, that is tried again in the background."""
        is_removed = False
        try:
            is_removed = await self._is_removed(logging.WARNING)
        finally:
            if not is_removed:
                self._engine.in_background(self._remove_later())

    async def _is_removed(self, level: int) -> bool:
        """Whether it could be removed, in a bounded time; if not, that is logged at `level`."""
        try:
            async with asyncio.timeout(REMOVE_S):
                while self._may_exist and self._id is None:
                    await self._find()
                if self._id is not None:
                    await remove_by_id(self._engine, self._id)
        except (SandboxError, TimeoutError) as error:
            said = str(error) or f"no answer within {REMOVE_S:g} s"
            log.log(level, "Container %s is left for later, or for the garbage collection: %s", self._spec.name, said)
            return False
        return True

    async def _remove_later(self) -> None:
        """Try again and again, one container at a time, until it has ended by itself and is anybody's to remove."""
        give_up_at = time.monotonic() + self._spec.deadline_s
        pause_s = RETRY_S
        while time.monotonic() < give_up_at:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_RETRY_S)
            async with self._engine.lock("removing later"):
                if await self._is_removed(logging.INFO):
                    return

    async def _create(self) -> None:
        has_quota = (await abilities(self._engine, self._spec.image)).has_disk_quota
        token = "" if self._first_shell is None else self._first_shell.token
        work = partial(_create, self._engine, self._spec, self._labels, token, has_quota=has_quota)
        self._may_exist = True
        try:
            doing = f"creating container {self._spec.name} of {self._spec.image}"
            self._id = await self._engine.call_within(CREATE_S, doing, work, self._discard)
        except NoAnswer:
            raise
        except SandboxError:
            self._may_exist = False
            raise

    def _discard(self, container_id: str) -> None:
        """Remove, in the thread that created it, a container that nobody waits for any more."""
        try:
            self._engine.client.remove_container(container_id, force=True, v=True)
        except (DockerException, RequestException) as error:
            log.warning("Container %s is left for the garbage collection: %s", self._spec.name, error)

    async def _find(self) -> None:
        """Look for a container whose creation was not confirmed; by its lease, as the name may be somebody else's."""
        try:
            found = await self.inspect()
        except SandboxLost:
            found = {}
        if found and _labels(found).get(labels.LEASE) == self._labels[labels.LEASE]:
            self._id = str(found["Id"])
        else:
            await asyncio.sleep(0.5)


async def remove_by_id(engine: Engine, container_id: str, timeout_s: float = REMOVE_S) -> None:
    """Kill and remove a container, whatever state it is in; not an error: that there is none.

    Raises:
        SandboxError: it is still there after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    work = partial(engine.client.remove_container, container_id, force=True, v=True)
    pause = 0.05
    while True:
        left = max(deadline - time.monotonic(), 1.0)
        try:
            await engine.call_within(left, f"removing container {container_id[:12]}", work)
            return
        except SandboxLost:
            return
        except SandboxError:
            if time.monotonic() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, 1.0)


async def inspect(engine: Engine, name: str) -> dict[str, Any]:
    """What the engine says of a container.

    Raises:
        SandboxLost: there is none of that name or id.
    """
    return await engine.call(f"looking at container {name}", engine.client.inspect_container, name)


def _create(engine: Engine, spec: SandboxSpec, own: dict[str, str], token: str, *, has_quota: bool) -> str:
    memory = spec.memory_mib << 20
    half_in_memory = {"/tmp": f"exec,mode=1777,size={memory // 2}"}
    host = engine.client.create_host_config(
        network_mode=spec.network,
        cap_drop=["ALL"],
        cap_add=list(spec.capabilities),
        security_opt=["no-new-privileges"],
        mem_limit=memory,
        memswap_limit=memory,
        nano_cpus=int(spec.cpus * 1e9),
        pids_limit=spec.pids,
        shm_size=spec.shm_mib << 20,
        ulimits=[Ulimit(name="nofile", soft=OPEN_FILES, hard=OPEN_FILES)],
        log_config=LogConfig(type=LogConfig.types.NONE),
        restart_policy={"Name": "no"},
        runtime=spec.runtime,
        read_only=spec.read_only,
        tmpfs=half_in_memory if spec.read_only and spec.working_directory != "/tmp" else None,
        storage_opt={"size": f"{spec.disk_mib}M"} if has_quota and spec.disk_mib is not None else None,
    )
    created = engine.client.create_container(
        spec.image,
        name=spec.name,
        entrypoint=["/bin/sh", "-c", scripts.FIRST_PROCESS, "sh", str(math.ceil(spec.deadline_s)), token],
        command=[],
        stdin_open=bool(token),
        user="0:0",
        working_dir=spec.working_directory,
        environment=spec.environment_variables,
        labels={**spec.labels, **own},
        volumes=[spec.working_directory] if spec.read_only else None,
        host_config=host,
    )
    return str(created["Id"])


async def _evict(engine: Engine, name: str) -> bool:
    """Remove the container of that name if it is ours and its owner is dead; whether the name is free now."""
    try:
        found = await inspect(engine, name)
    except SandboxLost:
        return True
    if not labels.is_abandoned(_labels(found)):
        return False
    await remove_by_id(engine, str(found["Id"]))
    return True


def _labels(found: dict[str, Any]) -> dict[str, str]:
    return found["Config"].get("Labels") or {}

"""Prepared images: what copied folders and init commands make of an image, committed once and kept between runs.

Guarantees: equal recipes give one image, built or fetched once per engine however many processes ask for it at the same
time; it is there whole or not at all; a builder that dies is replaced; the run file's environment variables are not
written into it, unless an init command does so.
"""

import asyncio
import hashlib
import io
import json
import logging
import tarfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from realwork.errors import NodeError, PrepareError, SandboxError, SandboxLost
from realwork.sandbox import containers, labels
from realwork.sandbox.base import Sandbox, SandboxSpec
from realwork.sandbox.docker import DockerSandbox
from realwork.sandbox.engine import Engine
from realwork.sandbox.image import inspect_image, layers
from realwork.sandbox.refusals import NameInUse
from realwork.sandbox.uncancelled import uncancelled
from realwork.types import Record

log = logging.getLogger(__name__)

REPOSITORY = "realwork/prepared"
BUILDER = "realwork-build-"
PREPARED = "realwork.prepared"
ENVIRONMENT = "realwork.environment"
BASE = "realwork.base"
BASE_ID = "realwork.base_id"
RECIPE_VERSION = 1
"""Goes up when the same recipe gives another image than before."""
DIGITS = 16
POLL_S = 0.2
COMMIT_S = 300.0
FETCH_SHARE = 0.5
"""Of the time for the image; the rest is for making it here after all."""
FAILURE = "realwork-failure"
FAILURE_BYTES = 65536
FAILURE_STAYS_S = 10 * POLL_S
"""How long a failed build stays, so that all who wait for it read why."""
USED_AGAIN_AFTER = timedelta(minutes=10)
"""A use is noted on the image when the last note is older."""


class Recipe(Record):
    """All that decides what a prepared image contains.

    Attributes:
        base_id: the content id of the image that it is made of.
        folders: digests of the copied folders, in order.
        user: whom the working directory belongs to in the end, null for root.
    """

    base_id: str
    folders: tuple[str, ...]
    init_commands: tuple[str, ...]
    init_network: str
    environment_variables: dict[str, str]
    working_directory: str
    user: str | None = None

    @property
    def digest(self) -> str:
        """What tells this recipe from every other."""
        parts = json.dumps([RECIPE_VERSION, self.model_dump()], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()

    @property
    def image(self) -> str:
        """The name of the image."""
        return image_name(self.digest)


def image_name(digest: str) -> str:
    """The name of the image of the recipe of that digest."""
    return f"{REPOSITORY}:{digest[:DIGITS]}"


Prepare = Callable[[Sandbox], Awaitable[None]]
Fetch = Callable[[Engine, str, frozenset[str]], Awaitable[bool]]
"""Whether it has brought to an engine the image of that name, those layers of which are there."""


async def ensure_prepared(
    engine: Engine,
    recipe: Recipe,
    spec: SandboxSpec,
    prepare: Prepare,
    *,
    environment_id: str,
    fetch: Fetch | None = None,
) -> str:
    """The name of the image of `recipe`; if it is missing, it is built with `prepare` in a container like `spec`.

    The name of that container is the lock: whoever can create it builds, the others wait. Who has it calls `fetch`
    first, and does not build when that has brought the image.

    Raises:
        PrepareError: `prepare` failed, here or in the process that was waited for.
        SandboxError: the engine failed, or the image was not there after the `deadline_s` of `spec`.
    """
    build = _Build(engine, recipe, spec, prepare, environment_id, fetch)
    try:
        async with asyncio.timeout(spec.deadline_s):
            while not await _is_there(engine, recipe.image):
                if not await build.goes_on_elsewhere() and await build.run():
                    break
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        raise SandboxError(f"{environment_id}: its image was not prepared within {spec.deadline_s:g} s") from error
    return recipe.image


async def _is_there(engine: Engine, image: str) -> bool:
    """Whether the engine has `image`, which counts as used now."""
    found = await inspect_image(engine, image)
    if found is None:
        return False
    if datetime.now(UTC) - last_used(found) > USED_AGAIN_AFTER:
        await note_use(engine, image)
    return True


async def note_use(engine: Engine, image: str) -> None:
    """Let a prepared image count as used now."""
    repository, tag = image.split(":")
    await engine.call(f"noting the use of {image}", engine.client.tag, image, repository, tag)


def last_used(image: dict[str, Any]) -> datetime:
    """When a use of an inspected image was last noted: the time at which it was last given its name."""
    noted = (image.get("Metadata") or {}).get("LastTagTime") or ""
    return datetime.fromisoformat(max(noted, image["Created"]))


class _Build:
    """The making of one image."""

    def __init__(
        self,
        engine: Engine,
        recipe: Recipe,
        spec: SandboxSpec,
        prepare: Prepare,
        environment_id: str,
        fetch: Fetch | None,
    ) -> None:
        self._engine = engine
        self._recipe = recipe
        self._prepare = prepare
        self._fetch = fetch
        own = {"name": BUILDER + recipe.digest[:DIGITS], "image": recipe.base_id, "network": recipe.init_network}
        unbound = {"environment_variables": {}, "read_only": False, "disk_mib": None}
        self._spec = spec.model_copy(update=own | unbound)
        self._kept_labels = {
            PREPARED: recipe.digest,
            ENVIRONMENT: environment_id,
            BASE: spec.image,
            BASE_ID: recipe.base_id,
        }

    async def goes_on_elsewhere(self) -> bool:
        """Whether another process or task builds the image now.

        Raises:
            PrepareError: it did, and failed.
        """
        try:
            found = await containers.inspect(self._engine, self._spec.name)
        except SandboxLost:
            return False
        if labels.is_abandoned(found["Config"]["Labels"] or {}):
            return False
        if found["State"]["Status"] == "exited" and (why := await self._failure(found["Id"])):
            raise PrepareError(why)
        return True

    async def run(self) -> bool:
        """Build the image; whether it was this call that built it."""
        container = containers.Container(self._engine, self._spec)
        try:
            try:
                await uncancelled(container.create())
            except NameInUse:
                return False
            if not await _is_there(self._engine, self._recipe.image) and not await self._fetched():
                await self._fill(container)
        finally:
            await uncancelled(container.remove())
        return True

    async def _fetched(self) -> bool:
        """Whether the image has come from elsewhere."""
        if self._fetch is None:
            return False
        try:
            async with asyncio.timeout(FETCH_SHARE * self._spec.deadline_s):
                known = await layers(self._engine, self._recipe.base_id)
                is_fetched = await self._fetch(self._engine, self._recipe.image, known)
        except (SandboxError, NodeError, TimeoutError) as error:
            why = str(error) or "it took too long"
            log.warning("%s is not fetched, but prepared here: %s", self._recipe.image, why)
            return False
        return is_fetched and await _is_there(self._engine, self._recipe.image)

    async def _fill(self, container: containers.Container) -> None:
        await uncancelled(container.start())
        found = await container.inspect()
        container_id = str(found["Id"])
        variables = self._recipe.environment_variables
        sandbox = DockerSandbox(
            self._engine,
            found,
            self._spec,
            with_channel=False,
            environment_variables=variables,
        )
        kill = partial(self._engine.client.kill, container_id)
        try:
            await self._prepare(sandbox)
        except PrepareError as error:
            await self._keep_failure(container_id, str(error))
            await self._engine.call("ending a failed build", kill)
            await asyncio.sleep(FAILURE_STAYS_S)
            raise
        await self._engine.call("ending a build", kill)
        await self._commit(container_id)

    async def _commit(self, container_id: str) -> None:
        """Make the image of the stopped container; its entry point and labels are the base's, not the build's."""
        base = (await inspect_image(self._engine, self._recipe.base_id) or {}).get("Config") or {}
        build_labels = {*self._spec.labels, *labels.own_labels(0)}
        config: dict[str, Any] = {
            "Entrypoint": base.get("Entrypoint") or [],
            "Cmd": base.get("Cmd") or [],
            "User": base.get("User", ""),
            "WorkingDir": base.get("WorkingDir", ""),
            "Labels": dict.fromkeys(build_labels, "") | self._kept_labels,
        }
        repository, tag = self._recipe.image.split(":")
        doing = f"committing the image of {self._kept_labels[ENVIRONMENT]}"
        commit = partial(self._engine.client.commit_container, container_id, repository, tag, config, COMMIT_S)
        await self._engine.call_within(COMMIT_S, doing, commit)

    async def _keep_failure(self, container_id: str, why: str) -> None:
        """Leave in the container, for those who wait, why it failed."""
        content = why.encode()[:FAILURE_BYTES]
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            entry = tarfile.TarInfo(FAILURE)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        put = partial(self._engine.client.put_archive, container_id, "/", buffer.getvalue())
        await self._engine.call("noting why a build failed", put)

    async def _failure(self, container_id: str) -> str | None:
        """Why the build in a stopped container failed, null if it did not, or is gone."""
        try:
            read = partial(_read_failure, self._engine, container_id)
            return await self._engine.call("asking why a build failed", read)
        except SandboxError:
            return None


def _read_failure(engine: Engine, container_id: str) -> str:
    chunks, found = engine.client.get_archive(container_id, f"/{FAILURE}")
    if found["size"] > FAILURE_BYTES:
        raise SandboxError(f"/{FAILURE} is not ours")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        content = archive.extractfile(FAILURE)
        return content.read().decode(errors="replace") if content else ""

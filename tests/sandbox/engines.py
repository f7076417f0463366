"""Prepared images on engines of the tests' own."""

import asyncio
import io
import tarfile
import time
import uuid
from pathlib import Path

from realwork.sandbox.engine import open_engine
from realwork.sandbox.handing import load, saved
from realwork.sandbox.image import layers
from realwork.sandbox.prepared import ensure_prepared

from .helpers import WORK, make_spec

MIB = 1 << 20


def remove_all(client, keep="none"):
    for image in client.images():
        for name in image["RepoTags"] or [image["Id"]]:
            if not name.startswith(keep):
                client.remove_image(name, force=True)


async def ensure(engine, recipe, *, content=b"made\n", fetch=None, deadline_s=120.0):
    """Prepare an image with a file `made`; its name, and whether it was built here."""
    built = []

    async def prepare(sandbox):
        built.append(1)
        await sandbox.write_file(f"{WORK}/made", content)

    spec = make_spec(image="tiny", deadline_s=deadline_s)
    name = await ensure_prepared(engine, recipe, spec, prepare, environment_id="e", fetch=fetch)
    return name, bool(built)


def prepare_on(private, recipe, **options):
    async def main():
        async with open_engine(private.url) as engine:
            return await ensure(engine, recipe, **options)

    return asyncio.run(main())


def archive_of(private, image, known=frozenset()):
    """The pieces of an image."""
    with private.client() as client:
        return [*saved(client, image, known)]


def load_on(private, image, pieces):
    async def main():
        async with open_engine(private.url) as engine:
            await load(engine, image, iter(pieces))

    asyncio.run(main())


def layers_on(private, image):
    async def main():
        async with open_engine(private.url) as engine:
            return await layers(engine, image)

    return asyncio.run(main())


def fetching(private, calls):
    """What brings an image from another engine, without a cluster."""

    async def fetch(engine, image, known):
        calls.append(known)
        with private.client() as client:
            await load(engine, image, saved(client, image, known))
        return True

    return fetch


def inspected(private, image):
    with private.client() as client:
        return client.inspect_image(image)


def images(private):
    with private.client() as client:
        return {image["Id"] for image in client.images(all=True)}


def settle(private):
    """Wait until the engine has removed what it has unpacked of archives."""
    folder = Path(private.url.removeprefix("unix://")).parent / "data" / "tmp"
    deadline = time.monotonic() + 20
    while any(folder.iterdir()):
        assert time.monotonic() < deadline, [*folder.iterdir()]
        time.sleep(0.05)


def starts_since(private, began):
    """How many containers have been started on an engine."""
    with private.client() as client:
        events = client.events(since=int(began), until=int(time.time()) + 1, filters={"event": "start"}, decode=True)
        return len([*events])


def add(archive, name, content):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def other(recipe):
    return recipe.model_copy(update={"init_commands": (uuid.uuid4().hex,)})

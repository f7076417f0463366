"""Images that are listed and removed while others remove the same ones."""

import asyncio
import io
import tarfile
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from realwork.errors import SandboxError
from realwork.sandbox import snapshots
from realwork.sandbox.engine import connect, open_engine
from realwork.sandbox.image import inspect_image
from realwork.sandbox.shelf import list_images, remove_image

from .helpers import IMAGE

LABEL = "realwork.test.shelf"
ROUNDS = 40
AT_ONCE = 4


@pytest.fixture
def client(private_engine):
    with private_engine.client() as client:
        yield client


def new_image(client):
    """The id and the name of an image that nobody else has."""
    made = client.create_container(IMAGE, ["true"])["Id"]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(uuid.uuid4().hex))
    client.put_archive(made, "/", buffer.getvalue())
    name = f"realwork/test-shelf:{uuid.uuid4().hex[:12]}"
    image = client.commit(made, *name.split(":"), conf={"Labels": {LABEL: "1"}})["Id"]
    client.remove_container(made)
    return image, name


def test_who_removes_an_image_that_others_remove_at_the_same_time_has_removed_it(private_engine, client):
    clients = [connect(private_engine.url) for _ in range(AT_ONCE)]

    def remove(own, name, together):
        together.wait()
        remove_image(own, name)

    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in range(ROUNDS):
                image, name = new_image(client)
                together = threading.Barrier(AT_ONCE)
                asked = (name, image, name, image)
                for removal in [pool.submit(remove, *each, together) for each in zip(clients, asked, strict=True)]:
                    removal.result()
                assert client.images(filters={"label": LABEL}) == []
    finally:
        for each in clients:
            each.close()


def test_images_are_listed_and_looked_at_while_others_remove_them(private_engine, client):
    async def scenario():
        async with open_engine(private_engine.url) as engine:
            for _ in range(ROUNDS):
                image, name = new_image(client)
                removing = asyncio.create_task(snapshots.remove(engine, name))
                while not removing.done():
                    await asyncio.gather(
                        list_images(engine, "listing", filters={"label": LABEL}),
                        list_images(engine, "listing all", all=True),
                        *(inspect_image(engine, each) for each in (image, name)),
                    )
                await removing
                assert await inspect_image(engine, image) is None

    asyncio.run(scenario())


def test_a_refusal_to_remove_is_none_that_passes(private_engine, client):
    image, name = new_image(client)
    user = client.create_container(image, ["true"])["Id"]

    async def scenario():
        async with open_engine(private_engine.url) as engine:
            with pytest.raises(SandboxError, match="container"):
                await snapshots.remove(engine, name)

    try:
        asyncio.run(scenario())
    finally:
        client.remove_container(user)
        client.remove_image(name)

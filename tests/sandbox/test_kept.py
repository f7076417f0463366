"""What goes of the prepared images, by age and when the disk is full."""

import asyncio
import hashlib
import io
import json
import os
import tarfile
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from realwork.sandbox import kept, prepared
from realwork.sandbox.engine import open_engine
from realwork.sandbox.handing import load, saved

from .engines import MIB, add, layers_on, other, settle


def old_archive(recipe, age, size=2 * MIB):
    """An image of a recipe, made that long ago, as an engine saves it."""
    layer, buffer = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        add(archive, "file", os.urandom(size))
    created = (datetime.now(UTC) - age).isoformat().replace("+00:00", "Z")
    described = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": {"Labels": {prepared.PREPARED: recipe.digest, prepared.ENVIRONMENT: "e", prepared.BASE: "tiny"}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
        "history": [{"created": created}],
    }
    described["config"]["Labels"][prepared.BASE_ID] = recipe.base_id
    manifest = [{"Config": "config.json", "RepoTags": [recipe.image], "Layers": ["layer.tar"]}]
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        add(archive, "layer.tar", layer.getvalue())
        add(archive, "config.json", json.dumps(described).encode())
        add(archive, "manifest.json", json.dumps(manifest).encode())
    return buffer.getvalue()


@contextmanager
def container_of(private, image):
    with private.client() as client:
        container_id = client.create_container(image, ["sleep", "1"])["Id"]
        try:
            yield
        finally:
            client.remove_container(container_id, force=True)


def tidied(private, **options):
    """The names of what was removed."""

    async def main():
        async with open_engine(private.url) as engine:
            return [each.name for each in await kept.tidy(engine, **options)]

    return asyncio.run(main())


def stored(private, recipe, ages, **options):
    """The names of images that were last used that many hours ago."""
    recipes = [other(recipe) for _ in ages]
    with private.client() as client:
        for each, hours in zip(recipes, ages, strict=True):
            client.load_image(old_archive(each, timedelta(hours=hours), **options))
    return [each.image for each in recipes]


def test_an_old_image_counts_as_used_when_it_has_been_handed_over(sender, target, recipe):
    with sender.client() as client:
        client.load_image(old_archive(recipe, timedelta(days=90)))

    async def main():
        async with open_engine(sender.url) as source, open_engine(target.url) as engine:
            await load(engine, recipe.image, saved(source.client, recipe.image, frozenset()))
            (there,) = [each for each in await kept.prepared_images(source) if each.name == recipe.image]
            return there, *await kept.prepared_images(engine), await kept.tidy(engine, watermark=0.0)

    there, here, removed = asyncio.run(main())
    assert here.created_at == there.created_at == there.last_used_at
    assert datetime.now(UTC) - here.last_used_at < timedelta(minutes=5)
    assert removed == []


def test_what_nobody_has_used_for_long_goes_whether_or_not_there_is_room(target, recipe):
    used, old, fresh, older = stored(target, recipe, [900, 750, 700, 800])
    with container_of(target, used):
        assert set(tidied(target, watermark=1.0)) == {old, older}
    assert tidied(target, watermark=1.0) == [used]
    assert tidied(target, watermark=1.0, unused_for=timedelta(days=2)) == [fresh]


def test_a_disk_that_is_too_full_loses_the_images_used_least_recently_but_none_of_the_last_hour(target, recipe):
    day, used, hour, week, now = stored(target, recipe, [24, 48, 2, 168, 0.5])
    with container_of(target, used):
        assert tidied(target, watermark=0.0) == [week, day, hour]
    assert tidied(target, unused_for=timedelta(0), watermark=0.0) == [used]
    assert layers_on(target, now)


def test_no_more_goes_than_makes_the_disk_as_empty_as_it_should_be(target, recipe):
    third, second, first = stored(target, recipe, [24, 48, 72], size=40 * MIB)
    settle(target)
    disk = os.statvfs(Path(target.url.removeprefix("unix://")).parent)
    fullness = 1 - disk.f_bavail / disk.f_blocks
    assert tidied(target, watermark=fullness) == []
    assert tidied(target, watermark=fullness - 60 * MIB / (disk.f_blocks * disk.f_frsize)) == [first, second]
    assert layers_on(target, third)

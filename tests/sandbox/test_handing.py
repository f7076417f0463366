"""Prepared images handed from one engine to another: whole or not at all, without what is there, used at once."""

import asyncio
import hashlib
import io
import json
import os
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from realwork.errors import ImageError, NodeError, SandboxError
from realwork.sandbox import kept
from realwork.sandbox.chunks import END
from realwork.sandbox.docker import open_container
from realwork.sandbox.engine import open_engine
from realwork.sandbox.handing import PIECE_BYTES, load, without
from realwork.sandbox.refusals import LoadRefused

from .engines import (
    MIB,
    add,
    archive_of,
    ensure,
    fetching,
    images,
    inspected,
    layers_on,
    load_on,
    other,
    prepare_on,
    remove_all,
    settle,
    starts_since,
)  # fmt: skip
from .helpers import make_spec, run


def entries(pieces):
    """Names of an archive's files, and what they contain."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive if each.isreg()}


def test_an_image_that_was_prepared_elsewhere_runs_here_without_a_container_that_builds_it(sender, target, recipe):
    prepare_on(sender, recipe)
    began, calls = time.time(), []

    async def main():
        async with open_engine(target.url) as engine:
            image, is_built = await ensure(engine, recipe, content=b"built\n", fetch=fetching(sender, calls))
            starts = starts_since(target, began)
            async with open_container(make_spec(image=image), engine=engine, with_channel=False) as sandbox:
                return is_built, starts, (await run(sandbox, "read line <made; echo $line")).stdout

    assert asyncio.run(main()) == (False, 0, b"made\n")
    there, here = inspected(sender, recipe.image), inspected(target, recipe.image)
    assert (here["Id"], here["Config"], here["RootFS"]) == (there["Id"], there["Config"], there["RootFS"])


def test_layers_that_are_there_do_not_travel(sender, target, recipe, busybox):
    prepare_on(sender, recipe, content=os.urandom(3 * MIB))
    base = layers_on(target, busybox)
    whole, rest = archive_of(sender, recipe.image), archive_of(sender, recipe.image, base)
    base_bytes = inspected(target, busybox)["Size"]
    assert base_bytes > MIB
    assert sum(map(len, whole)) - sum(map(len, rest)) > base_bytes
    assert 3 * MIB < sum(map(len, rest)) < 4 * MIB
    load_on(target, recipe.image, rest)
    assert layers_on(target, recipe.image) == layers_on(sender, recipe.image) > base


def test_a_large_image_comes_in_pieces_that_are_not(sender, recipe):
    prepare_on(sender, recipe, content=os.urandom(20 * MIB))
    for known in (frozenset(), layers_on(sender, recipe.base_id)):
        *full, last = map(len, archive_of(sender, recipe.image, known))
        assert set(full) == {PIECE_BYTES}
        assert 0 < last <= PIECE_BYTES


@pytest.mark.parametrize("form", ["one folder a layer", "OCI layout"])
def test_of_both_forms_of_an_archive_everything_but_known_layers_is_passed_on(form):
    known, unknown = os.urandom(2 * MIB), os.urandom(2 * MIB + 1)
    digests = [hashlib.sha256(each).hexdigest() for each in (known, unknown)]
    names = [f"blobs/sha256/{each}" if form == "OCI layout" else f"{each[:12]}/layer.tar" for each in digests]
    rest = {"oci-layout": b"{}", f"blobs/sha256/{'c' * 64}": b"config", "index.json": b"{}", "manifest.json": b"[{}]"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in {names[0]: known, names[1]: unknown, **rest}.items():
            add(archive, name, content)
        link = tarfile.TarInfo("again/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, f"../{names[1]}"
        archive.addfile(link)
    chunks = [buffer.getvalue()[at : at + 1000] for at in range(0, len(buffer.getvalue()), 1000)]
    passed = [*without(chunks, frozenset({f"sha256:{digests[0]}"}))]
    assert entries(passed) == {names[1]: unknown, **rest}
    with tarfile.open(fileobj=io.BytesIO(b"".join(passed))) as archive:
        assert [each.name for each in archive] == [names[1], *rest, "again/layer.tar"]
        assert archive.getmember("again/layer.tar").linkname == f"../{names[1]}"


def test_an_archive_that_is_cut_off_is_none(sender, recipe):
    prepare_on(sender, recipe)
    archive = b"".join(archive_of(sender, recipe.image))
    for cut in (archive[: len(archive) // 2], archive[: -len(END)]):
        with pytest.raises((SandboxError, tarfile.TarError, EOFError)):
            list(without([cut], frozenset({"sha256:none"})))


def test_an_image_that_is_not_there_cannot_be_saved_and_has_no_layers(sender, recipe):
    with pytest.raises(ImageError, match=recipe.image):
        archive_of(sender, recipe.image)
    assert layers_on(sender, recipe.image) == frozenset()


def test_an_engine_without_the_base_refuses_what_was_left_out_and_takes_the_whole(sender, target, recipe, busybox):
    prepare_on(sender, recipe)
    base = layers_on(target, busybox)
    with target.client() as client:
        remove_all(client)
    with pytest.raises(LoadRefused, match="no such file"):
        load_on(target, recipe.image, archive_of(sender, recipe.image, base))
    assert images(target) == set()
    load_on(target, recipe.image, archive_of(sender, recipe.image))
    assert inspected(target, recipe.image)["Id"] == inspected(sender, recipe.image)["Id"]


def broken(pieces, error):
    yield from pieces
    raise error


def test_a_stream_that_breaks_is_an_error_and_leaves_nothing(sender, target, recipe):
    prepare_on(sender, recipe, content=os.urandom(3 * MIB))
    archive, before = b"".join(archive_of(sender, recipe.image)), images(target)
    half = archive[: len(archive) // 2]
    with pytest.raises(NodeError, match="the sender is gone"):
        load_on(target, recipe.image, broken([half], NodeError("the sender is gone")))
    with pytest.raises(NodeError, match="the sender is gone"):
        load_on(target, recipe.image, broken([archive], NodeError("the sender is gone")))
    with pytest.raises(SandboxError, match="EOF"):
        load_on(target, recipe.image, [half])
    assert images(target) == before
    settle(target)
    assert prepare_on(target, recipe) == (recipe.image, True)


class Unpacks(BaseHTTPRequestHandler):
    """Answers as an engine with containerd's image store, which keeps an image that it could not unpack."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self._answer({"ApiVersion": "1.44", "Version": "29.0"})

    def do_POST(self):
        while int(size := self.rfile.readline(), 16):
            self.rfile.read(int(size, 16) + 2)
        self.rfile.readline()
        self._answer({"stream": "Error unpacking image realwork/prepared:1: content digest sha256:0: not found\n"})

    def do_DELETE(self):
        self._answer([])

    def _answer(self, content):
        self.asked.append(f"{self.command} {self.path.partition('?')[0]}")
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_an_engine_that_keeps_an_image_without_its_layers_has_refused_it_and_loses_it_again():
    async def main(address):
        async with open_engine(address) as engine:
            await load(engine, "realwork/prepared:1", iter([b"tar"]))

    with ThreadingHTTPServer(("127.0.0.1", 0), Unpacks) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(LoadRefused, match="content digest sha256:0: not found"):
            asyncio.run(main(f"tcp://127.0.0.1:{server.server_port}"))
        server.shutdown()
    assert Unpacks.asked[-2:] == ["POST /v1.44/images/load", "DELETE /v1.44/images/realwork/prepared:1"]


def test_what_has_the_name_of_the_image_and_is_another_is_not_kept(sender, target, recipe):
    prepare_on(sender, recipe)
    asked = other(recipe).image
    with sender.client() as client:
        client.tag(recipe.image, *asked.split(":"))
    with pytest.raises(SandboxError, match="is another image"):
        load_on(target, asked, archive_of(sender, asked))
    assert layers_on(target, asked) == frozenset()
    with pytest.raises(SandboxError, match="is not in what was loaded"):
        load_on(target, asked, archive_of(sender, recipe.image))


def test_of_many_that_ask_at_once_one_fetches_and_the_others_wait(sender, target, recipe, busybox):
    prepare_on(sender, recipe)
    calls = []
    fetch = fetching(sender, calls)

    async def main():
        async with open_engine(target.url) as one, open_engine(target.url) as two:
            asked = [ensure(engine, recipe, fetch=fetch) for engine in (one, two) for _ in range(4)]
            return await asyncio.gather(*asked)

    assert set(asyncio.run(main())) == {(recipe.image, False)}
    assert calls == [layers_on(target, busybox)]


@pytest.mark.parametrize("failure", [SandboxError("full"), NodeError("gone"), None], ids=["engine", "node", "no"])
def test_an_image_that_cannot_be_fetched_is_built_here(target, recipe, failure):
    async def fetch(engine, image, known):
        if failure is not None:
            raise failure
        return False

    assert prepare_on(target, recipe, fetch=fetch) == (recipe.image, True)
    assert prepare_on(target, recipe, fetch=fetch) == (recipe.image, False)


def test_a_fetch_that_takes_too_long_leaves_time_to_build(target, recipe):
    async def fetch(engine, image, known):
        await asyncio.sleep(60)

    assert prepare_on(target, recipe, fetch=fetch, deadline_s=10.0) == (recipe.image, True)


def test_an_image_that_was_handed_over_stays_as_long_as_there_is_a_snapshot_of_its_container(sender, target, recipe):
    prepare_on(sender, recipe, content=os.urandom(2 * MIB))
    load_on(target, recipe.image, archive_of(sender, recipe.image))

    async def main():
        async with open_engine(target.url) as engine:
            opened = open_container(make_spec(image=recipe.image), engine=engine, with_channel=False)
            async with opened as sandbox:
                snapshot = await sandbox.snapshot(keep=True)
            (before,) = await kept.prepared_images(engine)
            is_removed = await kept.remove(engine, before)
            await sandbox.remove_snapshot(snapshot.id)
            (after,) = await kept.prepared_images(engine)
            return before, is_removed, after, await kept.remove(engine, after)

    before, is_removed, after, is_removed_now = asyncio.run(main())
    assert (before.descendants, is_removed) == (1, False)
    assert (after.descendants, is_removed_now) == (0, True)
    assert 2 * MIB <= after.added_bytes < 3 * MIB
    assert (after.containers, after.environment, after.is_stale) == (0, "e", True)

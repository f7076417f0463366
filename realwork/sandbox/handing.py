"""A prepared image on its way from one engine to another, as a stream of pieces.

Guarantees: memory is bounded whatever the size of the image, and nothing of it is unpacked on this machine; layers that
the receiver has stay where they are; what did not arrive whole leaves nothing that has the image's name.
"""

import hashlib
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial

from realwork.errors import SandboxError
from realwork.sandbox import prepared
from realwork.sandbox.chunks import END, PIECE, Chunks, content
from realwork.sandbox.engine import Engine, EngineClient
from realwork.sandbox.image import inspect_image
from realwork.sandbox.refusals import LoadRefused, translated
from realwork.sandbox.shelf import remove_image

PIECE_BYTES = 8 << 20
SMALLEST_LAYER = 1 << 20
"""A file of the stream that is not larger travels, whatever it is."""
SPOOL = "/var/tmp"
"""Where a layer waits, in a file without a name; `/tmp` may be memory."""
SILENT_S = 600.0
"""Before the engine gives the first piece it writes the whole image out."""
LOAD_S = 1800.0
REMOVE_S = 55.0


def saved(client: EngineClient, image: str, known: frozenset[str]) -> Iterator[bytes]:
    """`image` as a tar that an engine loads, in pieces of up to `PIECE_BYTES`; blocks.

    Args:
        known: layers that the receiver has, by the digests of their tars, as `image.layers` gives them; they are left
            out, unless they are small or the engine keeps them compressed.

    Raises:
        ImageError: the engine does not have the image.
        SandboxError: it does not answer, or gave no archive, or there is no place for a layer in `SPOOL`.
    """
    chunks = _read(client, image)
    try:
        yield from _cut(without(chunks, known) if known else chunks)
    except (tarfile.TarError, EOFError, ValueError, OverflowError, OSError) as error:
        raise SandboxError(f"The image {image} cannot be saved: {error}") from error


def without(chunks: Iterable[bytes], known: frozenset[str]) -> Iterator[bytes]:
    """The tar of an image as a tar again, without the files whose digest is in `known`; blocks as `chunks` do.

    Raises:
        SandboxError: the tar has no end.
        TarError: it is none.
        OSError: a layer, which waits in a file until its digest is known, cannot be written.
    """
    reader = Chunks(chunks)
    with tarfile.open(fileobj=reader, mode="r|", bufsize=PIECE) as archive:
        while (entry := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would remember every entry
            if entry.isreg() and entry.size > SMALLEST_LAYER:
                yield from _unless_known(archive, entry, known)
                continue
            yield _header(entry)
            if entry.isreg():
                yield from content(archive, entry)
    if not reader.has_end():
        raise SandboxError("The engine gave an archive without an end")
    yield END


async def load(engine: Engine, image: str, pieces: Iterator[bytes]) -> None:
    """Take the prepared `image` over from `pieces`, which may block; it counts as used now.

    Raises:
        LoadRefused: the engine wants more than there was: layers that were left out.
        SandboxError: the engine failed, or what came was not this image.
        RealworkError: as `pieces` raised it.
    """
    work = partial(engine.client.write_image, pieces, SILENT_S)
    try:
        await engine.call_within(LOAD_S, f"loading {image}", work)
    except LoadRefused:
        await _remove(engine, image)  # some engines have it nevertheless
        raise
    found = await inspect_image(engine, image)
    if found is None:
        raise SandboxError(f"{image} is not in what was loaded under its name")
    recipe = (found["Config"].get("Labels") or {}).get(prepared.PREPARED, "")
    if prepared.image_name(recipe) != image:
        await _remove(engine, image)
        raise SandboxError(f"What was loaded as {image} is another image")
    await prepared.note_use(engine, image)  # else it would count as unused since it was made


async def _remove(engine: Engine, image: str) -> None:
    await engine.call_within(REMOVE_S, f"removing {image}", partial(remove_image, engine.client, image))


def _read(client: EngineClient, image: str) -> Iterator[bytes]:
    with translated(f"saving {image}"):
        yield from client.read_image(image, SILENT_S)


def _unless_known(archive: tarfile.TarFile, entry: tarfile.TarInfo, known: frozenset[str]) -> Iterator[bytes]:
    digest = hashlib.sha256()
    left = entry.size
    with tempfile.SpooledTemporaryFile(max_size=PIECE_BYTES, dir=SPOOL) as spool:
        for piece in content(archive, entry):
            digest.update(piece[:left])
            left -= len(piece[:left])
            spool.write(piece)
        if f"sha256:{digest.hexdigest()}" in known:
            return
        yield _header(entry)
        spool.seek(0)
        while piece := spool.read(PIECE):
            yield piece


def _header(entry: tarfile.TarInfo) -> bytes:
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _cut(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of `PIECE_BYTES`, but for the last."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= PIECE_BYTES:
            yield bytes(held[:PIECE_BYTES])
            del held[:PIECE_BYTES]
    if held:
        yield bytes(held)

"""The big texts of very large rows, in files of their own beside the parts.

Guarantees: a side file is named by the SHA-256 of its content, so that it is never replaced and nothing else can stand
for it; which texts of a row lie in side files is told by the row's metadata, never by a text that an agent wrote;
`restore(split(row)) == row`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from realwork.dataset.durable import durable_file, sync_directory
from realwork.errors import StoreError
from realwork.text import shorten

SIDE_FOLDER = "side"
LARGE_ROW_BYTES = 32 << 20
"""A row with more text than that goes without its big ones."""
BIG_TEXT_BYTES = 1 << 20
HEAD_CHARACTERS = 16 << 10
_KEY = "side_files"

_LONG = ("messages", "steps", "test_results")
"""The columns whose texts may be big; what others hold is short, or JSON, of which a head and tail would be none."""

Row = dict[str, Any]
Read = Callable[[str], bytes]
Place = list[str | int]


def split(row: Row) -> tuple[Row, dict[str, bytes]]:
    """`row` without its big texts, if it is a very large one, and these by their hash; a head and tail stay."""
    long = {name: row[name] for name in _LONG}
    texts = [(place, text.encode()) for place, text in _texts(long) if len(text) > BIG_TEXT_BYTES // 4]
    if sum(len(content) for _, content in texts) <= LARGE_ROW_BYTES:
        return row, {}
    side_files, places = {}, []
    for place, content in texts:
        if len(content) > BIG_TEXT_BYTES:
            name = hashlib.sha256(content).hexdigest()
            side_files[name] = content
            places.append([name, place])
            note = f"the whole text, {len(content)} bytes, is {SIDE_FOLDER}/{name}"
            row = _replaced(row, place, shorten(content.decode(), HEAD_CHARACTERS, note=note))
    metadata = json.loads(row["metadata"]) | {_KEY: places}
    return row | {"metadata": json.dumps(metadata, ensure_ascii=False)}, side_files


def restore(row: Row, read: Read) -> Row:
    """`row` with the texts that lie in side files.

    Raises:
        StoreError: a side file is not what the row names.
    """
    if f'"{_KEY}"' not in row["metadata"]:
        return row
    metadata = json.loads(row["metadata"])
    for name, place in metadata.pop(_KEY, ()):
        content = read(name)
        if hashlib.sha256(content).hexdigest() != name:
            raise StoreError(f"{SIDE_FOLDER}/{name} is damaged: its content has another hash")
        row = _replaced(row, place, content.decode())
    return row | {"metadata": json.dumps(metadata, ensure_ascii=False)}


def write_side_file(run_directory: Path, name: str, content: bytes) -> None:
    """Put a side file on the disk, if it is not there.

    Raises:
        OSError: it cannot be written.
    """
    path = run_directory / SIDE_FOLDER / name
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    sync_directory(run_directory)
    with durable_file(path) as file:
        file.write(content)


def side_file_reader(run_directory: Path) -> Read:
    """What reads the side files of a run; it raises `StoreError` for one that is not there."""

    def read(name: str) -> bytes:
        try:
            return (run_directory / SIDE_FOLDER / name).read_bytes()
        except OSError as error:
            raise StoreError(f"{run_directory / SIDE_FOLDER / name} cannot be read: {error.strerror}") from error

    return read


def _texts(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[Place, str]]:
    match value:
        case str():
            yield [*place], value
        case dict():
            for name, item in value.items():
                yield from _texts(item, (*place, name))
        case list():
            for number, item in enumerate(value):
                yield from _texts(item, (*place, number))


def _replaced(value: Any, place: Place, text: str) -> Any:
    """A copy of `value` with `text` in that place."""
    if not place:
        return text
    first, *rest = place
    changed = _replaced(value[first], rest, text)
    if isinstance(value, dict):
        return value | {first: changed}
    return [changed if number == first else item for number, item in enumerate(value)]

"""How an export becomes a file: JSON lines or Parquet, and what is said of it.

Guarantees: the file appears whole or not at all, and not at all when nothing would stand in it; one entry, or one batch
of rows, is in memory.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from realwork.dataset.durable import durable_file
from realwork.errors import InputError, StoreError
from realwork.text import valid_unicode
from realwork.types import Record

Json = dict[str, Any]

_ROWS = 256


class Exported(Record):
    """What became of an export.

    Attributes:
        written: entries in the file.
        left_out: what does not stand in it and why, with how many there were; only what there was.
    """

    written: int
    left_out: dict[str, int] = {}


def exported(written: int, left_out: Mapping[str, int]) -> Exported:
    """The record of it, without the reasons that left nothing out."""
    return Exported(written=written, left_out={reason: count for reason, count in left_out.items() if count})


def write_json_lines(path: Path, entries: Iterable[Json], *, nothing: str) -> int:
    """Write each entry as a line of JSON; how many there were.

    Raises:
        InputError: there is no entry, which `nothing` says, or `path` is no place for a file.
        StoreError: the file cannot be written.
    """
    written = 0
    with _whole_file(path) as file:
        for entry in _some(entries, nothing):
            file.write(to_json(entry).encode() + b"\n")
            written += 1
    return written


def write_parquet(path: Path, rows: Iterable[Json], schema: pa.Schema, *, nothing: str) -> int:
    """Write the rows as one Parquet file of `schema`; how many there were.

    Raises:
        InputError: there is no row, which `nothing` says, or `path` is no place for a file.
        StoreError: the file cannot be written.
    """
    written = 0
    with _whole_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        some = _some(rows, nothing)
        while batch := list(islice(some, _ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            written += len(batch)
    return written


def to_json(value: Any) -> str:
    """`value` as one line of JSON that every reader accepts: null for a number that JSON cannot say."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False)
    return text if text.isascii() else valid_unicode(text)


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: _finite(each) for name, each in value.items()}
        case list():
            return [_finite(each) for each in value]
    return value


def _some(entries: Iterable[Json], nothing: str) -> Iterator[Json]:
    iterator = iter(entries)
    first = next(iterator, None)
    if first is None:
        raise InputError(nothing)
    return chain([first], iterator)


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is no regular file. Give a file name for the export.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with durable_file(path) as file:
            yield file
    except OSError as error:
        raise StoreError(f"{path} could not be written: {error}") from error

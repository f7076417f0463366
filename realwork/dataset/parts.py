"""Part files: their names, and how rows become one.

Guarantees: readers that look for `part-*.parquet` find complete files only; row groups are bounded by bytes; a
trajectory that cannot be written as a row is told apart from the others of its part.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from realwork.dataset.schema import DICTIONARY_COLUMNS, SCHEMA

FOLDER = "trajectories"
SAMPLES_FOLDER = "samples"
ROW_GROUP_BYTES = 16 << 20
_NAME = re.compile(r"part-(\d+)\.parquet")


def part_name(number: int) -> str:
    """The file name of part `number`."""
    return f"part-{number:06d}.parquet"


def part_number(path: Path) -> int | None:
    """The number in a part's name, null if it is no part."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else None


def part_files(run_directory: Path, folder: str = FOLDER) -> list[Path]:
    """The parts of a run in the order in which they were written."""
    numbers = {path: part_number(path) for path in (run_directory / folder).glob("part-*.parquet")}
    parts = [(number, path) for path, number in numbers.items() if number is not None]
    return [path for _, path in sorted(parts)]


def scan(part: Path, columns: Sequence[str] | None = None, *, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of a part, all columns or some.

    Raises:
        OSError, pyarrow.ArrowException: it cannot be read.
    """
    with pq.ParquetFile(part) as file:
        yield from file.iter_batches(batch_size=batch_rows, columns=list(columns) if columns is not None else None)


def row_in(part: Path, trajectory_id: str) -> dict[str, Any] | None:
    """The row of that trajectory in a part, null if it is not there; one row group is read.

    Raises:
        OSError, pyarrow.ArrowException: it cannot be read.
    """
    with pq.ParquetFile(part) as file:
        for group in range(file.num_row_groups):
            place = file.read_row_group(group, columns=["trajectory_id"]).column(0).index(trajectory_id).as_py()
            if place >= 0:
                row: dict[str, Any] = file.read_row_group(group).slice(place, 1).to_pylist()[0]
                return row
    return None


def ids_in(part: Path) -> list[str]:
    """The trajectory ids in a part.

    Raises:
        OSError, pyarrow.ArrowException: it cannot be read.
    """
    with pq.ParquetFile(part) as file:
        ids: list[str] = file.read(columns=["trajectory_id"]).column(0).to_pylist()
    return ids


def write(file: BinaryIO, batches: Iterable[tuple[pa.RecordBatch, int]], schema: pa.Schema = SCHEMA) -> None:
    """Write a Parquet file of batches of `schema`, in order; each comes with its size in bytes.

    One row group at a time is in memory.

    Raises:
        OSError: it cannot be written.
    """
    dictionary = [name for name in DICTIONARY_COLUMNS if name.partition(".")[0] in schema.names]
    # Without the Arrow schema, which says nothing that the Parquet one does not, a small part is a third smaller.
    with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=dictionary, store_schema=False) as writer:
        group: list[pa.RecordBatch] = []
        group_bytes = 0
        for batch, size_bytes in batches:
            group.append(batch)
            group_bytes += size_bytes
            if group_bytes >= ROW_GROUP_BYTES:
                writer.write_batch(pa.concat_batches(group))  # many small ones take longer than their copies
                group, group_bytes = [], 0
        if group:
            writer.write_batch(pa.concat_batches(group))

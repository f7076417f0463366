"""Part files: their names, and how rows become one.

Guarantees: readers that look for `part-*.parquet` find complete files only; row groups are bounded by bytes; a
trajectory that cannot be written as a row is told apart from the others of its part.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from realwork.trajectories.schema import DICTIONARY_COLUMNS, SCHEMA

FOLDER = "trajectories"
ROW_GROUP_BYTES = 32 << 20
_NAME = re.compile(r"part-(\d+)\.parquet")


def part_name(number: int) -> str:
    """The file name of part `number`."""
    return f"part-{number:06d}.parquet"


def part_number(path: Path) -> int | None:
    """The number in a part's name, null if it is no part."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else None


def part_files(run_directory: Path) -> list[Path]:
    """The parts of a run in the order in which they were written."""
    numbers = {path: part_number(path) for path in (run_directory / FOLDER).glob("part-*.parquet")}
    parts = [(number, path) for path, number in numbers.items() if number is not None]
    return [path for _, path in sorted(parts)]


def scan(part: Path, columns: Sequence[str] | None = None, *, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of a part, all columns or some.

    Raises:
        OSError, pyarrow.ArrowException: it cannot be read.
    """
    with pq.ParquetFile(part) as file:
        yield from file.iter_batches(batch_size=batch_rows, columns=list(columns) if columns is not None else None)


def ids_in(part: Path) -> list[str]:
    """The trajectory ids in a part.

    Raises:
        OSError, pyarrow.ArrowException: it cannot be read.
    """
    with pq.ParquetFile(part) as file:
        ids: list[str] = file.read(columns=["trajectory_id"]).column(0).to_pylist()
    return ids


def encode(tables: Iterable[pa.Table]) -> pa.Buffer:
    """The Parquet file of `tables`, which have one row each, in order."""
    sink = pa.BufferOutputStream()
    dictionary = list(DICTIONARY_COLUMNS)
    # Without the Arrow schema, which says nothing that the Parquet one does not, a small part is a third smaller.
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd", use_dictionary=dictionary, store_schema=False) as writer:
        group: list[pa.Table] = []
        group_bytes = 0
        for table in tables:
            group.append(table)
            group_bytes += table.nbytes
            if group_bytes >= ROW_GROUP_BYTES:
                writer.write_table(pa.concat_tables(group))
                group, group_bytes = [], 0
        if group:
            writer.write_table(pa.concat_tables(group))
    return sink.getvalue()

"""Part files: their names, and how rows become one.

Guarantees: readers that look for `part-*.parquet` find complete files only; row groups are bounded by bytes; a
trajectory that cannot be written as a row is told apart from the others of its part.
"""

import re
from collections.abc import Iterable
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


def ids_in(part: Path) -> list[str]:
    """The trajectory ids in a part file.

    Raises:
        OSError, pyarrow.ArrowException: it cannot be read.
    """
    with pq.ParquetFile(part) as file:
        ids: list[str] = file.read(columns=["trajectory_id"]).column(0).to_pylist()
    return ids


def encode(tables: Iterable[pa.Table]) -> pa.Buffer:
    """The Parquet file of `tables`, which have one row each, in order."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd", use_dictionary=list(DICTIONARY_COLUMNS)) as writer:
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

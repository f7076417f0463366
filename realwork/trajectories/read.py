"""Reads what a store has written, while it writes or afterwards.

Guarantees: only complete part files are looked at; memory is bounded by a few rows and one row group, whatever the
size of the run.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as fs

from realwork.errors import InputError, StoreError
from realwork.trajectories.parts import FOLDER, part_files
from realwork.trajectories.rows import trajectory
from realwork.trajectories.run_directory import RUN_FILE, is_run_directory
from realwork.trajectories.schema import SCHEMA
from realwork.types import Trajectory

_NARROW_BATCH_ROWS = 4096
_WIDE_BATCH_ROWS = 8


def run_directories(directory: Path) -> list[Path]:
    """`directory` itself if it holds a run, else the runs directly in it, by name.

    Raises:
        InputError: neither.
    """
    if is_run_directory(directory):
        return [directory]
    runs = [child for child in sorted(directory.glob("*/")) if is_run_directory(child)]
    if not runs:
        what = "holds no run" if directory.is_dir() else "is no directory"
        raise InputError(
            f"{directory} {what}. Give the directory of a run, which has a {RUN_FILE} and {FOLDER}/part-*.parquet, "
            "or the trajectory_output_path that holds several runs."
        )
    return runs


def read(directory: Path) -> ds.Dataset:
    """The rows of a run, or of every run in a `trajectory_output_path`, in the order of their commits.

    Raises:
        InputError: there is no run.
    """
    parts = [str(part.resolve()) for run in run_directories(directory) for part in part_files(run)]
    return ds.FileSystemDataset.from_paths(
        parts, schema=SCHEMA, format=ds.ParquetFileFormat(), filesystem=fs.LocalFileSystem()
    )


def batches(directory: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of `read()` with some columns only.

    Raises:
        InputError: there is no run.
        StoreError: a part cannot be read.
    """
    return _scan(read(directory).scanner(columns=list(columns), batch_size=_NARROW_BATCH_ROWS))


def trajectories(directory: Path) -> Iterator[Trajectory]:
    """Every trajectory of `read()`, one by one.

    Raises:
        InputError: there is no run.
        StoreError: a part cannot be read.
    """
    return _records(read(directory))


def find(directory: Path, trajectory_id: str) -> Iterator[Trajectory]:
    """The trajectory of that id, else all whose id begins with it, one by one.

    Raises:
        InputError: there is no run.
        StoreError: a part cannot be read.
    """
    name = pc.field("trajectory_id")
    dataset = read(directory)
    exact = name == trajectory_id
    if dataset.count_rows(filter=exact):
        return _records(dataset, exact)
    return _records(dataset, pc.starts_with(name, trajectory_id))


def _records(dataset: ds.Dataset, condition: ds.Expression | None = None) -> Iterator[Trajectory]:
    scanner = dataset.scanner(
        filter=condition, batch_size=_WIDE_BATCH_ROWS, batch_readahead=1, fragment_readahead=1, use_threads=False
    )
    for batch in _scan(scanner):
        for position in range(batch.num_rows):
            yield trajectory(batch.slice(position, 1).to_pylist()[0])


def _scan(scanner: ds.Scanner) -> Iterator[pa.RecordBatch]:
    try:
        yield from scanner.to_batches()
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"a part file cannot be read: {error}") from error

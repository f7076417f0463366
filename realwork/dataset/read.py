"""Reads what a store has written, while it writes or afterwards.

Guarantees: only complete part files are looked at; memory is bounded by a few rows and one row group, whatever the
size of the run.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa

from realwork.config import is_url
from realwork.dataset.earlier import recover
from realwork.dataset.fetched import fetched
from realwork.dataset.parts import FOLDER, ids_in, part_files, part_name, row_in, scan
from realwork.dataset.rows import Row, trajectory
from realwork.dataset.run_directory import RUN_FILE, is_run_directory
from realwork.dataset.side_files import restore, side_file_reader
from realwork.errors import InputError, StoreError, blame
from realwork.types import Trajectory

log = logging.getLogger(__name__)
_BATCH_ROWS = 8


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


def parts_in(directory: Path, folder: str = FOLDER) -> list[Path]:
    """The parts of the run in `directory`, or of every run there; what a killed store has left is put into some.

    Raises:
        InputError: there is no run.
    """
    runs = run_directories(directory)
    for run in runs:
        recover(run)
    return [part for run in runs for part in part_files(run, folder)]


def batches(directory: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a run, or of every run in a `trajectory_output_path`, with some columns only.

    Raises:
        InputError: there is no run.
        StoreError: a part cannot be read.
    """
    return (batch for part in parts_in(directory) for batch in _scan(part, columns))


def rows(directory: Path) -> Iterator[Row]:
    """Every row as a dictionary of all columns, big texts of large rows included; one at a time is in memory.

    Raises:
        InputError: there is no run.
        StoreError: a part cannot be read.
    """
    return (row for part in parts_in(directory) for row in _rows(part))


def trajectories(directory: Path | str) -> Iterator[Trajectory]:
    """Every trajectory of a run, or of every run in a `trajectory_output_path`, in the order of their commits.

    One at a time is in memory.

    Args:
        directory: or a URL of object storage, whose parts are fetched first.

    Raises:
        InputError: there is no run.
        StoreError: a part cannot be read.
    """
    if is_url(str(directory)):
        directory = fetched(str(directory), log.info)
    return (trajectory(row) for row in rows(Path(directory)))


def find(directory: Path, trajectory_id: str) -> Iterator[Trajectory]:
    """The trajectory of that id, else all that `find_rows` finds, one by one; raises as that does."""
    return (trajectory(row) for row in find_rows(directory, trajectory_id))


def find_rows(directory: Path, trajectory_id: str) -> Iterator[Row]:
    """The row of the trajectory of that id, else of all whose id begins with it, also without the run's, one by one.

    Raises:
        InputError: there is no run.
        StoreError: a part cannot be read.
    """
    parts = parts_in(directory)
    exact = next((row for part in parts if (row := _row(part, trajectory_id))), None)
    if exact is not None:
        yield exact
        return
    for part in parts:
        for name in _ids(part):
            without_run = name.partition(":")[2]
            if (name.startswith(trajectory_id) or without_run.startswith(trajectory_id)) and (row := _row(part, name)):
                yield row


def in_part(run_directory: Path, number: int, trajectory_id: str) -> Trajectory | None:
    """The trajectory of that id in part `number` of a run, null if it is not there.

    Raises:
        StoreError: the part cannot be read.
    """
    row = _row(run_directory / FOLDER / part_name(number), trajectory_id)
    return None if row is None else trajectory(row)


def _ids(part: Path) -> list[str]:
    with _reading(part):
        return ids_in(part)


def _row(part: Path, trajectory_id: str) -> Row | None:
    with _reading(part):
        row = row_in(part, trajectory_id)
    return None if row is None else restore(row, side_file_reader(part.parent.parent))


def _rows(part: Path) -> Iterator[Row]:
    read = side_file_reader(part.parent.parent)
    for batch in _scan(part, batch_rows=_BATCH_ROWS):
        for position in range(batch.num_rows):
            yield restore(batch.slice(position, 1).to_pylist()[0], read)


def _scan(part: Path, columns: Sequence[str] | None = None, *, batch_rows: int = 4096) -> Iterator[pa.RecordBatch]:
    with _reading(part):
        yield from scan(part, columns, batch_rows=batch_rows)


def _reading(part: Path) -> AbstractContextManager[None]:
    return blame(StoreError, f"{part} cannot be read")

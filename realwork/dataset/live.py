"""What a run's ledger knows beyond its parts, read while another process has it open.

Guarantees: nothing of the run is written, locked or opened by SQLite, which works on a copy; a copy that the writer has
changed meanwhile is made anew, and given up after a few times. Not for the process that has the ledger open: to close a
file lets go of the locks that this process has on it.
"""

import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pyarrow as pa

from realwork.dataset.encoding import decode_rows, decode_trajectory, with_committed
from realwork.dataset.part_ledger import Committed
from realwork.dataset.run_directory import host_of, said_holder
from realwork.dataset.shards import shards_of
from realwork.dataset.side_files import side_file_reader
from realwork.errors import StoreError, blame
from realwork.types import RolloutSpec, Trajectory

_TRIES = 5
_LOG_HEADER_BYTES = 32
_RECENT_S = 120.0


class Running(NamedTuple):
    """An attempt that has begun and has no row."""

    spec: RolloutSpec
    node_id: str
    began_at: datetime


class Live(NamedTuple):
    """What no part tells.

    Attributes:
        rows: committed rows that are in no part, or in one that is just being written.
        planned: rollouts that the run is to play; 0 where that is not known.
    """

    rows: list[pa.RecordBatch]
    running: list[Running]
    planned: int


def live(directory: Path) -> Live:
    """What the ledgers of the run in `directory` know at this moment.

    Raises:
        StoreError: a ledger cannot be read.
    """
    rows: list[pa.RecordBatch] = []
    running: list[Running] = []
    planned = 0
    with _ledgers(directory) as ledgers:
        for ledger in ledgers:
            rows += _held(ledger)
            running += _running(ledger)
            planned += ledger.execute("SELECT count(*) FROM plan").fetchone()[0]
    return Live(rows, running, planned)


def find_live(directory: Path, trajectory_id: str) -> Trajectory | None:
    """The trajectory of that id that no part holds: its committed row, else the steps it has handed over so far.

    Raises:
        StoreError: a ledger cannot be read.
    """
    read = side_file_reader(directory)
    with _ledgers(directory) as ledgers:
        for ledger in ledgers:
            statements = (
                "SELECT rows, place FROM held JOIN batches ON batches.number = batch WHERE trajectory_id = ?",
                "SELECT row, 0 FROM unfinished WHERE trajectory_id = ?",
            )
            for statement in statements:
                if found := ledger.execute(statement, (trajectory_id,)).fetchone():
                    row, place = found
                    return decode_trajectory(row, place, read)
    return None


def is_played(directory: Path) -> bool:
    """Whether a process plays the run, as far as can be told without asking for its lock."""
    holder = said_holder(directory)
    if host_of(holder) != socket.gethostname():
        logs = [shard.ledger_file(directory) for shard in shards_of(directory)]
        return bool(host_of(holder)) and any(_changed_at(log) > time.time() - _RECENT_S for log in logs)
    number = holder.removeprefix("process ").partition(" ")[0]
    try:
        os.kill(int(number), 0)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def ledger_marks(directory: Path) -> tuple[tuple[int, int], ...]:
    """What changes when a ledger of the run does."""
    return tuple(_mark(file) for shard in shards_of(directory) for file in _files(shard.ledger_file(directory)))


def _held(ledger: sqlite3.Connection) -> Iterator[pa.RecordBatch]:
    for number, content in ledger.execute("SELECT number, rows FROM batches ORDER BY number"):
        held = ledger.execute(
            "SELECT trajectory_id, waited_s, group_complete FROM held WHERE batch = ? ORDER BY place", (number,)
        )
        committed = [Committed(name, waited_s, bool(whole)) for name, waited_s, whole in held]
        rows = decode_rows(content)
        # A part that was taken over has let go of some of them.
        yield with_committed(rows, committed) if len(committed) == rows.num_rows else rows


def _running(ledger: sqlite3.Connection) -> Iterator[Running]:
    found = ledger.execute("SELECT spec, node_id, began_at FROM attempts WHERE state = 'running' ORDER BY rowid")
    for spec, node_id, began_at in found:
        began = datetime.fromisoformat(began_at).replace(tzinfo=UTC)
        yield Running(RolloutSpec.model_validate_json(spec), node_id, began)


@contextmanager
def _ledgers(directory: Path) -> Iterator[list[sqlite3.Connection]]:
    """Copies of the ledgers of a run, opened, for the length of the block."""
    with ExitStack() as opened, blame(StoreError, f"the ledger of {directory} cannot be read"):
        folder = Path(opened.enter_context(TemporaryDirectory(prefix="realwork-view-")))
        ledgers = [
            opened.enter_context(closing(sqlite3.connect(_copied(file, folder))))
            for shard in shards_of(directory)
            if (file := shard.ledger_file(directory)).exists()
        ]
        yield [ledger for ledger in ledgers if _has_tables(ledger)]


def _has_tables(ledger: sqlite3.Connection) -> bool:
    """False in the first moments of a run."""
    return bool(ledger.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _copied(ledger: Path, folder: Path) -> Path:
    """A copy of a ledger and of its log, as they were at one moment."""
    file, log = _files(ledger)
    for _ in range(_TRIES):
        before = _mark(file), _log_header(log)
        (folder / log.name).unlink(missing_ok=True)
        if log.exists():
            shutil.copyfile(log, folder / log.name)
        shutil.copyfile(file, folder / file.name)
        # A log that grows does no harm: what is not whole at its end is left out. One that was moved does.
        if before == (_mark(file), _log_header(log)):
            return folder / file.name
    raise StoreError(f"{ledger} is being rewritten all the time")


def _files(ledger: Path) -> tuple[Path, Path]:
    return ledger, ledger.with_name(f"{ledger.name}-wal")


def _mark(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size


def _changed_at(ledger: Path) -> float:
    return max(_mark(file)[0] for file in _files(ledger)) / 1e9


def _log_header(log: Path) -> bytes:
    try:
        with log.open("rb") as file:
            return file.read(_LOG_HEADER_BYTES)
    except OSError:
        return b""

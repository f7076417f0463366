"""A light table of a run's attempts, kept in memory and up to date: a row each, of columns that are short.

Guarantees: a part is read once, and of it only those columns; conversations are read when one is asked for; nothing is
written into the run.
"""

import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from realwork.dataset.live import Live, Running, find_live, is_played, ledger_marks, live
from realwork.dataset.parts import part_files, row_in, scan
from realwork.dataset.read import run_directories
from realwork.dataset.rows import Row, row
from realwork.dataset.schema import SCHEMA
from realwork.dataset.side_files import restore, side_file_reader
from realwork.errors import StoreError, blame
from realwork.types import Timing

PLAIN = (
    *("trajectory_id", "environment_id", "group_id", "group_size", "sample_index", "attempt", "parent_trajectory_id"),
    *("status", "terminated_reason", "failure_cause", "error_type", "error_message"),
    *("reward", "reward_valid", "success", "tests_passed", "tests_total", "grading_mode"),
    *("n_steps", "n_tool_calls", "total_prompt_tokens", "total_completion_tokens", "total_cost_usd"),
    *("model", "policy_version", "base_url_host", "node_id", "docker_image", "network", "started_at", "ended_at"),
)
TIMES = tuple(Timing.model_fields)
_REST = 20


class _Part(NamedTuple):
    mark: tuple[int, int]
    rows: pa.Table


class RunIndex:
    """The attempts of the run in one directory.

    Attributes:
        name: the name of its directory.
        table: a row for each attempt, those of parts first.
        version: another one whenever something is new.

    Args:
        rest: a look at the ledger, which is copied for it, is followed by a pause so many times as long.
    """

    def __init__(self, directory: Path, *, rest: int = _REST) -> None:
        self._rest = rest
        self.directory = directory
        self.name = directory.resolve().name
        self._parts: dict[Path, _Part] = {}
        self._ledger: tuple[tuple[int, int], ...] | None = None
        self._live = Live([], [], 0)
        self._held = _light([])
        self._look_at = 0.0
        self._access = Lock()
        self.table = _with_derived(_light([]))
        self.version = ""
        self.is_played = False

    @property
    def running(self) -> Sequence[Running]:
        """The attempts in flight; those of a run that nobody plays any more are none."""
        return self._live.running if self.is_played else []

    @property
    def planned(self) -> int:
        """Rollouts that the run is to play, as its ledger says; 0 where that is not known."""
        return self._live.planned

    def refresh(self) -> None:
        """Read what is new.

        Raises:
            StoreError: a part or a ledger cannot be read.
        """
        with self._access:
            changed = self._read_ledger()
            # Parts come after the ledger: a row that has left the one in between stands in the other.
            if self._read_parts() or changed or not self.version:
                self.table = _with_derived(self._together())
            self.is_played = is_played(self.directory)
            self.version = self._version()

    def row(self, trajectory_id: str) -> Row | None:
        """All columns of the attempt of that id, big texts included; null if there is none.

        Raises:
            StoreError: it cannot be read.
        """
        part = self._part_of(trajectory_id)
        if part is not None:
            with blame(StoreError, f"{part} cannot be read"):
                found = row_in(part, trajectory_id)
            return found and restore(found, side_file_reader(self.directory))
        record = find_live(self.directory, trajectory_id)
        return None if record is None else row(record)

    def parts(self) -> dict[Path, tuple[int, int]]:
        """The parts that are known, and what changes when one does."""
        with self._access:
            return {part: each.mark for part, each in self._parts.items()}

    def texts(self, part: Path | None, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The ids and these columns of the attempts in a part, or null: in the ledger, batch by batch.

        Raises:
            StoreError: the part or a ledger cannot be read.
        """
        if part is None:
            yield from live(self.directory).rows
            return
        with blame(StoreError, f"{part} cannot be read"):
            yield from scan(part, ["trajectory_id", *columns], batch_rows=128)

    def _part_of(self, trajectory_id: str) -> Path | None:
        with self._access:
            parts = {part: each.rows.column("trajectory_id") for part, each in self._parts.items()}
        return next((part for part, names in parts.items() if pc.index(names, trajectory_id).as_py() >= 0), None)

    def _read_parts(self) -> bool:
        there = part_files(self.directory)
        changed = False
        for part in there:
            stat = part.stat()
            mark = stat.st_mtime_ns, stat.st_size
            if part not in self._parts or self._parts[part].mark != mark:
                with blame(StoreError, f"{part} cannot be read"):
                    batches = [*scan(part, [*PLAIN, "timing"], batch_rows=65536)]
                self._parts[part] = _Part(mark, _light(batches))
                changed = True
        gone = self._parts.keys() - set(there)
        for part in gone:
            del self._parts[part]
        return changed or bool(gone)

    def _read_ledger(self) -> bool:
        began = time.monotonic()
        if began < self._look_at:
            return False
        marks = ledger_marks(self.directory)
        if marks == self._ledger:
            return False
        self._live = live(self.directory)
        self._held = _light(self._live.rows)
        self._ledger = marks
        now = time.monotonic()
        self._look_at = now + self._rest * (now - began)
        return True

    def _together(self) -> pa.Table:
        parts = [self._parts[part].rows for part in sorted(self._parts)]
        sealed = pa.concat_tables([_light([]), *parts])
        new = pc.invert(pc.is_in(self._held.column("trajectory_id"), sealed.column("trajectory_id")))
        return pa.concat_tables([sealed, self._held.filter(new)])

    def _version(self) -> str:
        parts = sorted((part.name, each.mark) for part, each in self._parts.items())
        held = self._held.column("trajectory_id").to_pylist()
        running = [each.spec.trajectory_id for each in self.running]
        said = repr((parts, held, running, self.is_played, self.planned))
        return f"{self.table.num_rows}-{zlib.crc32(said.encode()):08x}"


def run_indexes(directories: Sequence[Path]) -> list[RunIndex]:
    """An index of each run in `directories`, which are runs or hold some; none is read yet.

    Raises:
        InputError: one of them holds no run.
    """
    runs = {run.resolve(): run for directory in directories for run in run_directories(directory)}
    return [RunIndex(run) for run in runs.values()]


def _light(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """The columns of the index, without their compression and nesting."""
    schema = pa.schema([SCHEMA.field(name) for name in (*PLAIN, "timing")])
    rows = pa.Table.from_batches([batch.select(schema.names).cast(schema) for batch in batches], schema=schema)
    timing = rows.column("timing").combine_chunks()
    rows = rows.drop_columns(["timing"])
    for place, name in enumerate(TIMES):
        rows = rows.append_column(name, pc.struct_field(timing, [place]) if len(rows) else pa.array([], pa.float64()))
    return rows


def _with_derived(rows: pa.Table) -> pa.Table:
    """`rows` with what follows from other columns."""
    micros = pc.subtract(pc.cast(rows.column("ended_at"), pa.int64()), pc.cast(rows.column("started_at"), pa.int64()))
    passed = pc.if_else(rows.column("success"), "passed", "failed")
    tokens = pc.add(rows.column("total_prompt_tokens"), rows.column("total_completion_tokens"))
    derived = {
        "duration_s": pc.divide(pc.cast(micros, pa.float64()), 1e6),
        "outcome": pc.fill_null(passed, "ungraded"),
        "total_tokens": tokens,
        "counts": _counts(rows),
    }
    for name, values in derived.items():
        rows = rows.append_column(name, values)
    return rows


def _counts(rows: pa.Table) -> pa.Array:
    """Whether an attempt counts for its rollout: the graded one if there is any, else the last."""
    names = ("environment_id", "sample_index", "attempt", "success")
    best: dict[tuple[str, int], tuple[tuple[bool, int], int]] = {}
    for place, (environment_id, sample, attempt, success) in enumerate(
        zip(*(rows.column(name).to_pylist() for name in names), strict=True)
    ):
        rank = (success is not None, attempt)
        key = (environment_id, sample)
        if key not in best or rank > best[key][0]:
            best[key] = rank, place
    chosen = {place for _, place in best.values()}
    return pa.array([place in chosen for place in range(rows.num_rows)], pa.bool_())

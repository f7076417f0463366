"""Moves committed rows out of the ledger into part files.

Guarantees: what a part will hold is in the ledger before the part is written, and the rows leave the ledger after the
part is on the disk; so a kill at any point neither loses nor doubles a row. A part that is on the disk is never
written again but by a compaction. Every call blocks; one at a time.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from realwork.dataset.durable import durable_file, half_written, sync_directory
from realwork.dataset.encoding import decode_rows, decode_samples, size_of, with_committed
from realwork.dataset.ledger import Ledger
from realwork.dataset.merging import finish_merge, forget_merges
from realwork.dataset.parts import FOLDER, SAMPLES_FOLDER, ids_in, part_files, part_name, part_number, scan, write
from realwork.dataset.rows import trajectory
from realwork.dataset.run_directory import write_card
from realwork.dataset.schema import SAMPLE_SCHEMA
from realwork.dataset.shards import WHOLE, Shard, shards_of
from realwork.dataset.summaries import summarize
from realwork.errors import PartMissing, StoreError, blame
from realwork.faultpoints import pass_through


class Sealing(NamedTuple):
    """When a part is written, whichever comes first: rows, bytes in the ledger, seconds since the oldest row."""

    rows: int = 8192
    size_bytes: int = 64 << 20
    age_s: float = 10.0


DEFAULTS = Sealing()
ENDING_S = 10.0
"""How long a store that is about to end may keep others waiting."""


def missing(directory: Path, number: int) -> str:
    """What is said of a part that was sealed and is gone."""
    return (
        f"{directory / FOLDER / part_name(number)} is gone, and the rows that it held are nowhere else. Put it back, "
        "or play the run anew under another --run-id."
    )


class Sealer:
    """Writes the parts of one ledger.

    Raises:
        StoreError: the directory cannot be written.
    """

    def __init__(self, directory: Path, ledger: Ledger, shard: Shard, limits: Sealing) -> None:
        self._directory = directory
        self._ledger = ledger
        self._shard = shard
        self._limits = limits
        self._folder = directory / FOLDER
        self._samples = directory / SAMPLES_FOLDER
        with blame(StoreError, f"{directory} cannot be used as a run directory"):
            self._folder.mkdir(parents=True, exist_ok=True)
            sync_directory(directory)
            sync_directory(directory.parent)
        self._next_number = self._take_up()

    def seal(self) -> int:
        """Write the next part; how many rows it holds, 0 where none was left.

        Raises:
            StoreError: it could not be written; the rows are still in the ledger.
        """
        if (self._folder / part_name(self._next_number)).is_file():  # it was written, and the ledger could not note it
            self._note_written()
        number = self._next_number
        count = self._ledger.parts.claim(number, max_rows=self._limits.rows, max_bytes=self._limits.size_bytes)
        if not count:
            return 0
        pass_through("claimed")
        try:
            with blame(StoreError, f"{self._folder} could not be written, rows acknowledged before are safe"):
                self._write(number)
        except BaseException:
            self._ledger.parts.release(number)
            raise
        pass_through("renamed")
        self._note_written()
        return count

    def _note_written(self) -> None:
        self._ledger.parts.seal(self._next_number)
        self._next_number += self._shard.of

    def _write(self, number: int) -> None:
        """Write a part, its samples first: they count only where the part is."""
        name = part_name(number)
        samples = ((decode_samples(each), size_of(each)) for each in self._ledger.parts.samples_of(number))
        if (first := next(samples, None)) is not None:
            self._write_samples(name, chain([first], samples))
        rows = (
            (with_committed(decode_rows(each.rows), each.committed), size_of(each.rows))
            for each in self._ledger.parts.rows_of(number)
        )
        try:
            with durable_file(self._folder / name, temporary_directory=self._directory) as file:
                write(file, rows)
        except BaseException:
            (self._samples / name).unlink(missing_ok=True)
            raise

    def _write_samples(self, name: str, samples: Iterable[tuple[pa.RecordBatch, int]]) -> None:
        is_first = not self._samples.exists()
        if is_first:
            self._samples.mkdir(exist_ok=True)
            sync_directory(self._directory)
        with durable_file(self._samples / name, temporary_directory=self._directory) as file:
            write(file, samples, SAMPLE_SCHEMA)
        if is_first:
            write_card(self._directory)

    def _take_up(self) -> int:
        """Go on from what a killed writer has left; the number of the next part.

        Raises:
            PartMissing: a part that was sealed is gone; nothing was changed.
        """
        finish_merge(self._directory, self._ledger)
        there = self._own(part_files(self._directory))
        known, merged = self._ledger.parts.numbers(), self._ledger.parts.merged_parts()
        for number, sealed in known.items():
            if sealed and number not in there:
                raise PartMissing(missing(self._directory, number))
        with blame(StoreError, f"{self._directory} cannot be used as a run directory"):
            forget_merges(self._directory, self._shard)
            for leftover, name in half_written(self._directory):
                if self._own([Path(name)]):
                    leftover.unlink()
            for number in self._own(part_files(self._directory, SAMPLES_FOLDER)) - there:
                (self._samples / part_name(number)).unlink()
            if self._samples.exists():
                write_card(self._directory)
        for number in sorted(there | known.keys()):
            if number not in there:
                self._ledger.parts.release(number)
            elif not known.get(number):
                self._settle(number, merged.get(number))
        return self._shard.next(there | known.keys() | merged.keys())

    def _settle(self, number: int, held_by: int | None) -> None:
        """Find out what a part is that is on the disk and not known to be; `held_by` was to take its rows."""
        ids = self._ids_in(number)
        if held_by not in (None, number) and ids <= self._ids_in(held_by):
            with blame(StoreError, f"{self._directory} could not be written"):
                for folder in (self._samples, self._folder):
                    (folder / part_name(number)).unlink(missing_ok=True)
        elif ids == self._ledger.parts.claimed_by(number):
            self._ledger.parts.seal(number)
        else:
            self._ledger.parts.release(number)
            self._adopt(number)

    def _ids_in(self, number: int) -> set[str]:
        """The trajectories in a part, none if it is not there."""
        part = self._folder / part_name(number)
        with self._reading(number):
            return set(ids_in(part)) if part.exists() else set()

    def _own(self, paths: Iterable[Path]) -> set[int]:
        """The numbers of those parts that are this shard's."""
        numbers = {part_number(path) for path in paths}
        return {number for number in numbers if number is not None and self._shard.has(number)}

    def _reading(self, number: int) -> AbstractContextManager[None]:
        part = self._folder / part_name(number)
        return blame(StoreError, f"{part} is no complete part file; put a whole one in its place to go on")

    def _adopt(self, number: int) -> None:
        """Take over a part of an earlier ledger, which is gone."""
        part = self._folder / part_name(number)
        with self._reading(number):
            found = [summarize(trajectory(row)) for batch in scan(part, batch_rows=8) for row in batch.to_pylist()]
        self._ledger.parts.adopt(number, found)

    def seal_all(self) -> None:
        """Put every row that is in the ledger into parts.

        Raises:
            StoreError: a part could not be written; its rows are still in the ledger.
        """
        while self.seal():
            pass


@contextmanager
def ledgers(directory: Path, *, wait_s: float) -> Iterator[list[tuple[Ledger, Sealer]]]:
    """Every ledger of the run in `directory`, for the length of the block, in which nobody else writes there.

    A run that has not begun has none; one that has parts, but has lost its ledger, gets one.

    Raises:
        StoreError: one cannot be used, or another process has it.
    """
    with ExitStack() as opened:
        found = []
        for shard in shards_of(directory) or ([WHOLE] if part_files(directory) else []):
            ledger = Ledger(shard.ledger_file(directory), wait_s=wait_s)
            opened.callback(ledger.close)
            found.append((ledger, Sealer(directory, ledger, shard, DEFAULTS)))
        yield found

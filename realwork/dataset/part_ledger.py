"""What a ledger knows of parts: committed rows that no part holds yet, and which parts there are.

Guarantees: what a part will hold is noted before it is written, and a row is held until its part is on the disk.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from realwork.dataset.database import Database
from realwork.dataset.group_ledger import GroupLedger, Note
from realwork.types import RolloutSummary

PART_TABLES = (
    """CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY,
    part INTEGER,              -- the part that is being written with the rows
    row_count INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    rows BLOB NOT NULL,
    samples BLOB
    )""",
    """CREATE TABLE IF NOT EXISTS held (
    batch INTEGER NOT NULL,
    place INTEGER NOT NULL,
    trajectory_id TEXT NOT NULL UNIQUE,
    waited_s REAL NOT NULL,
    group_complete INTEGER NOT NULL,
    PRIMARY KEY (batch, place)
    ) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS merging (part INTEGER PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS merged (part INTEGER PRIMARY KEY, held_by INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS parts (number INTEGER PRIMARY KEY, rows INTEGER NOT NULL, sealed INTEGER NOT NULL)",
)


class Committed(NamedTuple):
    """What is known of a row when it is committed, and not before.

    Attributes:
        waited_s: seconds for which it has waited for the store.
        group_complete: whether with it every sample of its group is graded.
    """

    trajectory_id: str
    waited_s: float
    group_complete: bool


class HeldRows(NamedTuple):
    """Encoded rows that no part holds yet, and what was known when each of them was committed."""

    rows: bytes
    committed: list[Committed]


class Unsealed(NamedTuple):
    """How much no part holds yet."""

    rows: int
    size_bytes: int


class PartLedger:
    """The part of a ledger that says what stands in which part; its file is opened by the ledger."""

    def __init__(self, database: Database, groups: GroupLedger) -> None:
        self._database = database
        self._groups = groups

    def hold(self, committed: Sequence[Committed], rows: bytes, samples: bytes | None, size_bytes: int) -> None:
        """Keep encoded rows; within a transaction."""
        added = self._database.execute(
            "INSERT INTO batches (row_count, size_bytes, rows, samples) VALUES (?, ?, ?, ?)",
            *(len(committed), size_bytes, rows, samples),
        )
        places = ((added.lastrowid, place, *each) for place, each in enumerate(committed))
        self._database.execute_all("INSERT INTO held VALUES (?, ?, ?, ?, ?)", places)

    def unsealed(self) -> Unsealed:
        """What no part holds and none is being written with."""
        with self._database.reading():
            found = self._database.row(
                "SELECT coalesce(sum(row_count), 0), coalesce(sum(size_bytes), 0) FROM batches WHERE part IS NULL"
            )
            return Unsealed(*found)

    def claim(self, part: int, *, max_rows: int, max_bytes: int) -> int:
        """Note that `part` will hold the oldest unsealed batches, at least one, else within the limits; their rows.

        Raises:
            StoreError: nothing was written.
        """
        with self._database.writing():
            last, rows, size_bytes = 0, 0, 0
            for number, more_rows, more_bytes in self._database.execute(
                "SELECT number, row_count, size_bytes FROM batches WHERE part IS NULL ORDER BY number"
            ):
                if rows and (rows + more_rows > max_rows or size_bytes + more_bytes > max_bytes):
                    break
                last, rows, size_bytes = number, rows + more_rows, size_bytes + more_bytes
            if rows:
                self._database.execute("UPDATE batches SET part = ? WHERE part IS NULL AND number <= ?", part, last)
                self._database.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, 0)", part, rows)
            return rows

    def rows_of(self, part: int) -> Iterator[HeldRows]:
        """The rows that `part` will hold, in the order of their commits; one batch at a time is in memory."""
        for number in self._batches_of(part):
            with self._database.reading():
                rows: bytes = self._database.value("SELECT rows FROM batches WHERE number = ?", number)
                held = self._database.execute(
                    "SELECT trajectory_id, waited_s, group_complete FROM held WHERE batch = ? ORDER BY place", number
                )
                committed = [Committed(name, waited_s, bool(whole)) for name, waited_s, whole in held]
            yield HeldRows(rows, committed)

    def samples_of(self, part: int) -> Iterator[bytes]:
        """The samples that belong to the rows of `part`, in batches of which one at a time is in memory."""
        for number in self._batches_of(part):
            with self._database.reading():
                samples: bytes | None = self._database.value("SELECT samples FROM batches WHERE number = ?", number)
            if samples is not None:
                yield samples

    def _batches_of(self, part: int) -> list[int]:
        with self._database.reading():
            found = self._database.execute("SELECT number FROM batches WHERE part = ? ORDER BY number", part)
            return [number for (number,) in found]

    def seal(self, part: int) -> None:
        """Note that `part` is on the disk; the ledger need not hold its rows any longer.

        Raises:
            StoreError: nothing was written.
        """
        its = "FROM held WHERE batch IN (SELECT number FROM batches WHERE part = ?1)"
        with self._database.writing():
            named = f"SELECT trajectory_id {its}"
            self._database.execute(f"UPDATE attempts SET part = ?1 WHERE trajectory_id IN ({named})", part)
            self._database.execute(f"DELETE {its}", part)
            self._database.execute("DELETE FROM batches WHERE part = ?", part)
            self._database.execute("UPDATE parts SET sealed = 1 WHERE number = ?", part)

    def release(self, part: int) -> None:
        """Note that `part` was not written; its rows go into another one.

        Raises:
            StoreError: nothing was written.
        """
        with self._database.writing():
            self._database.execute("UPDATE batches SET part = NULL WHERE part = ?", part)
            self._database.execute("DELETE FROM parts WHERE number = ?", part)

    def numbers(self) -> dict[int, bool]:
        """The numbers of the parts, and whether each is known to be on the disk."""
        with self._database.reading():
            found = self._database.execute("SELECT number, sealed FROM parts")
            return {number: bool(sealed) for number, sealed in found}

    def merge(self, parts: Sequence[int]) -> None:
        """Note that the rows of `parts` are about to stand in the first of them alone.

        Raises:
            StoreError: nothing was written.
        """
        with self._database.writing():
            self._database.execute_all("INSERT INTO merging VALUES (?)", ((part,) for part in parts))

    def merging(self) -> list[int]:
        """The parts of a merge that has not come to its end, in order; none if all have."""
        with self._database.reading():
            return [part for (part,) in self._database.execute("SELECT part FROM merging ORDER BY part")]

    def merged(self, parts: Sequence[int]) -> None:
        """Note that the rows of `parts` stand in the first of them, and the others are gone.

        Raises:
            StoreError: nothing was written.
        """
        into, *gone = parts
        with self._database.writing():
            for part in gone:
                self._database.execute("UPDATE attempts SET part = ? WHERE part = ?", into, part)
                self._database.execute(
                    "UPDATE parts SET rows = rows + (SELECT rows FROM parts WHERE number = ?) WHERE number = ?",
                    part,
                    into,
                )
                self._database.execute("DELETE FROM parts WHERE number = ?", part)
                self._database.execute("UPDATE merged SET held_by = ? WHERE held_by = ?", into, part)
                self._database.execute("INSERT OR REPLACE INTO merged VALUES (?, ?)", part, into)
            self._database.execute("DELETE FROM merging")

    def merged_parts(self) -> dict[int, int]:
        """The parts whose rows were put into others, and which part holds those of each now."""
        with self._database.reading():
            return dict(self._database.execute("SELECT part, held_by FROM merged").fetchall())

    def claimed_by(self, part: int) -> set[str]:
        """The trajectories of which a part that is being written will hold the rows."""
        with self._database.reading():
            found = self._database.execute(
                "SELECT trajectory_id FROM held WHERE batch IN (SELECT number FROM batches WHERE part = ?)", part
            )
            return {name for (name,) in found}

    def adopt(self, part: int, summaries: Sequence[RolloutSummary]) -> None:
        """Note a part that is on the disk and not known here, with what its rows say; they are held no longer.

        Raises:
            StoreError: nothing was written.
        """
        with self._database.writing():
            names = ((one.spec.trajectory_id,) for one in summaries)
            self._database.execute_all("DELETE FROM held WHERE trajectory_id = ?", names)
            self._database.execute("DELETE FROM batches WHERE number NOT IN (SELECT batch FROM held)")
            with self._groups.counting() as note:
                for one in summaries:
                    self._adopt_row(part, one, note)
            self._database.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, 1)", part, len(summaries))
            self._database.execute("DELETE FROM merged WHERE part = ?", part)

    def _adopt_row(self, part: int, summary: RolloutSummary, note: Note) -> None:
        spec = summary.spec
        is_known = self._database.value(
            "SELECT 1 FROM attempts WHERE rollout_id = ? AND status IN ('completed', 'truncated')", spec.rollout_id
        )
        if not is_known:
            note(summary)
        self._database.execute(
            "INSERT OR REPLACE INTO attempts "
            "(trajectory_id, rollout_id, attempt, state, status, failure_cause, summary, part) "
            "VALUES (?, ?, ?, 'committed', ?, ?, ?, ?)",
            *(spec.trajectory_id, spec.rollout_id, spec.attempt, summary.status, summary.failure_cause),
            *(summary.model_dump_json(), part),
        )

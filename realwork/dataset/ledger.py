"""The ledger of a run: the plan, every attempt and its fate, and committed rows until a part holds them.

Guarantees: what a call has written is on the disk when it returns and survives the death of every process; a call that
raises `StoreError` has written nothing; one process at a time has the ledger open. The first commit of an attempt wins;
one of an attempt that a later one has taken the place of is fenced, and so is one of a rollout that has its grade from
another attempt. Calls may come from several threads.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from realwork.dataset.ack import Begun, Commit, CommitAck, Request, Unfinished
from realwork.dataset.database import Database
from realwork.dataset.group_ledger import GROUP_TABLES, GroupLedger
from realwork.dataset.part_ledger import PART_TABLES, Committed, PartLedger
from realwork.errors import StoreError
from realwork.text import valid_unicode
from realwork.types import RolloutSpec, RolloutSummary

_TABLES = (
    "CREATE TABLE IF NOT EXISTS plan (rollout_id TEXT PRIMARY KEY) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS attempts (
    trajectory_id TEXT PRIMARY KEY,
    rollout_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    state TEXT NOT NULL,       -- running, committed
    node_id TEXT,
    status TEXT,
    failure_cause TEXT,
    began_at TEXT,
    committed_at TEXT,
    spec TEXT,                 -- JSON, unless it was committed without having begun
    summary TEXT,              -- JSON, once committed
    digest BLOB,
    part INTEGER               -- the part that holds the row, once it is sealed
    )""",
    "CREATE INDEX IF NOT EXISTS attempts_of_rollout ON attempts (rollout_id, attempt)",
    "CREATE TABLE IF NOT EXISTS unfinished (trajectory_id TEXT PRIMARY KEY, row BLOB NOT NULL)",
    *GROUP_TABLES,
    *PART_TABLES,
)

GRADED = ("completed", "truncated")
Pack = Callable[[Sequence[int]], tuple[bytes, bytes | None, int]]
"""Encodes the rows, and the samples, of the requests at these positions; with the bytes they take when decoded."""


class HeldRow(NamedTuple):
    """Where a committed row stands that no part holds yet: the encoded batch, and its place there."""

    rows: bytes
    place: int


class Ledger:
    """Opens the ledger at `path`, or begins one.

    Attributes:
        path: its file.
        parts: what it knows of parts, and of rows that none holds yet.

    Args:
        wait_s: how long a process that is about to end may keep this one waiting.

    Raises:
        StoreError: it cannot be written or read, or another process has it open.
    """

    def __init__(self, path: Path, *, wait_s: float = 10.0) -> None:
        self.path = path
        self._database = Database(path, tables=_TABLES, wait_s=wait_s)
        self._groups = GroupLedger(self._database)
        self.parts = PartLedger(self._database, self._groups)

    def copy(self, to: Path) -> None:
        """Write all that is known to another file, which must not be there.

        Raises:
            StoreError: it could not be written.
        """
        self._database.copy(to)

    def shrink(self) -> None:
        """Give what sealed rows took back to the disk, which takes a while, if no row is held any more."""
        with suppress(StoreError):
            if not self.parts.unsealed().rows:
                self._database.shrink()

    def close(self) -> None:
        """Let another process open it."""
        self._database.close()

    def plan(self, rollout_ids: Iterable[str]) -> None:
        """Note the rollouts that the run is to play.

        Raises:
            StoreError: nothing was written.
        """
        with self._database.writing():
            names = ((valid_unicode(name),) for name in rollout_ids)
            self._database.execute_all("INSERT OR IGNORE INTO plan VALUES (?)", names)

    def planned(self) -> list[str]:
        """The rollouts that the run is to play."""
        with self._database.reading():
            return [name for (name,) in self._database.execute("SELECT rollout_id FROM plan")]

    def apply(self, requests: Sequence[Request], waited_s: Sequence[float], pack: Pack) -> list[CommitAck | None]:
        """Write `requests` together; an ack for each commit among them.

        Args:
            waited_s: seconds for which each has waited.

        Raises:
            StoreError: nothing was written.
        """
        with self._database.writing():
            acks, new = [], {}
            with self._groups.counting() as note:
                for number, request in enumerate(requests):
                    ack = self._apply(number, request, pack)
                    acks.append(ack)
                    if isinstance(request, Commit) and ack is not None and ack.outcome == "committed":
                        new[number] = Committed(ack.trajectory_id, waited_s[number], note(request.summary))
            if new:
                self.parts.hold([*new.values()], *pack([*new]))
        return acks

    def _apply(self, number: int, request: Request, pack: Pack) -> CommitAck | None:
        match request:
            case Commit():
                return self._commit(request)
            case Unfinished(trajectory_id=trajectory_id):
                self._database.execute(
                    "INSERT OR REPLACE INTO unfinished SELECT ?1, ?2 "
                    "WHERE NOT EXISTS (SELECT 1 FROM attempts WHERE trajectory_id = ?1 AND state = 'committed')",
                    *(trajectory_id, pack([number])[0]),
                )
            case Begun(spec=spec, node_id=node_id):
                self._database.execute(
                    "INSERT OR IGNORE INTO attempts "
                    "(trajectory_id, rollout_id, attempt, state, node_id, began_at, spec) "
                    "VALUES (?, ?, ?, 'running', ?, datetime('now'), ?)",
                    *(spec.trajectory_id, spec.rollout_id, spec.attempt, node_id, spec.model_dump_json()),
                )
        return None

    def _commit(self, commit: Commit) -> CommitAck:
        standing = self._standing(commit)
        if standing is not None:
            return standing
        spec, summary = commit.spec, commit.summary
        self._database.execute(
            "INSERT INTO attempts "
            "(trajectory_id, rollout_id, attempt, state, status, failure_cause, committed_at, summary, digest) "
            "VALUES (?, ?, ?, 'committed', ?, ?, datetime('now'), ?, ?) "
            "ON CONFLICT (trajectory_id) DO UPDATE SET state = excluded.state, status = excluded.status, "
            "failure_cause = excluded.failure_cause, committed_at = excluded.committed_at, summary = excluded.summary, "
            "digest = excluded.digest",
            *(spec.trajectory_id, spec.rollout_id, spec.attempt, summary.status, summary.failure_cause),
            *(summary.model_dump_json(), commit.digest),
        )
        self._database.execute("DELETE FROM unfinished WHERE trajectory_id = ?", spec.trajectory_id)
        return CommitAck(trajectory_id=spec.trajectory_id, summary=summary)

    def _standing(self, commit: Commit) -> CommitAck | None:
        """The answer to a commit whose place is taken, null if it is free."""
        spec = commit.spec
        attempts = self._database.execute(
            "SELECT attempt, state, status, summary, digest FROM attempts WHERE rollout_id = ?", spec.rollout_id
        ).fetchall()
        for attempt, state, _, summary, digest in attempts:
            if attempt == spec.attempt and state == "committed":
                return CommitAck(
                    trajectory_id=spec.trajectory_id,
                    outcome="duplicate" if digest == commit.digest else "fenced",
                    summary=RolloutSummary.model_validate_json(summary),
                )
        others = [(attempt, status) for attempt, _, status, *_ in attempts if attempt != spec.attempt]
        if any(attempt > spec.attempt or status in GRADED for attempt, status in others):
            return CommitAck(trajectory_id=spec.trajectory_id, outcome="fenced")
        return None

    def summaries(self) -> Iterator[RolloutSummary]:
        """What is known of every committed attempt, in the order of their beginning; one at a time is in memory."""
        with self._database.reading():
            found = self._database.execute("SELECT summary FROM attempts WHERE state = 'committed' ORDER BY rowid")
            for (summary,) in found:
                yield RolloutSummary.model_validate_json(summary)

    def running(self) -> list[RolloutSpec]:
        """The attempts that have begun and have no row."""
        with self._database.reading():
            found = self._database.execute("SELECT spec FROM attempts WHERE state = 'running' ORDER BY rowid")
            return [RolloutSpec.model_validate_json(spec) for (spec,) in found]

    def unfinished(self, trajectory_id: str) -> bytes | None:
        """The last unfinished record of a running attempt, encoded, null if it has handed over none."""
        with self._database.reading():
            row: bytes | None = self._database.value(
                "SELECT row FROM unfinished WHERE trajectory_id = ?", trajectory_id
            )
            return row

    def find(self, trajectory_id: str) -> HeldRow | int | None:
        """Where the committed row of that id stands, or the number of the part that holds it; null if there is none."""
        with self._database.reading():
            held = self._database.row(
                "SELECT rows, place FROM held JOIN batches ON batches.number = batch WHERE trajectory_id = ?",
                trajectory_id,
            )
            if held is not None:
                return HeldRow(*held)
            part: int | None = self._database.value("SELECT part FROM attempts WHERE trajectory_id = ?", trajectory_id)
            return part

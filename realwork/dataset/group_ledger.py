"""What a ledger knows of groups: how many of their samples are graded. A group has all its rows in one ledger."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from realwork.dataset.database import Database
from realwork.types import RolloutSummary

GROUP_TABLES = ("CREATE TABLE IF NOT EXISTS groups (group_id TEXT PRIMARY KEY, graded INTEGER NOT NULL) WITHOUT ROWID",)

Note = Callable[[RolloutSummary], bool]
"""Takes note of a new row, whose rollout was not graded before; whether every sample of its group is graded now."""


class GroupLedger:
    """The part of a ledger that counts the graded samples of each group; its file is opened by the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def counting(self) -> Iterator[Note]:
        """What takes note of new rows within the block, and a transaction; the counts are written at its end."""
        counts: dict[str, int] = {}
        yield partial(self._note, counts)
        self._database.execute_all("INSERT OR REPLACE INTO groups VALUES (?, ?)", counts.items())

    def _note(self, counts: dict[str, int], summary: RolloutSummary) -> bool:
        spec, is_graded = summary.spec, summary.success is not None
        if spec.group_size == 1:
            return is_graded
        name = spec.group_id
        graded = counts.get(name)
        if graded is None:
            graded = self._database.value("SELECT graded FROM groups WHERE group_id = ?", name) or 0
        counts[name] = graded + is_graded
        return counts[name] >= spec.group_size

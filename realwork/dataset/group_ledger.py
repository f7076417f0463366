"""What a ledger knows of groups: how many of their samples are graded. A group has all its rows in one ledger."""

from realwork.dataset.database import Database
from realwork.types import RolloutSummary

GROUP_TABLES = ("CREATE TABLE IF NOT EXISTS groups (group_id TEXT PRIMARY KEY, graded INTEGER NOT NULL) WITHOUT ROWID",)


class GroupLedger:
    """The part of a ledger that counts the graded samples of each group; its file is opened by the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, summary: RolloutSummary) -> bool:
        """Take note of a new row; whether every sample of its group is graded now. Within a transaction.

        The rollout of a graded one must not have been graded before.
        """
        spec, is_graded = summary.spec, summary.success is not None
        if spec.group_size == 1:
            return is_graded
        if is_graded:
            graded = self._database.value(
                "INSERT INTO groups VALUES (?, 1) ON CONFLICT DO UPDATE SET graded = graded + 1 RETURNING graded",
                spec.group_id,
            )
        else:
            graded = self._database.value("SELECT graded FROM groups WHERE group_id = ?", spec.group_id) or 0
        return bool(graded >= spec.group_size)

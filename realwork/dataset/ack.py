"""What goes to the store and what it answers; a process that only hands over needs no Parquet library for these."""

from typing import Literal

from realwork.types import Record, RolloutSpec, RolloutSummary


class Commit(Record):
    """The finished record of one attempt as it goes to the store; `dataset.commits` makes it.

    Attributes:
        summary: what the driver is told of it.
        content: the row of `trajectories/` and the rows of `samples/`, packed.
        side_files: the big texts of the row that stand in files of their own, by SHA-256.
        digest: tells a commit that is sent again from another one of the same attempt.
    """

    summary: RolloutSummary
    content: bytes
    side_files: dict[str, bytes] = {}
    digest: bytes

    @property
    def spec(self) -> RolloutSpec:
        return self.summary.spec

    @property
    def trajectory_id(self) -> str:
        return self.spec.trajectory_id

    @property
    def size_bytes(self) -> int:
        return len(self.content)


class Unfinished(Record):
    """The record of a running attempt so far, in place of an earlier one."""

    trajectory_id: str
    content: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.content)


class Begun(Record):
    """An attempt that has begun on a node."""

    spec: RolloutSpec
    node_id: str
    size_bytes: int = 0


class Mark(Record):
    """Writes nothing; its answer says that what came before it of an attempt is on the disk."""

    trajectory_id: str
    size_bytes: int = 0


Request = Begun | Unfinished | Commit | Mark
"""What a store is asked to write."""


class CommitAck(Record):
    """What became of a commit; the row that counts is on the disk.

    Attributes:
        outcome: `duplicate` for a commit that was sent again; `fenced` for one of an attempt that has a row already,
            that a later attempt has taken the place of, or whose rollout was graded in another: nothing of it was
            written.
        summary: of the row that stands in the dataset for the attempt, null if it has none.
    """

    trajectory_id: str
    outcome: Literal["committed", "duplicate", "fenced"] = "committed"
    summary: RolloutSummary | None = None

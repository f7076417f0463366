"""What the store answers; apart from the store, so that a process which only commits needs no Parquet library."""

from realwork.types import Record


class CommitAck(Record):
    """A trajectory's row is on the disk.

    Attributes:
        duplicate: the row is that of an earlier commit of the same id; this one was left out.
    """

    trajectory_id: str
    duplicate: bool = False

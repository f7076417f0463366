"""A SQLite file that one process at a time has open.

Guarantees: what a transaction has written is on the disk when its block has ended, and survives the death of every
process; of a block that raised nothing is written. Calls may come from several threads.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from realwork.errors import StoreError

_DAMAGED = ("not a database", "malformed")
_BUSY = ("database is locked", "locking protocol")

# A write-ahead log in exclusive mode needs no shared memory, which network file systems do not have.
_OPEN = (
    "PRAGMA page_size = 16384",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA wal_autocheckpoint = 4000",
)


def peek(path: Path, statement: str) -> Any:
    """The first value that `statement` gives in the file at `path`, without opening it for others; null if none.

    What has not been moved from the log into the file is not seen.
    """
    address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            found = connection.execute(statement).fetchone()
    except sqlite3.Error:
        return None
    return None if found is None else found[0]


class Database:
    """Opens the file at `path`, or makes it.

    Args:
        tables: statements that make what is not there.
        wait_s: how long a process that is about to end may keep this one waiting.

    Raises:
        StoreError: it cannot be written or read, or another process has it open.
    """

    def __init__(self, path: Path, *, tables: Iterable[str], wait_s: float) -> None:
        self._path = path
        self._access = threading.Lock()
        try:
            self._connection = sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
            try:
                self._begin(tables)
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _begin(self, tables: Iterable[str]) -> None:
        for pragma in _OPEN:
            self._connection.execute(pragma)
        self._connection.execute("BEGIN EXCLUSIVE")  # the lock stays until it is closed
        for statement in tables:
            self._connection.execute(statement)
        self._connection.execute("COMMIT")

    def copy(self, to: Path) -> None:
        """Write all that is known to another file, which must not be there.

        Raises:
            StoreError: it could not be written.
        """
        with self.reading():
            self._connection.execute("VACUUM INTO ?", (str(to),))

    def shrink(self) -> None:
        """Give what was freed back to the disk, which takes a while.

        Raises:
            StoreError: it could not be written; nothing is lost.
        """
        with self.reading():
            self._connection.execute("VACUUM")

    def close(self) -> None:
        """Let another process open it."""
        with self._access:
            with suppress(sqlite3.Error):  # what was written is safe in the log
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Nobody else reads or writes within the block.

        Raises:
            StoreError: what was asked for in the block could not be read.
        """
        with self._access:
            try:
                yield
            except sqlite3.Error as error:
                raise self._error(error) from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """All of the block is written, or nothing.

        Raises:
            StoreError: nothing was written.
        """
        with self.reading():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Carry out one statement; within one of the blocks."""
        return self._connection.execute(statement, values)

    def execute_all(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Carry out one statement for each of `rows`; within `writing`."""
        self._connection.executemany(statement, rows)

    def row(self, statement: str, *values: Any) -> Any:
        """The first row of the answer, null if there is none; within one of the blocks."""
        return self._connection.execute(statement, values).fetchone()

    def value(self, statement: str, *values: Any) -> Any:
        """The first column of the first row of the answer, null if there is none; within one of the blocks."""
        found = self.row(statement, *values)
        return None if found is None else found[0]

    def _error(self, error: sqlite3.Error) -> StoreError:
        said = str(error)
        if any(words in said for words in _BUSY):
            return StoreError(f"another process writes into {self._path.parent}; use another run id, or wait for it")
        if any(words in said for words in _DAMAGED):
            return StoreError(
                f"{self._path} is damaged ({said}). Move it away to go on: the parts are taken over as they are, and "
                "what only it held is played again."
            )
        return StoreError(f"{self._path} could not be written or read: {said}")

"""The only writer of a run directory's trajectories.

Guarantees: an acknowledged trajectory is on the disk and survives the death of every process; the first completed
commit of an id wins and every later one is answered as a duplicate, also after a restart; a commit that failed left no
row. Rows that arrive while a part is written go together into the next one. Of a committed trajectory only its id is
kept in memory.
"""

import asyncio
import fcntl
import os
import time
from pathlib import Path
from typing import NamedTuple, Self

import pyarrow as pa

from realwork.errors import StoreError, blame
from realwork.text import valid_unicode
from realwork.trajectories.ack import CommitAck
from realwork.trajectories.durable import TEMPORARY_SUFFIX, durable_file, sync_directory
from realwork.trajectories.parts import FOLDER, encode, ids_in, part_files, part_name, part_number
from realwork.trajectories.rows import rows
from realwork.types import Trajectory

MAX_ROWS_PER_PART = 256


class _Waiting(NamedTuple):
    trajectory_id: str
    trajectory: Trajectory
    since: float
    answer: asyncio.Future[CommitAck]


class _Part(NamedTuple):
    """What became of a batch: the ids written, and why others could not be."""

    written: dict[str, _Waiting]
    refused: list[tuple[_Waiting, StoreError]]


class TrajectoryStore:
    """Writes the trajectories of one run; use it from one event loop.

    Opening reads the ids of the parts that are there and removes what a killed writer left behind. It blocks, for
    seconds at most; everything else does its writing in a thread.

    Args:
        lock_wait_s: how long a writer that is about to end may keep this one waiting.

    Raises:
        StoreError: the directory cannot be written or read, or another process writes there.
    """

    def __init__(self, directory: Path, *, lock_wait_s: float = 10.0) -> None:
        self._directory = directory
        self._folder = directory / FOLDER
        self._committed: set[str] = set()
        self._progress: dict[str, Trajectory] = {}
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None
        self._closed = False
        with blame(StoreError, f"{directory} cannot be used as a run directory"):
            self._folder.mkdir(parents=True, exist_ok=True)
            sync_directory(directory)
            sync_directory(directory.parent)
            self._lock = _lock(self._folder, lock_wait_s)
        try:
            self._next_number = self._take_up()
        except BaseException:
            os.close(self._lock)
            raise

    def _take_up(self) -> int:
        """Go on from what is on the disk; the number of the next part."""
        with blame(StoreError, f"{self._directory} cannot be used as a run directory"):
            for leftover in self._directory.glob(f".part-*{TEMPORARY_SUFFIX}"):
                leftover.unlink()
        number = 0
        for part in part_files(self._directory):
            with blame(StoreError, f"{part} is no complete part file, move it away to go on"):
                self._committed.update(ids_in(part))
            number = part_number(part) or 0
        return number + 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def commit(self, trajectory: Trajectory) -> CommitAck:
        """Write `trajectory`; when this returns, its row is on the disk.

        Raises:
            StoreError: it was not written; a further commit tries anew.
        """
        trajectory_id = valid_unicode(trajectory.spec.trajectory_id)
        if self._closed:
            raise StoreError(f"{trajectory_id} came after the store of {self._directory} was closed")
        if trajectory_id in self._committed:
            self._progress.pop(trajectory_id, None)
            return CommitAck(trajectory_id=trajectory_id, duplicate=True)
        waiting = _Waiting(trajectory_id, trajectory, time.monotonic(), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await waiting.answer

    def progress(self, trajectory: Trajectory) -> None:
        """Hold the unfinished record of a running attempt, in place of an earlier one."""
        trajectory_id = valid_unicode(trajectory.spec.trajectory_id)
        if trajectory_id not in self._committed:
            self._progress[trajectory_id] = trajectory

    def take_progress(self, trajectory_id: str) -> Trajectory | None:
        """The last unfinished record of an attempt, which is then forgotten; null if there is none."""
        return self._progress.pop(valid_unicode(trajectory_id), None)

    async def close(self) -> None:
        """Write what waits, then let another process write here. Closing twice is no error."""
        if self._closed:
            return
        self._closed = True
        if self._writer is not None:
            await self._writer
        os.close(self._lock)

    async def _write(self) -> None:
        """Write part after part until nothing waits."""
        while self._waiting:
            batch = self._waiting[:MAX_ROWS_PER_PART]
            del self._waiting[:MAX_ROWS_PER_PART]
            try:
                with blame(StoreError, f"{self._folder} could not be written, rows acknowledged before are safe"):
                    part = await asyncio.to_thread(self._write_part, batch)
            except StoreError as error:
                for waiting in batch:
                    _refuse(waiting, error)
            else:
                self._answer(batch, part)
        self._writer = None

    def _answer(self, batch: list[_Waiting], part: _Part) -> None:
        self._committed.update(part.written)
        for waiting, error in part.refused:
            _refuse(waiting, error)
        for waiting in batch:
            if waiting.trajectory_id not in self._committed:
                continue
            self._progress.pop(waiting.trajectory_id, None)
            if not waiting.answer.done():
                duplicate = part.written.get(waiting.trajectory_id) is not waiting
                waiting.answer.set_result(CommitAck(trajectory_id=waiting.trajectory_id, duplicate=duplicate))

    def _write_part(self, batch: list[_Waiting]) -> _Part:
        """Write the rows of `batch` whose ids are new; runs in a thread, one at a time.

        Raises:
            Exception: the file could not be written; there is none.
        """
        part = _Part({}, [])
        tables = []
        for waiting in batch:
            if waiting.trajectory_id in self._committed or waiting.trajectory_id in part.written:
                continue
            try:
                tables.append(_row(waiting))
                part.written[waiting.trajectory_id] = waiting
            except StoreError as error:
                part.refused.append((waiting, error))
        if tables:
            self._write_file(tables)
        return part

    def _write_file(self, tables: list[pa.Table]) -> None:
        content = encode(tables)
        path = self._folder / part_name(self._next_number)
        with durable_file(path, temporary_directory=self._directory) as file:
            file.write(content)
        self._next_number += 1


def _row(waiting: _Waiting) -> pa.Table:
    """The table of one row.

    Raises:
        StoreError: a value does not fit into its column.
    """
    timing = waiting.trajectory.timing.model_copy(update={"store_s": time.monotonic() - waiting.since})
    with blame(StoreError, f"{waiting.trajectory_id} cannot be written as a row"):
        return rows([waiting.trajectory.model_copy(update={"timing": timing})])


def _refuse(waiting: _Waiting, error: StoreError) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(StoreError(str(error)))


def _lock(folder: Path, wait_s: float) -> int:
    """A descriptor that keeps other writers out of `folder` until it is closed, or its process has ended.

    Raises:
        StoreError: another process holds it.
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                os.close(descriptor)
                raise StoreError(f"another process writes into {folder}; use another run id, or wait for it") from None
            time.sleep(0.1)
        except OSError:
            return descriptor
        else:
            return descriptor

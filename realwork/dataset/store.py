"""The only writer of a run directory's trajectories.

Guarantees: an acknowledged trajectory is on the disk and survives the death of every process; the first commit of an
attempt wins, also after a restart, and a late one of an attempt that was given up is fenced; a commit that failed left
no row. What arrives while a transaction is written goes together into the next one; what nobody waits for comes with
it, or begins one `WITHIN_S` after it arrived. Rows go from the ledger into parts in the background; the samples made of
them, where there are token ids, stand in the part of the same number below `samples/`. Nothing of a committed
trajectory is kept in memory.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

from realwork.dataset.ack import Begun, Commit, CommitAck, Mark, Request, Unfinished
from realwork.dataset.encoding import Batch, decode_trajectory
from realwork.dataset.ledger import HeldRow, Ledger
from realwork.dataset.mirror import Mirror
from realwork.dataset.part_writer import PartWriter
from realwork.dataset.read import in_part
from realwork.dataset.sealing import DEFAULTS, Sealer, Sealing
from realwork.dataset.shards import WHOLE, Shard
from realwork.dataset.side_files import side_file_reader, write_side_file
from realwork.errors import StoreError, blame
from realwork.faultpoints import pass_through
from realwork.text import valid_unicode
from realwork.types import Trajectory

log = logging.getLogger(__name__)
MAX_REQUESTS = 512
MAX_REQUEST_BYTES = 8 << 20
"""Most that one transaction holds."""
WITHIN_S = 1.0
"""So long may wait what nobody waits for; when its attempt is a short one, the row of that takes its place by then."""


class _Waiting(NamedTuple):
    request: Request
    since: float
    answer: asyncio.Future[CommitAck | None] | None = None


class TrajectoryStore:
    """Writes the trajectories of one run, or a shard of them; use it from one event loop.

    Opening goes on from what a killed writer has left. It blocks, for seconds at most; everything else does its writing
    in a thread.

    Args:
        mirror: where finished files are put besides.
        lock_wait_s: how long a writer that is about to end may keep this one waiting.

    Raises:
        StoreError: the directory cannot be written or read, or another process writes there.
    """

    def __init__(
        self,
        directory: Path,
        *,
        shard: Shard = WHOLE,
        sealing: Sealing = DEFAULTS,
        mirror: Mirror | None = None,
        lock_wait_s: float = 10.0,
    ) -> None:
        self._directory = directory
        with blame(StoreError, f"{directory} cannot be used as a run directory"):
            directory.mkdir(parents=True, exist_ok=True)
        self._ledger = Ledger(shard.ledger_file(directory), wait_s=lock_wait_s)
        try:
            sealer = Sealer(directory, self._ledger, shard, sealing)
        except BaseException:
            self._ledger.close()
            raise
        copy_out = partial(self._copy_out, mirror) if mirror is not None else None
        self._parts = PartWriter(directory, self._ledger, sealer=sealer, limits=sealing, copy_out=copy_out)
        self._waiting: list[_Waiting] = []
        self._unfinished: dict[str, _Waiting] = {}
        self._writer: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def plan(self, rollout_ids: Sequence[str]) -> None:
        """Note the rollouts that the run is to play.

        Raises:
            StoreError: it was not written.
        """
        self._parts.begin()
        await asyncio.to_thread(self._ledger.plan, rollout_ids)

    def begin(self, begun: Begun) -> None:
        """Note that an attempt has begun; it is written with what somebody waits for, or soon."""
        self._put(begun)

    def progress(self, unfinished: Unfinished) -> None:
        """Hold the unfinished record of a running attempt, in place of an earlier one; written if no row comes soon."""
        earlier = self._unfinished.get(unfinished.trajectory_id)
        since = time.monotonic() if earlier is None else earlier.since
        self._unfinished[unfinished.trajectory_id] = _Waiting(unfinished, since)
        self._work()

    async def commit(self, commit: Commit) -> CommitAck:
        """Write the row of an attempt; when this returns, it is on the disk.

        Raises:
            StoreError: it was not written; a further commit tries anew.
        """
        if self._closed:
            raise StoreError(f"{commit.spec.trajectory_id} came after the store of {self._directory} was closed")
        ack = await self._written(commit)
        if ack is None:
            raise StoreError(f"{commit.spec.trajectory_id} was given no answer")
        return ack

    async def _written(self, request: Request) -> CommitAck | None:
        answer: asyncio.Future[CommitAck | None] = asyncio.get_running_loop().create_future()
        self._put(request, answer)
        return await answer

    def _put(self, request: Request, answer: asyncio.Future[CommitAck | None] | None = None) -> None:
        self._waiting.append(_Waiting(request, time.monotonic(), answer))
        if answer is not None:
            self._hurry.set()
        self._work()

    def _work(self) -> None:
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        self._parts.begin()

    async def recall(self, trajectory_id: str) -> Trajectory | None:
        """The trajectory of that id as it was committed, null if it was not.

        Raises:
            StoreError: it cannot be read.
        """
        return await asyncio.to_thread(self._recall, valid_unicode(trajectory_id))

    def _recall(self, trajectory_id: str) -> Trajectory | None:
        match self._ledger.find(trajectory_id):
            case HeldRow(rows=rows, place=place):
                return decode_trajectory(rows, place, side_file_reader(self._directory))
            case int() as part:
                return in_part(self._directory, part, trajectory_id)
            case _:
                return None

    async def unfinished(self, trajectory_id: str) -> Trajectory | None:
        """The last unfinished record of a running attempt, null if there is none.

        Raises:
            StoreError: it cannot be read.
        """
        await self._written(Mark(trajectory_id=trajectory_id))
        row = await asyncio.to_thread(self._ledger.unfinished, valid_unicode(trajectory_id))
        return None if row is None else decode_trajectory(row, 0, side_file_reader(self._directory))

    async def close(self) -> None:
        """Write what waits and put it into parts, then let another process write here. Closing twice is no error.

        Raises:
            StoreError: not everything is in a part; what was acknowledged is in the ledger.
        """
        if self._closed:
            return
        self._closed = True
        self._hurry.set()
        if self._writer is not None:
            await self._writer
        try:
            await self._parts.close()
        finally:
            await asyncio.to_thread(self._close_ledger)

    def _close_ledger(self) -> None:
        self._ledger.shrink()
        self._ledger.close()

    async def seal(self) -> None:
        """Put every row that is in the ledger into parts.

        Raises:
            StoreError: a part could not be written; its rows are safe in the ledger.
        """
        await self._parts.seal()

    async def _write(self) -> None:
        """Write transaction after transaction until nothing waits."""
        while self._waiting or self._unfinished:
            await self._until_due()
            batch = self._next_batch()
            try:
                with blame(StoreError, f"{self._directory} could not be written"):
                    self._answer(batch, await asyncio.to_thread(self._apply, batch))
                    await self._parts.keep_up()
            except StoreError as error:
                _refuse(batch, error)
        self._writer = None

    async def _until_due(self) -> None:
        """Return when somebody waits for what waits, or when it has waited long enough."""
        if not self._hurry.is_set():
            since = min(each.since for each in (*self._waiting[:1], *self._unfinished.values()))
            with suppress(TimeoutError):
                async with asyncio.timeout(since + WITHIN_S - time.monotonic()):
                    await self._hurry.wait()

    def _next_batch(self) -> list[_Waiting]:
        """What the next transaction holds, in the order in which it came; what is asked for comes first."""
        size_bytes = 0
        batch: list[_Waiting] = []
        asked, due = self._due()
        in_order = sorted([*self._waiting[:MAX_REQUESTS], *due], key=lambda each: each.since)
        for waiting in [*asked, *in_order][:MAX_REQUESTS]:
            size_bytes += waiting.request.size_bytes
            if batch and size_bytes > MAX_REQUEST_BYTES:
                break
            batch.append(waiting)
        unfinished = [each.request.trajectory_id for each in batch if isinstance(each.request, Unfinished)]
        for trajectory_id in unfinished:
            del self._unfinished[trajectory_id]
        del self._waiting[: len(batch) - len(unfinished)]
        if not self._waiting and not self._closed:
            self._hurry.clear()
        return batch

    def _due(self) -> tuple[list[_Waiting], list[_Waiting]]:
        """The unfinished records that somebody asks for, and those that have waited long enough.

        Those of attempts whose row waits are not written.
        """
        before = time.monotonic() - (0.0 if self._closed else WITHIN_S)
        ended = {each.request.trajectory_id for each in self._waiting if isinstance(each.request, Commit)}
        marks = {each.request.trajectory_id for each in self._waiting if isinstance(each.request, Mark)}
        held = {name: each for name, each in self._unfinished.items() if name not in ended}
        asked = [held.pop(name) for name in marks & held.keys()]
        return asked, [each for each in held.values() if each.since <= before]

    def _copy_out(self, mirror: Mirror, is_last: bool) -> None:
        mirror.put_with(self._ledger, is_last=is_last)

    def _apply(self, waiting: list[_Waiting]) -> list[CommitAck | StoreError | None]:
        """Write what waits in one transaction; runs in a thread, one at a time.

        Raises:
            StoreError: nothing was written.
        """
        batch = _encoded([each.request for each in waiting])
        answers: list[CommitAck | StoreError | None] = [
            batch.errors.get(number) or self._side_file_error(each.request) for number, each in enumerate(waiting)
        ]
        good = [number for number, error in enumerate(answers) if error is None]
        now = time.monotonic()
        acks = self._ledger.apply(
            [waiting[number].request for number in good],
            [now - waiting[number].since for number in good],
            lambda places: batch.packed([good[place] for place in places]),
        )
        for number, ack in zip(good, acks, strict=True):
            answers[number] = ack
        pass_through("after-wal")
        return answers

    def _side_file_error(self, request: Request) -> StoreError | None:
        """Why the side files of a commit cannot be written; null when they are on the disk."""
        if isinstance(request, Commit):
            try:
                with blame(StoreError, f"{self._directory} could not be written"):
                    for name, content in request.side_files.items():
                        write_side_file(self._directory, name, content)
            except StoreError as error:
                return error
        return None

    def _answer(self, waiting: list[_Waiting], answers: list[CommitAck | StoreError | None]) -> None:
        rows = size_bytes = 0
        for each, answer in zip(waiting, answers, strict=True):
            if isinstance(answer, StoreError):
                _refuse([each], answer)
                continue
            if each.answer is not None and not each.answer.done():
                each.answer.set_result(answer)
            if answer is not None and answer.outcome == "committed":
                rows, size_bytes = rows + 1, size_bytes + each.request.size_bytes
                self._unfinished.pop(answer.trajectory_id, None)
        self._parts.add(rows=rows, size_bytes=size_bytes)


def _encoded(requests: Sequence[Request]) -> Batch:
    gc.disable()  # looking for garbage among so many new objects takes longer than making them
    try:
        return Batch(requests)
    finally:
        gc.enable()


def _refuse(waiting: Iterable[_Waiting], error: StoreError) -> None:
    for each in waiting:
        if each.answer is not None and not each.answer.done():
            each.answer.set_exception(StoreError(str(error)))

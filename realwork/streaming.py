"""A run as a stream of trajectories, each as soon as its row is on the disk."""

import asyncio
import contextlib
import queue
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

from realwork.dataset.earlier import earlier_summaries, seal_left
from realwork.dataset.encoding import table
from realwork.dataset.read import find
from realwork.distributed.driver import Driver
from realwork.distributed.result import Observer, RunResult
from realwork.distributed.source import TableSource
from realwork.errors import RunAborted, StoreError
from realwork.opening import SilentObserver, Where, opened
from realwork.runfile import RunFile, load_run_file
from realwork.schedule import EnvironmentProgress
from realwork.sweeping import sweep
from realwork.types import RolloutSpec, RolloutSummary, Trajectory

WAITING_TABLES = 64
LOOK_EVERY_S = 0.1


@overload
def stream(
    run_file: RunFile,
    *,
    groups: Literal[False] = False,
    run_id: str | None = None,
    address: str | None = None,
    observer: Observer | None = None,
) -> AsyncGenerator[Trajectory, None]: ...


@overload
def stream(
    run_file: RunFile,
    *,
    groups: Literal[True],
    run_id: str | None = None,
    address: str | None = None,
    observer: Observer | None = None,
) -> AsyncGenerator[list[Trajectory], None]: ...


def stream(
    run_file: RunFile,
    *,
    groups: bool = False,
    run_id: str | None = None,
    address: str | None = None,
    observer: Observer | None = None,
) -> AsyncGenerator[Any, None]:
    """Play `run_file` and hand out every graded trajectory as soon as it is committed.

    Rollouts without a grade are not handed out; they stand in the dataset with all the others. The run does not wait
    for whoever reads the stream; what is not read yet waits on the disk. Closing the stream interrupts the run. While
    Ray starts, the event loop is blocked for seconds.

    Args:
        groups: hand out all graded trajectories of an environment together, when nothing of it is left to play, those
            of an earlier start of the run included. Environments that an earlier start has brought to their end are
            not handed out again: `realwork.trajectories` has them.
        address: of the Ray cluster to join; null takes the one that this process has joined, or starts a local one.

    Raises:
        InputError: something that the run needs is missing; nothing was started.
        RunAborted: the run could not go on; what was played is in the dataset.
    """
    return _stream(run_file, groups, run_id, address, _Finished(observer or SilentObserver()))


def rollout_source(
    path: Path | str, *, overrides: Mapping[str, Mapping[str, object]] | None = None, run_id: str | None = None
) -> TableSource:
    """A source of `ray.data.read_datasource` that plays a run file and gives each graded trajectory as it is committed.

    Rows have the columns of the dataset. The driver runs in the read task: the file, its folders and the key must be
    there; and the run's directory is on that node.

    Args:
        overrides: as of `load_run_file`.
    """
    return TableSource("Rollouts", partial(_tables, str(path), overrides or {}, run_id))


def _tables(path: str, overrides: Mapping[str, Mapping[str, object]], run_id: str | None) -> Iterator[Any]:
    """A table for each graded trajectory; the run goes on while nobody asks for the next one."""
    found: queue.Queue[Any] = queue.Queue(maxsize=WAITING_TABLES)
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def play() -> None:
        task = asyncio.current_task()
        assert task is not None
        begun.set_result((asyncio.get_running_loop(), task))
        async with contextlib.aclosing(stream(load_run_file(path, overrides=overrides), run_id=run_id)) as played:
            async for trajectory in played:
                await asyncio.to_thread(found.put, table([trajectory]))

    with ThreadPoolExecutor(max_workers=1) as thread:
        playing = thread.submit(asyncio.run, play())
        try:
            while not (playing.done() and found.empty()):
                with contextlib.suppress(queue.Empty):
                    yield found.get(timeout=LOOK_EVERY_S)
            playing.result()
        finally:
            _cut(playing, begun, found)


def _cut(playing: Future[None], begun: Future[Any], found: queue.Queue[Any]) -> None:
    """Interrupt what nobody reads any longer, and wait for its end."""
    if playing.done():
        return
    loop, task = begun.result()
    with contextlib.suppress(RuntimeError):  # it has come to its end just now
        loop.call_soon_threadsafe(task.cancel)
    while not playing.done():
        with contextlib.suppress(queue.Empty):
            found.get(timeout=LOOK_EVERY_S)


async def _stream(
    run_file: RunFile, groups: bool, run_id: str | None, address: str | None, finished: "_Finished"
) -> AsyncGenerator[Any, None]:
    with opened(run_file, run_id=run_id, where=Where(address), takes_changes=False, observer=finished) as driver:
        if isinstance(driver, RunResult):
            return
        if groups:
            finished.take_up(earlier_summaries(driver.directory))
        playing = asyncio.create_task(driver.run())
        playing.add_done_callback(lambda _: finished.rows.put_nowait(None))
        try:
            async for specs in finished.groups() if groups else finished.singly():
                found = [await _recalled(driver, spec) for spec in specs]
                yield found if groups else found[0]
            result = await playing
        finally:
            await _interrupted(driver, playing)
            await sweep(run_file.config, driver.run_id)
    if result.aborted:
        raise RunAborted(result.aborted)


async def _recalled(driver: Driver, spec: RolloutSpec) -> Trajectory:
    """The committed trajectory of an attempt.

    Raises:
        StoreError: it cannot be read.
    """
    found = await driver.stores.recall(spec) if driver.stores is not None else None
    if found is None and driver.stores is None:  # they may have been killed with rows in their ledgers
        await asyncio.to_thread(seal_left, driver.directory)
    if found is None:
        found = await asyncio.to_thread(lambda: next(find(driver.directory, spec.trajectory_id), None))
    if found is None or found.spec.trajectory_id != spec.trajectory_id:
        raise StoreError(f"{spec.trajectory_id} is not in {driver.directory}")
    return found


async def _interrupted(driver: Driver, playing: asyncio.Task[RunResult]) -> None:
    """Cut what is still being played, and wait for its rows."""
    if not playing.done():
        interrupting = asyncio.create_task(driver.interrupt())
        await asyncio.wait([playing])
        interrupting.cancel()


class _Told(NamedTuple):
    """The end of an attempt; whether it has a grade, and nothing of its environment is left to play."""

    spec: RolloutSpec
    is_graded: bool
    is_last: bool


class _Finished:
    """The graded rollouts of a run, as they come; passes on what it is told."""

    def __init__(self, observer: Observer) -> None:
        self.rows: asyncio.Queue[_Told | None] = asyncio.Queue()
        self._observer = observer
        self._graded: defaultdict[str, list[RolloutSpec]] = defaultdict(list)
        self.rollout_started = observer.rollout_started
        self.doing = observer.doing
        self.note = observer.note

    def started(self, output: str, progress: list[EnvironmentProgress], slots: int) -> None:
        """See `Observer`."""
        for each in progress:
            if each.done == each.planned:  # it is not handed out again
                self._graded.pop(each.environment_id, None)
        self._observer.started(output, progress, slots)

    def rollout_finished(self, summary: RolloutSummary, progress: EnvironmentProgress) -> None:
        """See `Observer`."""
        self._observer.rollout_finished(summary, progress)
        is_last = progress.done == progress.planned
        self.rows.put_nowait(_Told(summary.spec, is_graded=summary.success is not None, is_last=is_last))

    async def singly(self) -> AsyncIterator[list[RolloutSpec]]:
        """Each graded one."""
        while (told := await self.rows.get()) is not None:
            if told.is_graded:
                yield [told.spec]

    def take_up(self, earlier: Iterable[RolloutSummary]) -> None:
        """Let those of an earlier start, too, be members of their groups."""
        for summary in earlier:
            if summary.success is not None:
                self._graded[summary.spec.environment_id].append(summary.spec)

    async def groups(self) -> AsyncIterator[list[RolloutSpec]]:
        """Those of each environment, when nothing of it is left to play."""
        while (told := await self.rows.get()) is not None:
            name = told.spec.environment_id
            if told.is_graded:
                self._graded[name].append(told.spec)
            if told.is_last and (group := self._graded.pop(name, None)):
                yield sorted(group, key=lambda spec: spec.sample_index)

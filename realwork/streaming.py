"""A run as a stream of trajectories, each as soon as its row is on the disk."""

import asyncio
import queue
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

from realwork.dataset.earlier import earlier_summaries
from realwork.dataset.encoding import table
from realwork.dataset.read import find
from realwork.distributed.driver import Driver
from realwork.distributed.result import Observer, RunResult
from realwork.distributed.source import TableSource
from realwork.errors import RunAborted, StoreError
from realwork.opening import SilentObserver, opened
from realwork.runfile import RunFile, load_run_file
from realwork.schedule import EnvironmentProgress
from realwork.sweeping import sweep
from realwork.types import RolloutSpec, RolloutSummary, Trajectory

WAITING_TABLES = 64


@overload
def stream(
    run_file: RunFile,
    *,
    groups: Literal[False] = False,
    run_id: str | None = None,
    address: str | None = None,
    observer: Observer | None = None,
) -> AsyncIterator[Trajectory]: ...


@overload
def stream(
    run_file: RunFile,
    *,
    groups: Literal[True],
    run_id: str | None = None,
    address: str | None = None,
    observer: Observer | None = None,
) -> AsyncIterator[list[Trajectory]]: ...


def stream(
    run_file: RunFile,
    *,
    groups: bool = False,
    run_id: str | None = None,
    address: str | None = None,
    observer: Observer | None = None,
) -> AsyncIterator[Any]:
    """Play `run_file` and hand out every graded trajectory as soon as it is committed.

    Rollouts without a grade are not handed out; they stand in the dataset with all the others. The run does not wait
    for whoever reads the stream; what is not read yet waits on the disk. Closing the stream interrupts the run. While
    Ray starts, the event loop is blocked for seconds.

    Args:
        groups: hand out all graded trajectories of an environment together, when nothing of it is left to play, those
            of an earlier start of the run included.
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

    async def play() -> None:
        async for trajectory in stream(load_run_file(path, overrides=overrides), run_id=run_id):
            await asyncio.to_thread(found.put, table([trajectory]))

    with ThreadPoolExecutor(max_workers=1) as thread:
        playing = thread.submit(asyncio.run, play())
        playing.add_done_callback(lambda _: found.put(None))
        while (rows := found.get()) is not None:
            yield rows
        playing.result()


async def _stream(
    run_file: RunFile, groups: bool, run_id: str | None, address: str | None, finished: "_Finished"
) -> AsyncIterator[Any]:
    with opened(run_file, run_id=run_id, address=address, takes_changes=False, observer=finished) as driver:
        if isinstance(driver, RunResult):
            return
        earlier = [*earlier_summaries(driver.directory)] if groups else []
        playing = asyncio.create_task(driver.run())
        playing.add_done_callback(lambda _: finished.rows.put_nowait(None))
        try:
            async for specs in finished.groups(earlier) if groups else finished.singly():
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
    if found is None:
        found = await asyncio.to_thread(lambda: next(find(driver.directory, spec.trajectory_id), None))
    if found is None:
        raise StoreError(f"{spec.trajectory_id} is not in {driver.directory}")
    return found


async def _interrupted(driver: Driver, playing: asyncio.Task[RunResult]) -> None:
    """Cut what is still being played, and wait for its rows."""
    if not playing.done():
        interrupting = asyncio.create_task(driver.interrupt())
        await asyncio.wait([playing])
        interrupting.cancel()


class _Finished:
    """The graded rollouts of a run, as they come; passes on what it is told."""

    def __init__(self, observer: Observer) -> None:
        self.rows: asyncio.Queue[tuple[RolloutSummary, EnvironmentProgress] | None] = asyncio.Queue()
        self._observer = observer
        self.started = observer.started
        self.rollout_started = observer.rollout_started
        self.doing = observer.doing
        self.note = observer.note

    def rollout_finished(self, summary: RolloutSummary, progress: EnvironmentProgress) -> None:
        """See `Observer`."""
        self._observer.rollout_finished(summary, progress)
        self.rows.put_nowait((summary, progress))

    async def singly(self) -> AsyncIterator[list[RolloutSpec]]:
        """Each graded one."""
        while (told := await self.rows.get()) is not None:
            summary, _ = told
            if summary.success is not None:
                yield [summary.spec]

    async def groups(self, earlier: Iterable[RolloutSummary]) -> AsyncIterator[list[RolloutSpec]]:
        """Those of each environment, `earlier` ones included, when nothing of it is left to play."""
        graded: defaultdict[str, list[RolloutSpec]] = defaultdict(list)
        for summary in earlier:
            if summary.success is not None:
                graded[summary.spec.environment_id].append(summary.spec)
        while (told := await self.rows.get()) is not None:
            summary, progress = told
            if summary.success is not None:
                graded[summary.spec.environment_id].append(summary.spec)
            if progress.done == progress.planned and (group := graded.pop(summary.spec.environment_id, None)):
                yield sorted(group, key=lambda spec: spec.sample_index)

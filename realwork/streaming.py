"""A run as a stream of trajectories, each as soon as its row is on the disk."""

import asyncio
import contextlib
import queue
from collections import Counter, defaultdict
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
        groups: hand out the trajectories of a group together, when nothing of it is left to play, those of an earlier
            start of the run included: all samples of it, or those that were played when episode control ended its
            environment early. The observer is told of a group that lacks grades because rollouts failed; it is not
            handed out. Nor is, again, what an earlier start has brought to its end: `realwork.trajectories` has it.
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
    """The end of an attempt.

    Attributes:
        is_graded: it has a grade.
        is_lost: it has none, and its rollout gets no new attempt.
        is_last: nothing of its environment is left to play.
        is_cut_short: episode control has made some of its environment's rollouts unnecessary.
    """

    spec: RolloutSpec
    is_graded: bool
    is_lost: bool
    is_last: bool
    is_cut_short: bool


class _Group:
    """The rollouts of a group that have ended and will not be played again."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.graded: dict[int, RolloutSpec] = {}
        self.lost: set[int] = set()

    def add(self, told: _Told) -> None:
        """Take note of the end of one of its attempts."""
        if told.is_graded:
            self.graded[told.spec.sample_index] = told.spec
        elif told.is_lost:
            self.lost.add(told.spec.sample_index)

    @property
    def is_whole(self) -> bool:
        return len(self.graded) >= self.size

    @property
    def is_over(self) -> bool:
        return len(self.graded) + len(self.lost) >= self.size

    def members(self) -> list[RolloutSpec]:
        """Those that are graded, in the order of their samples."""
        return [self.graded[sample] for sample in sorted(self.graded)]


class _Finished:
    """The graded rollouts of a run, as they come; passes on what it is told."""

    def __init__(self, observer: Observer) -> None:
        self.rows: asyncio.Queue[_Told | None] = asyncio.Queue()
        self._observer = observer
        self._open: defaultdict[str, dict[str, _Group]] = defaultdict(dict)
        self._failed: Counter[str] = Counter()
        self.rollout_started = observer.rollout_started
        self.looks_at = observer.looks_at
        self.looked = observer.looked
        self.doing = observer.doing
        self.note = observer.note

    def started(self, output: str, progress: list[EnvironmentProgress], slots: int) -> None:
        """See `Observer`."""
        for each in progress:
            self._failed[each.environment_id] = each.failed
            if each.done == each.planned:  # it is not handed out again
                self._open.pop(each.environment_id, None)
        self._observer.started(output, progress, slots)

    def rollout_finished(self, summary: RolloutSummary, progress: EnvironmentProgress) -> None:
        """See `Observer`."""
        self._observer.rollout_finished(summary, progress)
        environment_id = summary.spec.environment_id
        is_lost = progress.failed > self._failed[environment_id]
        self._failed[environment_id] = progress.failed
        self.rows.put_nowait(
            _Told(
                summary.spec,
                is_graded=summary.success is not None,
                is_lost=is_lost,
                is_last=progress.done == progress.planned,
                is_cut_short=progress.skipped > 0,
            )
        )

    async def singly(self) -> AsyncIterator[list[RolloutSpec]]:
        """Each graded one."""
        while (told := await self.rows.get()) is not None:
            if told.is_graded:
                yield [told.spec]

    def take_up(self, earlier: Iterable[RolloutSummary]) -> None:
        """Let those of an earlier start, too, be members of their groups; whole ones are not handed out again."""
        for summary in earlier:
            if summary.success is not None:
                self._group(summary.spec).graded[summary.spec.sample_index] = summary.spec
        for environment_id, groups in self._open.items():
            self._open[environment_id] = {name: group for name, group in groups.items() if not group.is_whole}

    def _group(self, spec: RolloutSpec) -> _Group:
        return self._open[spec.environment_id].setdefault(spec.group_id, _Group(spec.group_size))

    async def groups(self) -> AsyncIterator[list[RolloutSpec]]:
        """Those of each group, when nothing of it is left to play."""
        while (told := await self.rows.get()) is not None:
            group = self._group(told.spec)
            group.add(told)
            groups = self._open[told.spec.environment_id]
            for name in [*groups] if told.is_last else [told.spec.group_id] if group.is_over else []:
                ended = groups.pop(name)
                if not (ended.is_whole or (told.is_cut_short and not ended.lost)):
                    missing = ended.size - len(ended.graded)
                    self.note(f"group {name} is not handed out: {missing} of its {ended.size} rollouts have no grade")
                elif ended.graded:
                    yield ended.members()

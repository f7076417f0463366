"""The driver: plans the run, keeps the actors busy, and tells what became of every rollout.

Guarantees: a rollout is started once at a time; every started one ends with a row, written by its actor or, if that is
gone, by the store; no rollout waits for ever, whatever its actor does. Trajectories never pass through here.
"""

import asyncio
import contextlib
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from realwork.distributed.answers import answer
from realwork.distributed.hooks import RayCalls
from realwork.distributed.slot import STORE_WAIT_S, STORE_WAIT_STOPPING_S, Slot
from realwork.distributed.store_actor import StoreActor
from realwork.errors import PluginError, RealworkError
from realwork.plugins.managing import Decision, RunPlugins
from realwork.record import RolloutSettings
from realwork.schedule import EnvironmentProgress, Schedule
from realwork.types import Record, RolloutSpec, RolloutSummary

STOP_GRACE_S = 15.0
LONGEST_PAUSE_S = 30.0
HIGH_USAGE_TOKENS = 100_000


class Observer(Protocol):
    """Is told what happens, in the driver's process; must not block."""

    def started(self, directory: Path, progress: list[EnvironmentProgress], slots: int) -> None:
        """The run begins, with at most `slots` rollouts at once; where each environment stands."""

    def rollout_started(self, spec: RolloutSpec) -> None:
        """An attempt begins."""

    def rollout_finished(self, summary: RolloutSummary, progress: EnvironmentProgress) -> None:
        """An attempt has its row; where its environment stands now."""

    def doing(self, message: str) -> None:
        """Something that takes a while begins."""

    def note(self, message: str) -> None:
        """Something that the user should know."""


class RunResult(Record):
    """How a run ended.

    Attributes:
        failures: rollouts without a grade that get no new attempt, by cause.
        aborted: why the run could not go on, null if it did.
    """

    run_id: str
    directory: str
    environments: tuple[EnvironmentProgress, ...]
    failures: dict[str, int]
    interrupted: bool = False
    aborted: str | None = None
    duration_s: float

    @property
    def exit_code(self) -> int:
        """0: every planned rollout is graded or was made unnecessary; 1: some are not; 130: interrupted."""
        if self.interrupted:
            return 130
        done = all(each.graded + each.skipped == each.planned for each in self.environments)
        return 0 if done and self.aborted is None else 1


def finished_result(schedule: Schedule, *, run_id: str, directory: Path) -> RunResult:
    """The result of a run of which nothing is left to play."""
    environments = tuple(schedule.progress())
    return RunResult(run_id=run_id, directory=str(directory), environments=environments, failures={}, duration_s=0.0)


class Driver:
    """One run on the Ray that this process is connected to."""

    def __init__(
        self,
        settings: RolloutSettings,
        schedule: Schedule,
        *,
        run_id: str,
        directory: Path,
        slots: int,
        observer: Observer,
    ) -> None:
        self._settings = settings
        self._schedule = schedule
        self._run_id = run_id
        self._directory = directory
        self._slots = slots
        self._observer = observer
        self._plugins = RunPlugins(settings.plugins, settings.config, RayCalls())
        self._timeout_multipliers: dict[str, float] = {}
        self._failures: Counter[str] = Counter()
        self._changed = asyncio.Condition()
        self._slots_in_use: set[Slot] = set()
        self._warns_of_usage = settings.config.llm_config.warn_high_usage
        self._failing_plugins: set[str] = set()
        self._stopping = asyncio.Event()
        self._interrupted = False
        self._aborted: str | None = None
        self._began = time.monotonic()

    async def run(self) -> RunResult:
        """Play every rollout of the schedule."""
        store: Any = ray.remote(StoreActor).options(**_store_options()).remote(str(self._directory))
        shared = ray.put(self._settings)
        progress = self._schedule.progress()
        slots = min(self._slots, sum(each.waiting for each in progress))
        self._observer.started(self._directory, progress, slots)
        self._plugins.begin()
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(slots):
                    tasks.create_task(self._keep_busy(Slot(self._settings, shared, store)))
            await self._close(store)
        finally:
            ray.kill(store)
        if not self._interrupted:
            for name, error in (await self._plugins.end()).items():
                self._observer.note(f"plugin {name}: {error}")
        return self._result()

    async def _close(self, store: Any) -> None:
        try:
            async with asyncio.timeout(STORE_WAIT_STOPPING_S if self._stopping.is_set() else STORE_WAIT_S):
                await answer(store.close.remote())
        except (RayError, RealworkError, TimeoutError) as error:
            self._aborted = self._aborted or f"the store did not close: {error}"

    async def interrupt(self) -> None:
        """Start nothing more and cut what is in flight; `run` returns soon, with what is stuck killed."""
        self._interrupted = True
        await self._stop()
        await asyncio.sleep(STOP_GRACE_S)
        for slot in self._slots_in_use:
            slot.kill()

    async def _stop(self, why: str | None = None) -> None:
        """Start nothing more and cut what is in flight; `why` the run cannot go on, null for an interruption."""
        self._aborted = self._aborted or why
        self._stopping.set()
        for slot in self._slots_in_use:
            slot.stop()
        async with self._changed:
            self._changed.notify_all()

    async def _keep_busy(self, slot: Slot) -> None:
        """Play one rollout after the other in `slot`, until there are no more."""
        self._slots_in_use.add(slot)
        slot.begin()
        try:
            while (spec := await self._next()) is not None:
                await self._pause_before(spec)
                self._observer.rollout_started(spec)
                factor = self._timeout_multipliers.get(spec.environment_id, 1.0)
                queue_s = time.monotonic() - self._began
                summary = await self._prepare(slot, spec, factor)
                if summary is None:
                    summary = await slot.play(spec, queue_s=queue_s, timeout_multiplier=factor)
                await self._record(summary, await self._decide(summary))
        except (RayError, RealworkError, TimeoutError) as error:
            await self._stop(f"no row can be written: {error}")
        finally:
            self._slots_in_use.discard(slot)
            slot.kill()

    async def _pause_before(self, spec: RolloutSpec) -> None:
        """Give what failed the last attempt time to recover: 1, 2, 4 s and so on, cut short when the run stops."""
        if spec.attempt and not self._stopping.is_set():
            pause_s = min(LONGEST_PAUSE_S, 2.0 ** (spec.attempt - 1))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)

    async def _prepare(self, slot: Slot, spec: RolloutSpec, factor: float) -> RolloutSummary | None:
        """Prepare the environment of `spec`, if that is to do; null, or how `spec` ended because that failed."""
        environment_id = spec.environment_id
        if self._schedule.is_prepared(environment_id):
            return None
        commands = len(self._settings.config.environment(environment_id).init_commands)
        what = f"{commands} init command{'' if commands == 1 else 's'}" if commands else "copied folders"
        message = f"Preparing environment {environment_id}: {what}"
        on_long = partial(self._observer.doing, message)
        summary = await slot.prepare(spec, timeout_multiplier=factor, on_long=on_long)
        if summary is None:
            async with self._changed:
                self._schedule.prepared(environment_id)
                self._changed.notify_all()
        return summary

    async def _next(self) -> RolloutSpec | None:
        """The next rollout, as soon as there is one; null when there will be none."""
        async with self._changed:
            while not self._stopping.is_set():
                if (spec := self._schedule.next()) is not None:
                    return spec
                if self._schedule.finished:
                    return None
                await self._changed.wait()
        return None

    async def _decide(self, summary: RolloutSummary) -> Decision:
        """What the rollout managers make of `summary`."""
        try:
            return Decision() if self._stopping.is_set() else await self._plugins.after(summary)
        except PluginError as error:
            await self._stop(str(error))
            return Decision()

    async def _record(self, summary: RolloutSummary, decision: Decision) -> None:
        async with self._changed:
            environment_id = summary.spec.environment_id
            failed_before = self._schedule.progress_of(environment_id).failed
            self._carry_out(decision, environment_id)
            self._schedule.record(summary)
            progress = self._schedule.progress_of(environment_id)
            if progress.failed > failed_before:
                self._failures[summary.failure_cause or "unknown"] += progress.failed - failed_before
            self._changed.notify_all()
        if summary.aborts_run and not self._stopping.is_set():
            await self._stop(summary.error_message)
        self._warn_of_usage(summary)
        self._warn_of_plugins(summary)
        self._observer.rollout_finished(summary, progress)

    def _warn_of_usage(self, summary: RolloutSummary) -> None:
        tokens = summary.prompt_tokens + summary.completion_tokens
        if self._warns_of_usage and tokens > HIGH_USAGE_TOKENS:
            self._warns_of_usage = False
            self._observer.note(f"warning: {summary.spec.trajectory_id} used {tokens} tokens")

    def _warn_of_plugins(self, summary: RolloutSummary) -> None:
        """Say once of each plugin that it fails; the rows say it every time."""
        for name, error in summary.plugin_errors.items():
            if name not in self._failing_plugins:
                self._failing_plugins.add(name)
                self._observer.note(f"warning: plugin {name} failed in {summary.spec.trajectory_id}: {error}")

    def _carry_out(self, decision: Decision, environment_id: str) -> None:
        strategy = decision.strategy
        if strategy.max_retries is not None:
            self._schedule.set_max_retries(environment_id, strategy.max_retries)
        if strategy.timeout_multiplier is not None:
            self._timeout_multipliers[environment_id] = strategy.timeout_multiplier
        if decision.stopped_by is not None:
            self._schedule.stop_environment(environment_id)

    def _result(self) -> RunResult:
        return RunResult(
            run_id=self._run_id,
            directory=str(self._directory),
            environments=tuple(self._schedule.progress()),
            failures=dict(self._failures),
            interrupted=self._interrupted,
            aborted=self._aborted,
            duration_s=time.monotonic() - self._began,
        )


def _store_options() -> dict[str, Any]:
    """The store stands on the driver's node, where the output path was checked; it restarts from disk alone."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return {"num_cpus": 0, "max_restarts": 3, "max_task_retries": 3, "scheduling_strategy": here}

"""The driver: plans the run, keeps the actors busy, and tells what became of every rollout.

Guarantees: a rollout is started once at a time; every started one ends with a row, written by its actor or, if that is
gone, by the store; no rollout waits for ever, whatever its actor does. Trajectories never pass through here.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from ray.exceptions import RayError

from realwork.dataset.run_directory import note_plugins
from realwork.distributed.answers import answer
from realwork.distributed.gate import FIRST_PAUSE_S, OPTIONS, GateActor, Pause, watch_pauses
from realwork.distributed.hooks import RayCalls
from realwork.distributed.hosts import Host
from realwork.distributed.result import Notices, Observer, RunResult
from realwork.distributed.slot import STORE_WAIT_S, STORE_WAIT_STOPPING_S, Slot
from realwork.distributed.store_actor import start_stores
from realwork.distributed.stores import Stores
from realwork.errors import PluginError, RealworkError, StoreError
from realwork.model.budget import Budget, Used, has_limit
from realwork.plugins.managing import Decision, RunPlugins
from realwork.record import RolloutSettings
from realwork.schedule import Schedule
from realwork.secret import Secret
from realwork.types import RolloutSpec, RolloutSummary

log = logging.getLogger(__name__)
STOP_GRACE_S = 15.0
TOLD_PAUSE_S = 5.0
LONGEST_PAUSE_S = 30.0
BAD_REQUESTS = 5
"""So many first attempts with nothing but bad requests say that no other will be better."""


class Driver:
    """One run, whose actors are where `host` has them.

    Attributes:
        run_id: of the run.
        directory: of the run.
        stores: of the run while it goes on, else null.
    """

    def __init__(
        self,
        host: Host,
        settings: RolloutSettings,
        schedule: Schedule,
        used: Used,
        *,
        given_key: Secret | None,
        run_id: str,
        directory: Path,
        url: str | None,
        slots: int,
        observer: Observer,
    ) -> None:
        self._host = host
        self._settings = settings
        self._schedule = schedule
        self._used = used
        self._given_key = given_key
        self.run_id = run_id
        self.directory = directory
        self._url = url
        self._slots = slots
        self._observer = observer
        self._plugins = RunPlugins(settings.plugins, settings.config, host.calls or RayCalls())
        self._timeout_multipliers: dict[str, float] = {}
        self._failures: Counter[str] = Counter()
        self._recorded = self._bad_requests = 0
        self._changed = asyncio.Condition()
        self._slots_in_use: set[Slot] = set()
        self._notices = Notices(observer, warns_of_usage=settings.config.llm_config.warn_high_usage)
        self._stopping = asyncio.Event()
        self.stores: Stores | None = None
        self._open_at = 0.0
        self._interrupted = False
        self._aborted: str | None = None
        self._spent: str | None = None
        self._began = time.monotonic()

    async def run(self) -> RunResult:
        """Play every rollout of the schedule."""
        wanted = self._settings.config.rollout_config.store_shards
        stores = self.stores = start_stores(self._host, self.directory, self._url, wanted=wanted, slots=self._slots)
        gate = self._open_gate()
        shared = self._host.share(self._settings)
        key = [self._host.share(self._given_key.get_secret_value().encode())] if self._given_key else []
        progress = self._schedule.progress()
        slots = min(self._slots, sum(each.waiting for each in progress))
        self._observer.started(self._url or str(self.directory), progress, slots)
        self._plugins.begin()
        watching = asyncio.create_task(self._watch(gate)) if gate is not None else None
        try:
            async with asyncio.TaskGroup() as tasks:
                planned = tasks.create_task(self._plan(stores))
                for _ in range(slots):
                    slot = Slot(self._host, self._settings, shared, stores, gate, key)
                    tasks.create_task(self._keep_busy(slot, planned))
            await self._close(stores)
        finally:
            self.stores = None
            stores.kill(self._host)
            if watching is not None:
                watching.cancel()
                self._host.kill(gate)
            await self._host.close()
        if not self._interrupted:
            for name, error in (await self._plugins.end()).items():
                self._observer.note(f"plugin {name}: {error}")
        self._note_plugins()
        return self._result()

    def _note_plugins(self) -> None:
        if said := self._plugins.data():
            try:
                note_plugins(self.directory, said)
            except StoreError as error:
                self._observer.note(f"{error}")

    def _open_gate(self) -> Any:
        """The gate of the run's endpoint, null where none is asked; spent budgets of an earlier start hold at once."""
        llm = self._settings.config.llm_config
        if self._settings.script is not None:
            return None
        self._withhold(Budget(llm, self._used).spent())
        told = llm.model_copy(update={"headers": {}, "extra_body": {}})  # Ray keeps what it is made with
        return self._host.start(GateActor, told, self._used, is_here=True, **OPTIONS)

    async def _watch(self, gate: Any) -> None:
        """Tell of pauses, and begin no further environment once a budget is used up."""
        async with asyncio.TaskGroup() as watches:
            watches.create_task(watch_pauses(gate, self._tell_of_pause))
            if has_limit(self._settings.config.llm_config):
                watches.create_task(self._watch_budget(gate))

    def _tell_of_pause(self, pause: Pause) -> None:
        self._open_at = time.monotonic() + pause.left_s
        if pause.left_s >= TOLD_PAUSE_S:
            self._observer.doing(f"The endpoint wants no request for {pause.left_s:.0f} s; every rollout waits")

    async def _watch_budget(self, gate: Any) -> None:
        while self._spent is None:
            try:
                spent: str = await answer(gate.spent.remote())
            except RayError as error:
                log.warning("The run's budget is not watched: %s", error)
                await asyncio.sleep(FIRST_PAUSE_S)
            else:
                async with self._changed:
                    self._withhold(spent)
                    self._changed.notify_all()

    def _withhold(self, spent: str | None) -> None:
        if spent is None or self._spent is not None:
            return
        self._spent = spent
        self._schedule.begin_no_more()
        self._observer.note(f"{spent}. What was begun is finished; no further environment is begun.")

    async def _plan(self, stores: Stores) -> None:
        """Put the plan into the ledger, which has to be done before the first rollout begins."""
        try:
            async with asyncio.timeout(STORE_WAIT_S):
                planned = {each.environment_id: each.planned for each in self._schedule.progress()}
                await stores.plan(planned, self._settings.config.episode_control_config.group_index)
        except (RayError, RealworkError, TimeoutError) as error:
            await self._stop(f"the plan cannot be written: {error}")

    async def _close(self, stores: Stores) -> None:
        try:
            async with asyncio.timeout(STORE_WAIT_STOPPING_S if self._stopping.is_set() else STORE_WAIT_S):
                await stores.close()
        except (RayError, RealworkError, TimeoutError) as error:
            self._aborted = self._aborted or f"the store did not close: {error}"

    async def interrupt(self) -> None:
        """Start nothing more and cut what is in flight; `run` returns soon, with what is stuck killed."""
        self._interrupted = True
        await self._stop()
        await asyncio.sleep(STOP_GRACE_S)
        for slot in self._slots_in_use:
            slot.cut()

    async def _stop(self, why: str | None = None) -> None:
        """Start nothing more and cut what is in flight; `why` the run cannot go on, null for an interruption."""
        self._aborted = self._aborted or why
        self._stopping.set()
        for slot in self._slots_in_use:
            slot.stop()
        async with self._changed:
            self._changed.notify_all()

    async def _keep_busy(self, slot: Slot, planned: asyncio.Task[None]) -> None:
        """Play one rollout after the other in `slot`, until there are no more; the first one when all are planned."""
        self._slots_in_use.add(slot)
        slot.begin()
        try:
            await planned
            while (spec := await self._next()) is not None:
                await self._pause_before(spec)
                if self._stopping.is_set():
                    return
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
        """Begin nothing while the endpoint wants a pause, and give what failed the last attempt time to recover.

        That is 1, 2, 4 s and so on; both are cut short when the run stops.
        """
        pause_s = min(LONGEST_PAUSE_S, 2.0 ** (spec.attempt - 1)) if spec.attempt else self._open_at - time.monotonic()
        while pause_s > 0 and not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            pause_s = self._open_at - time.monotonic()

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
            if self._schedule.finished:
                self._changed.notify_all()
            else:  # a new attempt, if any
                self._changed.notify()
        self._recorded += 1
        self._bad_requests += summary.is_bad_request
        if not self._stopping.is_set():
            if summary.aborts_run:
                await self._stop(summary.error_message)
            elif self._recorded == self._bad_requests == BAD_REQUESTS:
                await self._stop(f"the first {BAD_REQUESTS} rollouts were all refused: {summary.error_message}")
        self._notices.tell_of(summary)
        self._observer.rollout_finished(summary, progress)

    def _carry_out(self, decision: Decision, environment_id: str) -> None:
        strategy = decision.strategy
        if strategy.max_retries is not None:
            self._schedule.set_max_retries(environment_id, strategy.max_retries)
        if strategy.timeout_multiplier is not None:
            self._timeout_multipliers[environment_id] = strategy.timeout_multiplier
        if decision.stopped_by is not None:
            self._schedule.stop_environment(environment_id)

    def _short_of(self) -> str | None:
        """Which budget kept how many environments from being begun, null when none did."""
        count = sum(each.withheld > 0 for each in self._schedule.progress())
        if not count:
            return None
        were = "1 environment was" if count == 1 else f"{count} environments were"
        return f"{self._spent}; {were} not begun. Change the run file and take the run up."

    def _result(self) -> RunResult:
        return RunResult(
            run_id=self.run_id,
            directory=str(self.directory),
            environments=tuple(self._schedule.progress()),
            failures=dict(self._failures),
            interrupted=self._interrupted,
            aborted=self._aborted or self._short_of(),
            duration_s=time.monotonic() - self._began,
        )

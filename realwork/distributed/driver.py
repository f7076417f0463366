"""The driver: plans the run, keeps the actors busy, and tells what became of every rollout.

Guarantees: a rollout is started once at a time; every started one ends with a row, written by its actor or, if that is
gone, by the store; no rollout waits for ever, whatever its actor does. Trajectories never pass through here.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Coroutine
from pathlib import Path
from typing import Any

from ray.exceptions import RayError

from realwork.dataset.run_directory import note_plugins
from realwork.distributed.answers import answer
from realwork.distributed.control import InFlight, RunStatus, serve
from realwork.distributed.dispatcher import Dispatcher, Started
from realwork.distributed.fleet import Fleet
from realwork.distributed.hosts import Host
from realwork.distributed.looking import measure, show
from realwork.distributed.metrics import metrics_of, tell_attempt
from realwork.distributed.nodes import Nodes
from realwork.distributed.pacing import Pacing
from realwork.distributed.preparing import Preparing
from realwork.distributed.result import Notices, Observer, RunResult
from realwork.distributed.slot import STORE_WAIT_S, STORE_WAIT_STOPPING_S, Shared, Slot, rollout_memory_mib
from realwork.distributed.steering import Steering
from realwork.distributed.stopping import Stopping
from realwork.distributed.store_actor import start_stores
from realwork.distributed.stores import Stores
from realwork.distributed.turns import Turns
from realwork.errors import Cancelled, PluginError, RealworkError, StoreError
from realwork.model.budget import Used
from realwork.plugins.managing import Decision, RunPlugins
from realwork.record import RolloutSettings, failed_rollout
from realwork.schedule import Placement, Schedule
from realwork.secret import Secret
from realwork.types import RolloutSpec, RolloutSummary

log = logging.getLogger(__name__)
BAD_REQUESTS = 5
"""So many first attempts with nothing but bad requests say that no other will be better."""


class Driver:
    """One run on `nodes`, whose actors are where `host` has them.

    Attributes:
        run_id: of the run.
        directory: of the run.
        stores: of the run while it goes on, else null.
        dispatcher: what is in flight.
        steering: answers what is asked of the run, once it has begun.
    """

    def __init__(
        self,
        host: Host,
        nodes: Nodes,
        settings: RolloutSettings,
        schedule: Schedule,
        used: Used,
        plugins: RunPlugins,
        *,
        given_key: Secret | None,
        run_id: str,
        directory: Path,
        url: str | None,
        observer: Observer,
    ) -> None:
        self._host = host
        self._nodes = nodes
        self._settings = settings
        self._schedule = schedule
        self._given_key = given_key
        self.run_id = run_id
        self.directory = directory
        self._url = url
        self._observer = observer
        self._environments = {each.id: each for each in settings.config.environments}
        self._placement = Placement(settings.config.rollout_config.max_parallel_rollouts)
        nodes.place(self._placement)
        self._fleet = Fleet(self._placement, self._make_slot)
        self.dispatcher = Dispatcher(schedule, self._placement, self._fleet)
        self._stopping = Stopping(self.dispatcher, self._fleet)
        self._pacing = Pacing(settings, used, schedule, observer, self.dispatcher.wake)
        self._preparing = Preparing(self._environments, schedule, self._placement, observer.doing)
        self._plugins = plugins
        self._timeout_multipliers: dict[str, float] = {}
        self._failures: Counter[str] = Counter()
        self._recorded = self._bad_requests = 0
        self._notices = Notices(observer, warns_of_usage=settings.config.llm_config.warn_high_usage)
        self._metrics = metrics_of(run_id)
        self._shared: Shared | None = None
        self._planned: asyncio.Task[None] | None = None
        self.stores: Stores | None = None
        self._began = time.monotonic()

    async def run(self) -> RunResult:
        """Play every rollout of the schedule."""
        slots = min(self.dispatcher.limit, self._placement.room, self._schedule.left)
        wanted = self._settings.config.rollout_config.store_shards
        stores = self.stores = start_stores(self._host, self.directory, self._url, wanted=wanted, slots=slots)
        self._pacing.open(self._host)
        self._shared = self._share(stores)
        self._observer.started(self._url or str(self.directory), self._schedule.progress(), slots)
        self._plugins.begin()
        watches = [asyncio.create_task(each) for each in self._watches(stores)]
        self._planned = asyncio.create_task(self._plan(stores))
        self._fleet.begin(slots)
        try:
            await self._decide_on_begun()
            gave_up = await self.dispatcher.dispatch(self._play)
            self._stopping.why = self._stopping.why or gave_up
            await self._planned
            await self._close(stores)
            await self._nodes.sweep(self._settings, self.run_id, is_urgent=self._stopping.is_interrupted)
        finally:
            self.stores = None
            self._stopping.end()
            await self._end(watches)
            self._fleet.kill()
            stores.kill(self._host)
            if self._pacing.gate is not None:
                self._host.kill(self._pacing.gate)
            await self._host.close()
        if not self._stopping.is_interrupted:
            for name, error in (await self._plugins.end()).items():
                self._observer.note(f"plugin {name}: {error}")
        self._note_plugins()
        return self._result()

    async def _end(self, watches: list[asyncio.Task[None]]) -> None:
        for watch in watches:
            watch.cancel()
        for ended in await asyncio.gather(*watches, return_exceptions=True):
            if isinstance(ended, Exception):
                log.warning("What went on beside the rollouts had ended early", exc_info=ended)

    def _share(self, stores: Stores) -> Shared:
        return Shared(
            run_id=self.run_id,
            host=self._host,
            turns=Turns(self._nodes.cpus),
            settings=self._settings,
            environments=self._environments,
            memory_mib=rollout_memory_mib(self._settings.config),
            put=self._host.share(self._settings),
            stores=stores,
            gate=self._pacing.gate,
            key=[self._host.share(self._given_key.get_secret_value().encode())] if self._given_key else [],
        )

    def _make_slot(self, node_id: str) -> Slot:
        return Slot(self._running, node_id)

    @property
    def _running(self) -> Shared:
        assert self._shared is not None, "the run has begun"
        return self._shared

    def _watches(self, stores: Stores) -> list[Coroutine[Any, Any, None]]:
        """What goes on beside the rollouts."""
        self.steering = Steering(
            self.run_id,
            self.dispatcher,
            self._schedule,
            self._placement,
            self._status,
            self._cancel_waiting,
            self._observer.note,
        )
        nodes = self._nodes.watch(
            self._placement,
            on_change=self.dispatcher.wake,
            note=self._observer.note,
            left=lambda: 0 if self.dispatcher.is_paused else self._schedule.left,
        )
        looks = [show(self.dispatcher, self._placement, self._observer), measure(self._schedule, self._metrics)]
        return [serve(stores.central, self.steering.reply), nodes, self._pacing.watch(), *looks]

    def _note_plugins(self) -> None:
        if said := self._plugins.data():
            try:
                note_plugins(self.directory, said)
            except StoreError as error:
                self._observer.note(f"{error}")

    async def _plan(self, stores: Stores) -> None:
        """Put the plan into the ledger, which has to be done before the first rollout begins."""
        try:
            async with asyncio.timeout(STORE_WAIT_S):
                planned = {each.environment_id: each.planned for each in self._schedule.progress()}
                await stores.plan(planned, self._settings.config.episode_control_config.group_index)
        except (RayError, RealworkError, TimeoutError) as error:
            self._stopping.stop(f"the plan cannot be written: {error}")

    async def _close(self, stores: Stores) -> None:
        try:
            async with asyncio.timeout(STORE_WAIT_STOPPING_S if self._stopping.is_set else STORE_WAIT_S):
                await stores.close()
        except (RayError, RealworkError, TimeoutError) as error:
            self._stopping.why = self._stopping.why or f"the store did not close: {error}"

    async def interrupt(self) -> None:
        """Start nothing more and cut what is in flight; `run` returns soon, with what is stuck killed."""
        self._stopping.interrupt()

    async def _play(self, started: Started) -> None:
        """Play a rollout and record how it ended; the first ones wait until all are planned."""
        spec, slot = started.spec, started.slot
        try:
            if self._planned is not None:
                await asyncio.shield(self._planned)
            await self._pacing.pause_before(spec, self._stopping.event)
            if self._stopping.is_set:
                return
            self._observer.rollout_started(spec)
            factor = self._timeout_multipliers.get(spec.environment_id, 1.0)
            queue_s = time.monotonic() - self._began
            summary = await self._preparing.prepare(started, factor)
            if summary is None:
                summary = await slot.play(spec, queue_s=queue_s, timeout_multiplier=factor)
            if summary.failure_cause == "node":
                await self._nodes.doubt(slot.node_id, self._placement, self._observer.note)
            summary = self._judged(started, summary)
            await self._record(summary, await self._decide(summary))
        except (RayError, RealworkError, TimeoutError) as error:
            self._stopping.stop(f"no row can be written: {error}")

    def _judged(self, started: Started, summary: RolloutSummary) -> RolloutSummary:
        """`summary`, in which what failed on one node only does not fail its environment."""
        node_id, environment_id = started.slot.node_id, summary.spec.environment_id
        elsewhere = [each for each in self._placement.with_image(environment_id) if each != node_id]
        if summary.fails_environment and (elsewhere or self.dispatcher.works(environment_id)):
            summary = summary.model_copy(update={"fails_environment": False, "retryable": True})
        if not self._stopping.is_set and (rest_s := self.dispatcher.record(started, summary)):
            names = {place.node_id: place.name for place in self._placement.places(0.0)}
            self._observer.note(
                f"node {names.get(node_id, node_id)} failed several rollouts in a row and rests for {rest_s:.0f} s"
            )
        return summary

    async def _decide_on_begun(self) -> None:
        """Let the rollout managers decide on environments that an earlier start has left half played."""
        for each in self._schedule.progress():
            if each.waiting and each.done:
                decision = await self._asked(self._plugins.decide(each.environment_id))
                self._carry_out(decision, each.environment_id)

    async def _decide(self, summary: RolloutSummary) -> Decision:
        """What the rollout managers make of `summary`."""
        return Decision() if self._stopping.is_set else await self._asked(self._plugins.after(summary))

    async def _asked(self, answer: Awaitable[Decision]) -> Decision:
        try:
            return await answer
        except PluginError as error:
            self._stopping.stop(str(error))
            return Decision()

    async def _record(self, summary: RolloutSummary, decision: Decision) -> None:
        environment_id = summary.spec.environment_id
        failed_before = self._schedule.progress_of(environment_id).failed
        self._carry_out(decision, environment_id)
        self._schedule.record(summary)
        progress = self._schedule.progress_of(environment_id)
        if progress.failed > failed_before:
            self._failures[summary.failure_cause or "unknown"] += progress.failed - failed_before
        self._recorded += 1
        self._bad_requests += summary.is_bad_request
        if not self._stopping.is_set:
            if summary.aborts_run:
                self._stopping.stop(summary.error_message)
            elif self._recorded == self._bad_requests == BAD_REQUESTS:
                self._stopping.stop(f"the first {BAD_REQUESTS} rollouts were all refused: {summary.error_message}")
        self._notices.tell_of(summary)
        tell_attempt(self._metrics, summary)
        self._observer.rollout_finished(summary, progress)

    def _carry_out(self, decision: Decision, environment_id: str) -> None:
        strategy = decision.strategy
        if strategy.max_retries is not None:
            self._schedule.set_max_retries(environment_id, strategy.max_retries)
        if strategy.timeout_multiplier is not None:
            self._timeout_multipliers[environment_id] = strategy.timeout_multiplier
        if decision.stopped_by is not None:
            self._schedule.stop_environment(environment_id)

    async def _cancel_waiting(self, spec: RolloutSpec) -> None:
        """Write the row of a rollout that was taken out of the schedule."""
        self._failures["cancelled"] += 1
        self.dispatcher.held += 1
        lost = failed_rollout(spec, self._settings, Cancelled("it was cancelled before it began"))
        try:
            async with asyncio.timeout(STORE_WAIT_S):
                await answer(self._running.stores.of(spec).commit_lost.remote(lost))
        except (RayError, RealworkError, TimeoutError) as error:
            self._stopping.stop(f"no row can be written: {error}")
        finally:
            self.dispatcher.held -= 1
            self.dispatcher.wake()

    def _status(self, in_flight: tuple[InFlight, ...]) -> RunStatus:
        return RunStatus(
            run_id=self.run_id,
            directory=self._url or str(self.directory),
            elapsed_s=time.monotonic() - self._began,
            limit=self.dispatcher.limit,
            is_paused=self.dispatcher.is_paused,
            environments=tuple(self._schedule.progress()),
            failures=dict(self._failures),
            in_flight=in_flight,
            nodes=tuple(self._placement.places(time.monotonic())),
        )

    def _result(self) -> RunResult:
        return RunResult(
            run_id=self.run_id,
            directory=str(self.directory),
            environments=tuple(self._schedule.progress()),
            failures=dict(self._failures),
            interrupted=self._stopping.is_interrupted,
            aborted=self._stopping.why or self._pacing.short_of,
            duration_s=time.monotonic() - self._began,
        )

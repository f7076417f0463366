"""The actor that plays one rollout at a time, each with a sandbox and a model of its own.

It loads no Parquet library, and engine and client only when a rollout needs them: its start is on the way of every run.
A trajectory goes from here to the store, which answers when it is durable; the driver gets a summary.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeVar

from ray.exceptions import RayError

from realwork.activity import Activity
from realwork.backends import open_backends
from realwork.config import EnvironmentConfig
from realwork.dataset.ack import CommitAck
from realwork.dataset.commits import make_commit, make_unfinished
from realwork.distributed.answers import answer
from realwork.distributed.cluster import this_node
from realwork.distributed.counted import CountedBackends
from realwork.distributed.gate import RayGate
from realwork.distributed.hooks import RayCalls, rollout_hooks
from realwork.distributed.images import fetch_from
from realwork.distributed.metrics import Metrics, metrics_of, tell_step
from realwork.distributed.stores import Stores
from realwork.errors import Cancelled, NodeError, RealworkError, RunAborted
from realwork.faultpoints import note_ack, pass_through
from realwork.plugins.panel import CallPlugin
from realwork.record import AttemptRecord, RolloutSettings, failed_rollout
from realwork.rollout import Backends, run_rollout
from realwork.secret import Secret
from realwork.types import Doing, Message, RolloutSpec, RolloutSummary, Trajectory

T = TypeVar("T")
log = logging.getLogger(__name__)
RECALL_S = 60.0


class RolloutActor:
    """Plays one rollout at a time, each with a sandbox and a model of its own."""

    def __init__(self) -> None:
        self._settings: RolloutSettings | None = None
        self._stores: Stores
        self._working: asyncio.Task[Any] | None = None
        self._prepare_s: tuple[RolloutSpec, float] | None = None
        self._stopped = False
        self._record: AttemptRecord | None = None
        self._activity = Activity()
        self._opened = AsyncExitStack()
        self._backends: Backends
        self._metrics: Metrics
        self._calls: CallPlugin

    async def setup(
        self,
        run_id: str,
        settings: RolloutSettings,
        stores: Stores,
        gate: Any,
        key: list[Any],
        calls: CallPlugin | None = None,
    ) -> None:
        """Take what the rollouts of the run share; not in the constructor, whose arguments Ray keeps.

        `gate` is null where no endpoint is asked; `key` has the object of a key that was given, whose value no
        argument holds; `calls` is null where plugins are called as Ray tasks.

        Raises:
            SandboxError: the engine of this node does not answer.
        """
        self._metrics = metrics_of(run_id)
        self._stores = stores
        self._settings = settings
        self._calls = calls or RayCalls()
        passed = RayGate(gate, settings.config.llm_config) if gate is not None else None
        given = Secret((key[0] if isinstance(key[0], bytes) else await key[0]).decode()) if key else None
        backends = open_backends(settings, gate=passed, given_key=given)
        opened = await self._opened.enter_async_context(backends)
        self._backends = CountedBackends(opened, partial(self._metrics.set, "realwork_containers"))

    async def prepare(self, spec: RolloutSpec, timeout_multiplier: float, source: str | None = None) -> None:
        """Prepare the environment of `spec` on this node; init commands that must run in every sandbox run in one here.

        If there is a `source`, a node of Ray's, the image is fetched from there when it can be.

        Raises:
            EpisodeError: it cannot be; every rollout of the environment would fail in the same way.
        """
        if self._settings is None:
            raise RunAborted("the actor was not set up")
        self._activity = Activity()
        self._activity.begin("preparing")
        began = time.monotonic()
        config = self._settings.stretched(timeout_multiplier).config
        try:
            await self._cut_by_stop(self._prepare(spec, config.environment(spec.environment_id), source))
        except asyncio.CancelledError:
            raise Cancelled("it was stopped before the environment was prepared") from None
        finally:
            self._activity = Activity()
        self._prepare_s = (spec, time.monotonic() - began)

    async def _prepare(self, spec: RolloutSpec, environment: EnvironmentConfig, source: str | None) -> None:
        fetch = fetch_from(source) if source is not None else None
        if not await self._backends.prepare(spec, environment, fetch):
            async with self._backends.open_sandbox(spec, environment):
                pass

    async def run(self, spec: RolloutSpec, queue_s: float, timeout_multiplier: float) -> RolloutSummary:
        """Play `spec`, its timeouts multiplied, and answer when its trajectory is durable.

        Raises:
            StoreError: it could not be written.
        """
        if self._settings is None:
            raise RunAborted("the actor was not set up")
        store = self._stores.of(spec)
        store.begin.remote(spec, this_node())
        prepared, image_s = self._prepare_s or (None, 0.0)
        self._activity = Activity(partial(tell_step, self._metrics))
        playing = run_rollout(
            spec,
            self._settings.stretched(timeout_multiplier),
            self._backends,
            rollout_hooks(self._settings.plugins, spec, self._calls),
            queue_s=queue_s,
            image_s=image_s if prepared == spec else 0.0,
            activity=self._activity,
            on_begin=self._note_record,
            on_steps=self._hand_over,
            recall=partial(self._recall, store),
        )
        try:
            trajectory = await self._cut_by_stop(playing)
        except asyncio.CancelledError:  # before it had begun
            trajectory = failed_rollout(spec, self._settings, Cancelled("the run was stopped"))
        finally:
            self._record = None
        self._activity.begin("writing")
        pass_through("before-commit")
        ack: CommitAck = await answer(store.commit.remote(make_commit(trajectory)))
        pass_through("after-ack")
        if ack.outcome != "fenced":
            note_ack(trajectory)
        if ack.summary is None:
            raise NodeError("another attempt has taken the place of this one")
        summary = ack.summary
        took_snapshots = spec.attempt or any(step.state_snapshot for step in trajectory.steps)
        if took_snapshots and not summary.retryable:
            await self._backends.forget_snapshots(spec)
        return summary

    def _note_record(self, record: AttemptRecord) -> None:
        self._record = record

    async def _hand_over(self, unfinished: Trajectory) -> None:
        self._stores.of(unfinished.spec).progress.remote(make_unfinished(unfinished))

    async def _recall(self, store: Any, trajectory_id: str) -> Trajectory | None:
        try:
            async with asyncio.timeout(RECALL_S):
                earlier: Trajectory | None = await answer(store.recall.remote(trajectory_id))
        except (RayError, RealworkError, TimeoutError) as error:
            log.warning("%s cannot be gone on from: %s", trajectory_id, error)
            return None
        return earlier

    async def _cut_by_stop(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns; `stop` cancels it."""
        task: asyncio.Task[T] = asyncio.create_task(work)
        self._working = task
        if self._stopped:
            task.cancel()
        return await task

    async def stop(self) -> None:
        """Cut what is being done; its row says `cancelled`."""
        self._stopped = True
        if self._working is not None:
            self._working.cancel()

    async def cancel(self) -> bool:
        """Cut what is being done, whose row says `cancelled`; whether there was anything."""
        if self._working is None or self._working.done():
            return False
        return self._working.cancel()

    async def look(self, after: int) -> tuple[Message, ...]:
        """The conversation so far of the rollout that is being played, without its first `after` messages."""
        return self._record.messages[after:] if self._record is not None else ()

    async def doing(self) -> Doing:
        """What the rollout that is being played is at."""
        return self._activity.now

    async def end(self) -> None:
        """Close what `setup` has opened; a process that is killed needs no such call."""
        await self._opened.aclose()

"""Starts rollouts where there is room for them, one after the other, until nothing is left.

Guarantees: at most `limit` are in flight, none while it is paused, none on a node that has no room; what ends makes
room at once.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from realwork.distributed.fleet import Fleet
from realwork.distributed.slot import Slot
from realwork.schedule import Placement, Schedule
from realwork.types import RolloutSpec, RolloutSummary

LOOK_AGAIN_S = 1.0
"""Rests of nodes end without a word."""
NO_NODE_S = 900.0


class Started(NamedTuple):
    """A rollout in flight, since `at` on the monotonic clock."""

    spec: RolloutSpec
    slot: Slot
    at: float


class Dispatcher:
    """What is in flight of a run.

    Attributes:
        in_flight: by trajectory id.
        is_paused: whether nothing more is started for now.
        most_in_flight: rollouts in flight at the same moment, so far.
        held: what still has to be written of rollouts that were taken out of the schedule.
        decision_s: CPU seconds that each decision has taken, if it is set to a list.
    """

    def __init__(
        self, schedule: Schedule, placement: Placement, fleet: Fleet, *, without_node_s: float = NO_NODE_S
    ) -> None:
        self.in_flight: dict[str, Started] = {}
        self.is_paused = False
        self.most_in_flight = self.held = 0
        self.decision_s: list[float] | None = None
        self._schedule = schedule
        self._placement = placement
        self._fleet = fleet
        self._without_node_s = without_node_s
        self._failed_on: dict[str, str] = {}
        self._graded: set[str] = set()
        self._last_error = ""
        self._is_stopped = False
        self._woken = asyncio.Event()
        self._had_node_at = time.monotonic()

    @property
    def limit(self) -> int:
        """Rollouts in flight at once."""
        return self._placement.share

    @limit.setter
    def limit(self, limit: int) -> None:
        self._placement.share = limit
        self.wake()

    def wake(self) -> None:
        """Look anew whether something can be started."""
        self._woken.set()

    def stop(self) -> None:
        """Start nothing more."""
        self._is_stopped = True
        self.wake()

    async def dispatch(self, play: Callable[[Started], Awaitable[None]]) -> str | None:
        """Have every rollout played by `play`, which raises nothing; null when nothing is left, or when stopped.

        Else why the rest cannot be played: there has long been no node, or all nodes fail again and again.
        """
        async with asyncio.TaskGroup() as tasks:
            while not self._is_stopped and (self.held or not self._schedule.finished):
                self._woken.clear()
                if (started := self._start()) is not None:
                    tasks.create_task(self._played(started, play))
                    await asyncio.sleep(0)
                elif (why := self._hopeless()) is not None:
                    return why
                else:
                    await self._wait()
        return None

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(LOOK_AGAIN_S):
                await self._woken.wait()
        except TimeoutError:
            return

    def _hopeless(self) -> str | None:
        if self._placement.is_hopeless:
            return f"on every node one rollout after the other fails, the last one so: {self._last_error}"
        if self._placement.room or self.in_flight or self.is_paused:
            self._had_node_at = time.monotonic()
        if time.monotonic() > self._had_node_at + self._without_node_s:
            return f"there has been no node that can play a rollout for {self._without_node_s:.0f} s"
        return None

    def _start(self) -> Started | None:
        """The next rollout, with its slot, null when none can be started now."""
        now, began = time.monotonic(), time.thread_time()
        if self.is_paused or len(self.in_flight) >= self.limit or not self._placement.has_room(now):
            return None
        spec = self._schedule.next()
        if spec is None:
            return None
        failed_on = self._failed_on.get(spec.rollout_id)
        prefers, avoids = (failed_on, None) if spec.resumed is not None else (None, failed_on)
        node_id = self._placement.choose(spec.environment_id, now, prefers=prefers, avoids=avoids)
        assert node_id is not None, "there is room somewhere"
        self._placement.take(node_id)
        started = Started(spec, self._fleet.take(node_id), now)
        self.in_flight[spec.trajectory_id] = started
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        if self.decision_s is not None:
            self.decision_s.append(time.thread_time() - began)
        return started

    async def _played(self, started: Started, play: Callable[[Started], Awaitable[None]]) -> None:
        try:
            await play(started)
        finally:
            self.in_flight.pop(started.spec.trajectory_id, None)
            self._placement.release(started.slot.node_id)
            is_waited_for = not self._is_stopped and self._schedule.left > len(self.in_flight)
            is_needed = is_waited_for and len(self.in_flight) < self.limit
            self._fleet.give_back(started.slot, is_needed=is_needed)
            if not is_waited_for:
                self._fleet.end_idle()
            self.wake()

    def works(self, environment_id: str) -> bool:
        """Whether a rollout of the environment has been graded, so that it is not at fault where one fails."""
        return environment_id in self._graded

    def record(self, started: Started, summary: RolloutSummary) -> float:
        """Take note of how a rollout ended on its node; the seconds for which the node rests from now on, mostly 0.

        What an agent, an endpoint, a grader or the run itself has ended says nothing of the node.
        """
        node_id, spec = started.slot.node_id, started.spec
        if summary.failure_cause is None:
            self._graded.add(spec.environment_id)
            self._failed_on.pop(spec.rollout_id, None)
            self._placement.note_success(node_id)
            return 0.0
        self._failed_on[spec.rollout_id] = node_id
        if not summary.retryable:
            del self._failed_on[spec.rollout_id]
        if summary.failure_cause not in ("sandbox", "node") or summary.loses_sandbox or summary.fails_environment:
            return 0.0
        self._last_error = summary.error_message or summary.failure_cause
        is_sound = self.works(spec.environment_id)
        return self._placement.note_failure(node_id, time.monotonic(), spec.environment_id, is_sound=is_sound)

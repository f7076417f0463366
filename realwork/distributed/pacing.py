"""How fast a run may go: the endpoint's pauses, the budgets of the run, and time for what failed to recover."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from ray.exceptions import RayError

from realwork.distributed.answers import answer
from realwork.distributed.gate import FIRST_PAUSE_S, OPTIONS, GateActor, Pause, watch_pauses
from realwork.distributed.hosts import Host
from realwork.distributed.result import Observer
from realwork.model.budget import Budget, Used, has_limit
from realwork.record import RolloutSettings
from realwork.schedule import Schedule
from realwork.types import RolloutSpec

log = logging.getLogger(__name__)
TOLD_PAUSE_S = 5.0
LONGEST_PAUSE_S = 30.0


class Pacing:
    """The pace of one run, of which earlier starts have `used` that much.

    Attributes:
        gate: what all requests pass; null where no endpoint is asked, and before `open`.
    """

    def __init__(
        self, settings: RolloutSettings, used: Used, schedule: Schedule, observer: Observer, wake: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._used = used
        self._schedule = schedule
        self._observer = observer
        self._wake = wake
        self._open_at = 0.0
        self._spent: str | None = None
        self.gate: Any = None

    def open(self, host: Host) -> None:
        """Start the gate of the run's endpoint; spent budgets of an earlier start hold at once."""
        llm = self._settings.config.llm_config
        if self._settings.script is not None:
            return
        self._withhold(Budget(llm, self._used).spent())
        told = llm.model_copy(update={"headers": {}, "extra_body": {}})  # Ray keeps what it is made with
        self.gate = host.start(GateActor, told, self._used, **OPTIONS)

    async def watch(self) -> None:
        """Tell of pauses, and begin no further environment once a budget is used up; until cancelled."""
        if self.gate is None:
            return
        async with asyncio.TaskGroup() as watches:
            watches.create_task(watch_pauses(self.gate, self._tell_of_pause))
            if has_limit(self._settings.config.llm_config):
                watches.create_task(self._watch_budget())

    def _tell_of_pause(self, pause: Pause) -> None:
        self._open_at = time.monotonic() + pause.left_s
        if pause.left_s >= TOLD_PAUSE_S:
            self._observer.doing(f"The endpoint wants no request for {pause.left_s:.0f} s; every rollout waits")

    async def _watch_budget(self) -> None:
        while self._spent is None:
            try:
                spent: str = await answer(self.gate.spent.remote())
            except RayError as error:
                log.warning("The run's budget is not watched: %s", error)
                await asyncio.sleep(FIRST_PAUSE_S)
            else:
                self._withhold(spent)
                self._wake()

    def _withhold(self, spent: str | None) -> None:
        if spent is None or self._spent is not None:
            return
        self._spent = spent
        self._schedule.begin_no_more()
        self._observer.note(f"{spent}. What was begun is finished; no further environment is begun.")

    async def pause_before(self, spec: RolloutSpec, stopping: asyncio.Event) -> None:
        """Begin nothing while the endpoint wants a pause, and give what failed the last attempt time to recover.

        That is 1, 2, 4 s and so on; both are cut short when the run is `stopping`.
        """
        pause_s = min(LONGEST_PAUSE_S, 2.0 ** (spec.attempt - 1)) if spec.attempt else self._open_at - time.monotonic()
        while pause_s > 0 and not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause_s)
            pause_s = self._open_at - time.monotonic()

    @property
    def short_of(self) -> str | None:
        """Which budget kept how many environments from being begun, null when none did."""
        count = sum(each.withheld > 0 for each in self._schedule.progress())
        if not count:
            return None
        were = "1 environment was" if count == 1 else f"{count} environments were"
        return f"{self._spent}; {were} not begun. Change the run file and take the run up."

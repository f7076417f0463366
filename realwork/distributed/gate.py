"""The gate that all rollouts of a run share: an actor, and how it is passed in the process of a rollout.

Guarantees: a pause reaches every process without being asked for; where the run file has no budget, no request costs a
Ray call; a gate that is lost fails no rollout, and knows again what living processes used as soon as they go on.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from ray.exceptions import RayError

from realwork.config import LlmConfig
from realwork.model.budget import Budget, Used, has_limit, has_pace, used_by
from realwork.model.gate import LocalGate, sleep
from realwork.types import Usage

log = logging.getLogger(__name__)
OPTIONS: dict[str, Any] = {"num_cpus": 0, "max_restarts": 3, "max_task_retries": 0, "max_concurrency": 100_000}
CALL_S = 60.0
"""One that starts on a busy machine takes long; one that is lost is known at once."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class Pause(NamedTuple):
    """A pause that the endpoint has asked for: which one it is, and how long it still lasts."""

    number: int
    left_s: float


class GateActor:
    """The pauses and budgets of a run."""

    def __init__(self, config: LlmConfig, before: Used) -> None:
        self._budget = Budget(config, before)
        self._changed = asyncio.Condition()
        self._pauses = 0
        self._open_at = 0.0

    async def reserve(self, within_s: float) -> float:
        """Seconds to wait before the next request, which is not sent if that is `within_s` or more."""
        return self._budget.reserve(time.monotonic(), within_s=within_s)

    async def pause(self, seconds: float) -> None:
        """Let nobody send a request for that long."""
        open_at = time.monotonic() + seconds
        if open_at <= self._open_at:
            return
        async with self._changed:
            self._open_at = open_at
            self._pauses += 1
            self._changed.notify_all()

    async def next_pause(self, seen: int) -> Pause:
        """The newest pause, as soon as there is one after number `seen`; another number than `seen` at first."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._pauses != seen)
        return Pause(self._pauses, max(0.0, self._open_at - time.monotonic()))

    async def count(self, client: str, used: Used) -> None:
        """Take note of all that `client` has used so far."""
        self._budget.count(client, used)
        if self._budget.spent():
            async with self._changed:
                self._changed.notify_all()

    async def spent(self) -> str:
        """Which budget is used up, as soon as one is."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._budget.spent() is not None)
        return self._budget.spent() or ""


class RayGate:
    """The gate of the rollouts of this process; see `realwork.model.gate.Gate`."""

    def __init__(self, actor: Any, config: LlmConfig) -> None:
        self._actor = actor
        self._has_pace = has_pace(config)
        self._counts = has_limit(config) or config.tokens_per_minute is not None
        self._client = uuid.uuid4().hex
        self._used = Used()
        self._pauses = LocalGate()
        self._watching = asyncio.create_task(watch_pauses(actor, lambda pause: self._pauses.pause(pause.left_s)))

    async def ready(self, within_s: float) -> None:
        """See `Gate.ready`."""
        end = time.monotonic() + within_s
        if self._has_pace:
            await sleep(await self._reserve(within_s), within_s)
        await self._pauses.ready(end - time.monotonic())

    async def _reserve(self, within_s: float) -> float:
        try:
            async with asyncio.timeout(min(CALL_S, within_s)):
                wait_s: float = await self._actor.reserve.remote(within_s)
        except (RayError, TimeoutError) as error:
            log.warning("The run's budget cannot be asked: %s", error)
            return 0.0
        return wait_s

    def pause(self, seconds: float) -> None:
        """See `Gate.pause`."""
        self._pauses.pause(seconds)
        self._actor.pause.remote(seconds)

    def used(self, usage: Usage) -> None:
        """See `Gate.used`."""
        self._used += used_by(usage)
        if self._counts:
            self._actor.count.remote(self._client, self._used)

    def close(self) -> None:
        """Wait for pauses no longer."""
        self._watching.cancel()


async def watch_pauses(actor: Any, on_pause: Callable[[Pause], None]) -> None:
    """Tell of every pause, until it is cancelled."""
    seen, rest_s = 0, FIRST_PAUSE_S
    while True:
        try:
            pause: Pause = await actor.next_pause.remote(seen)
        except RayError as error:
            log.info("The pauses of other rollouts are not known: %s", error)
            await asyncio.sleep(rest_s)
            seen, rest_s = 0, min(LONGEST_PAUSE_S, 2 * rest_s)
        else:
            seen, rest_s = pause.number, FIRST_PAUSE_S
            on_pause(pause)

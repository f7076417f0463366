"""Looks at what is in flight of a run, from its driver.

Guarantees: however much is in flight, few are asked, side by side and for a moment only; nothing else waits for them.
"""

import asyncio
import time
from itertools import islice

from realwork.distributed.control import InFlight
from realwork.distributed.dispatcher import Dispatcher, Started
from realwork.distributed.metrics import Metrics, tell_states
from realwork.distributed.result import Observer
from realwork.schedule import Placement, Schedule
from realwork.types import Doing

LOOK_EVERY_S = 1.0
TELL_EVERY_S = 2.0


async def in_flight(dispatcher: Dispatcher, placement: Placement, *, asked: int) -> tuple[InFlight, ...]:
    """All that is in flight, those that take longest first, of which the first `asked` say what they are doing."""
    started = [*dispatcher.in_flight.values()]
    return await _seen(started, placement, asked)


async def _seen(started: list[Started], placement: Placement, asked: int) -> tuple[InFlight, ...]:
    now = time.monotonic()
    names = {place.node_id: place.name for place in placement.places(now)}
    doing: list[Doing | None] = [*await asyncio.gather(*(each.slot.doing() for each in started[:asked]))]
    doing += [None] * (len(started) - len(doing))
    return tuple(
        InFlight(
            trajectory_id=each.spec.trajectory_id,
            environment_id=each.spec.environment_id,
            node=names.get(each.slot.node_id, "?"),
            seconds=now - each.at,
            doing=what,
        )
        for each, what in zip(started, doing, strict=True)
    )


async def show(dispatcher: Dispatcher, placement: Placement, observer: Observer) -> None:
    """Let `observer` see what a few in flight are doing, as often as it may want; until cancelled."""
    while observer.looks_at:
        first = [*islice(dispatcher.in_flight.values(), observer.looks_at)]
        observer.looked(await _seen(first, placement, observer.looks_at))
        await asyncio.sleep(LOOK_EVERY_S)


async def measure(schedule: Schedule, metrics: Metrics) -> None:
    """Tell `metrics` again and again how many rollouts are in each state, and what it came to when it is cancelled."""
    try:
        while True:
            tell_states(metrics, schedule.states)
            await asyncio.sleep(TELL_EVERY_S)
    finally:
        tell_states(metrics, schedule.states)

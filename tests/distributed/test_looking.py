"""What the driver sees of rollouts in flight, over simulated nodes."""

import asyncio
import time

from realwork.distributed.control import Asked
from realwork.distributed.looking import measure
from realwork.distributed.metrics import NoMetrics
from realwork.opening import SilentObserver
from realwork.schedule import Schedule
from tests.distributed.simulated import World, config, driver_of
from tests.distributed.test_dispatching import until


class Watching(SilentObserver):
    """Wants to see two; keeps what it saw last."""

    looks_at = 2

    def __init__(self):
        self.seen = ()

    def looked(self, in_flight):
        self.seen = in_flight


def watched(tmp_path, world, looks, *, rooms=(2, 2)):
    """What `looks` returns of a run, which it is given with its observer, while four rollouts are in flight."""

    async def playing():
        observer = Watching()
        driver = driver_of(world, config(parallel=4, max_episodes=6), tmp_path, rooms=rooms, observer=observer)
        running = asyncio.create_task(driver.run())
        await until(lambda: len(world.played) == 4)
        found = await looks(driver, observer)
        world.blocked.clear()
        result = await running
        assert [each.graded for each in result.environments] == [6]
        return found

    return asyncio.run(playing())


def blocked():
    world = World()
    world.blocked.add("*")
    return world


def test_an_observer_sees_as_many_as_it_wants_those_that_take_longest_first(tmp_path):
    async def looks(_, observer):
        await until(lambda: any(each.doing for each in observer.seen) and len(observer.seen) == 2)
        return observer.seen

    first, second = watched(tmp_path, blocked(), looks)
    assert (first.trajectory_id, second.trajectory_id) == ("r:e0:0:0", "r:e0:1:0")
    assert (first.environment_id, first.node[:4]) == ("e0", "node")
    assert (first.doing.phase, first.doing.step, first.doing.detail) == ("acting", 2, "make")
    assert first.seconds >= second.seconds > 0


def test_processes_that_give_no_answer_hold_up_nothing(tmp_path):
    world = blocked()
    world.deaf = True

    async def looks(driver, observer):
        began = time.monotonic()
        told = await driver.steering.reply(Asked(verb="status", number=4))
        return told.status.in_flight, time.monotonic() - began

    seen, took_s = watched(tmp_path, world, looks)
    assert [each.doing for each in seen] == [None] * 4
    assert took_s < 3


def test_a_status_asks_nobody_unless_it_is_told_to(tmp_path):
    async def looks(driver, _):
        return [await driver.steering.reply(Asked(verb="status", number=number)) for number in (0, 3)]

    nobody, three = watched(tmp_path, blocked(), looks)
    assert [bool(each.doing) for each in nobody.status.in_flight] == [False] * 4
    assert [bool(each.doing) for each in three.status.in_flight] == [True] * 3 + [False]


class Told(NoMetrics):
    """Keeps the states that it is told."""

    def __init__(self):
        self.states = {}

    def set(self, name, value, **tags):
        self.states[tags["state"]] = value


def test_metrics_are_told_what_a_run_came_to_when_it_ends_between_two_looks():
    schedule, told = Schedule(config(max_episodes=6), "r"), Told()

    async def measured():
        measuring = asyncio.create_task(measure(schedule, told))
        await until(lambda: told.states)
        before = told.states["in_flight"]
        assert schedule.next() is not None
        measuring.cancel()
        await asyncio.wait([measuring])
        return before

    assert (asyncio.run(measured()), told.states["in_flight"]) == (0, 1)

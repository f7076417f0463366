"""The driver's scheduling, over simulated nodes."""

import asyncio

import pytest

from realwork.distributed.control import Asked, Mailbox, Told
from realwork.distributed.dispatcher import Dispatcher
from realwork.distributed.fleet import Fleet
from realwork.schedule import Placement, Schedule
from tests.distributed.simulated import World, config, driver_of

INIT = ["make"]


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def graded(result):
    return [each.graded for each in result.environments]


def test_no_node_holds_more_than_it_has_room_for_and_no_more_are_in_flight_than_wanted(tmp_path):
    world = World()
    result = asyncio.run(driver_of(world, config(3, parallel=3, max_episodes=8), tmp_path, rooms=(1, 4)).run())
    assert graded(result) == [8, 8, 8]
    assert world.at_once["n0"] == 1
    assert world.at_once["n0"] + world.at_once["n1"] <= 3
    assert len({trajectory for _, trajectory in world.played}) == 24


def test_an_environment_is_prepared_once_and_handed_to_each_other_node_once(tmp_path):
    world = World()
    found = config(init=INIT, parallel=6, max_episodes=30)
    result = asyncio.run(driver_of(world, found, tmp_path, rooms=(2, 2, 2)).run())
    assert graded(result) == [30]
    (first, none), *others = world.prepared
    assert none is None
    assert sorted([first, *(node for node, _ in others)]) == ["n0", "n1", "n2"]
    assert all(source in ("n0", "n1", "n2") and source != node for node, source in others)


def test_what_cannot_be_prepared_on_one_node_is_played_on_another(tmp_path):
    world = World()
    world.unprepared.add("n0")
    result = asyncio.run(driver_of(world, config(init=INIT, max_episodes=4), tmp_path).run())
    assert graded(result) == [4]
    assert {node for node, _ in world.played} == {"n1"}


def test_what_fails_on_a_broken_node_is_run_again_elsewhere_and_the_node_rests(tmp_path):
    world = World()
    world.broken.add("n0")
    result = asyncio.run(driver_of(world, config(max_episodes=20), tmp_path).run())
    assert graded(result) == [20]
    assert result.failures == {}
    assert 3 <= sum(node == "n0" for node, _ in world.played) <= 6


def test_a_run_on_nodes_that_all_fail_waits_for_them(tmp_path):
    world = World()
    world.broken.add("n0")

    async def played():
        driver = driver_of(world, config(parallel=3, max_episodes=9), tmp_path, rooms=(3,))
        running = asyncio.create_task(driver.run())
        await until(lambda: len(world.played) >= 3)
        await asyncio.sleep(0.5)
        assert len(world.played) == 3, "the node rests"
        world.broken.clear()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(played())


def test_a_broken_environment_fails_alone(tmp_path):
    world = World()
    world.broken.add("e0")
    result = asyncio.run(driver_of(world, config(2, max_retries=1, max_episodes=6), tmp_path).run())
    assert graded(result) == [0, 6]
    assert (result.failures, result.aborted) == ({"sandbox": 6}, None)


def test_what_no_longer_can_be_prepared_on_one_node_fails_no_environment_that_works(tmp_path):
    world = World()
    world.spoilt.add("n1")
    result = asyncio.run(driver_of(world, config(init=INIT, max_episodes=8), tmp_path).run())
    assert graded(result) == [8]
    assert sum(node == "n1" for node, _ in world.prepared) < 8


def test_what_fails_a_preparation_fails_those_who_wait_for_it_at_once(tmp_path):
    world = World()
    world.unprepared.add("n1")
    result = asyncio.run(driver_of(world, config(init=INIT, parallel=8, max_episodes=8), tmp_path, rooms=(2, 6)).run())
    assert graded(result) == [8]
    assert sum(node == "n1" for node, _ in world.prepared) <= 3


def test_a_rollout_that_is_cancelled_while_it_waits_for_its_turn_is_not_played(tmp_path):
    world = World()
    world.slow_to_prepare = 0.3

    async def cancelled():
        driver = driver_of(world, config(init=INIT, parallel=4, max_episodes=4), tmp_path)
        running = asyncio.create_task(driver.run())
        await until(lambda: len(world.prepared) == 2)
        waiting = [each for each in driver.dispatcher.in_flight if each not in {name for _, name in world.played}]
        told = await driver.steering.reply(Asked(verb="cancel", target=waiting[-1]))
        assert "which was in flight" in told.message
        return waiting[-1], await running

    trajectory_id, result = asyncio.run(cancelled())
    assert (graded(result), result.failures) == ([3], {"cancelled": 1})
    assert trajectory_id not in {name for _, name in world.played}


def test_a_run_that_cannot_go_on_ends_soon_whatever_an_actor_does(tmp_path):
    world = World()
    world.blocked.add("*")
    world.deaf = True

    async def stopped():
        driver = driver_of(world, config(parallel=2, max_episodes=4), tmp_path)
        driver._stopping.grace_s = 0.2
        running = asyncio.create_task(driver.run())
        await until(lambda: len(world.played) == 2)
        driver._stopping.stop("the key was refused")
        async with asyncio.timeout(5):
            return await running

    result = asyncio.run(stopped())
    assert (result.aborted, result.failures) == ("the key was refused", {"cancelled": 2})


def test_a_number_at_the_end_of_an_id_is_a_whole_one(tmp_path):
    world = World()
    world.blocked |= {f"r:e0:{sample}:0" for sample in range(9, 13)}

    async def cancelled():
        driver = driver_of(world, config(parallel=4, max_episodes=12), tmp_path)
        running = asyncio.create_task(driver.run())
        await until(lambda: len(world.played) == 12)
        told = await driver.steering.reply(Asked(verb="cancel", target="e0:1"))
        world.blocked.clear()
        await running
        return told

    assert "no rollout 'e0:1' is in flight" in asyncio.run(cancelled()).problem


def test_what_was_asked_in_vain_is_not_carried_out_later():
    async def asked():
        mailbox = Mailbox()
        asking = asyncio.create_task(mailbox.ask(Asked(verb="pause")))
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait([asking])
        answered = asyncio.create_task(mailbox.ask(Asked(verb="status")))
        name, found = await mailbox.next()
        mailbox.reply(name, Told(message="well"))
        return found.verb, (await answered).message

    assert asyncio.run(asked()) == ("status", "well")


async def played_by(placement, *, without_node_s=60.0):
    """Why a dispatcher over `placement` ends, with one rollout to play."""

    def no_slot(_node_id):
        raise AssertionError("nothing can be started")

    schedule = Schedule(config(), "r")
    return await Dispatcher(schedule, placement, Fleet(placement, no_slot), without_node_s=without_node_s).dispatch(
        no_slot
    )


def test_without_any_node_the_run_ends_after_a_while_and_says_so():
    why = asyncio.run(played_by(Placement(1), without_node_s=0.1))
    assert why.startswith("there has been no node that can play a rollout")


def test_on_nodes_that_failed_again_and_again_the_run_ends_and_says_so():
    placement, now = Placement(1), 1.0
    placement.set_node("n0", "node 0", 1)
    while not placement.is_hopeless:
        now += placement.note_failure("n0", now, "e0", is_sound=True)
    placement.take("n0")
    why = asyncio.run(played_by(placement))
    assert why.startswith("on every node one rollout after the other fails")


def test_a_run_is_steered(tmp_path):
    world = World()
    world.blocked.add("*")

    async def steered():
        driver = driver_of(world, config(parallel=2, max_episodes=6), tmp_path)

        async def told(verb, target="", number=0):
            return await driver.steering.reply(Asked(verb=verb, target=target, number=number))

        running = asyncio.create_task(driver.run())
        await until(lambda: len(world.played) == 2)
        assert "at most 3 rollouts" in (await told("parallel", number=3)).message
        await until(lambda: len(world.played) == 3)
        status = (await told("status")).status
        assert [each.trajectory_id for each in status.in_flight] == ["r:e0:0:0", "r:e0:1:0", "r:e0:2:0"]
        assert sum(place.used for place in status.nodes) == 3
        assert "of which 4 fit" in (await told("parallel", number=100)).message
        await told("pause")
        assert "which was in flight" in (await told("cancel", "e0:1")).message
        assert "which had not begun" in (await told("cancel", "e0:5")).message
        assert "no rollout 'e9'" in (await told("cancel", "e9")).problem
        assert "2 rollouts in flight begin with r:e0" in (await told("cancel", "r:e0")).problem
        looked = await told("look", "e0:2", 1)
        assert (looked.message, [message.role for message in looked.messages]) == ("r:e0:2:0", ["user"])
        world.blocked.clear()
        await until(lambda: not driver.dispatcher.in_flight)
        assert len(world.played) == 3, "nothing is started while it is paused"
        assert (await told("look", "e0:2")).is_over
        await told("resume")
        return await running

    result = asyncio.run(steered())
    assert graded(result) == [4]
    assert result.failures == {"cancelled": 2}
    assert [row.status for row in world.rows] == ["cancelled"]

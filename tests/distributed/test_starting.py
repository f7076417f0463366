"""How many processes of rollouts start at once on a node, over simulated nodes."""

import asyncio

import pytest

from realwork.distributed.hosts import LocalHost
from realwork.distributed.slot import Shared, Slot
from realwork.distributed.stores import Stores
from realwork.distributed.turns import Turns, most_starting
from realwork.record import RolloutSettings
from realwork.schedule import Schedule
from tests.distributed.simulated import Host, Store, World, config, driver_of
from tests.distributed.test_dispatching import graded, until


def over_slots(world, count, looks, *, nodes=("n0",), start_s=300.0):
    """What `looks` returns of `count` slots on each of the nodes, of 1 CPU, that it is given with their rollouts."""

    async def playing():
        found = config(max_episodes=count * len(nodes))
        host, schedule = Host(world), Schedule(found, "r")
        shared = Shared(
            run_id="r",
            host=host,
            turns=Turns(lambda _node_id: 1.0),
            settings=RolloutSettings(config=found, script=()),
            environments={each.id: each for each in found.environments},
            memory_mib=1,
            put=None,
            stores=Stores([LocalHost().start(Store, world)]),
            gate=None,
            key=[],
        )
        slots = [Slot(shared, node_id, start_s=start_s) for node_id in nodes for _ in range(count)]
        try:
            return await looks(slots, [schedule.next() for _ in slots])
        finally:
            for slot in slots:
                slot.kill()
            await host.close()

    return asyncio.run(playing())


def play(slot, spec):
    return asyncio.create_task(slot.play(spec, queue_s=0.0, timeout_multiplier=1.0))


def hung(*nodes):
    world = World()
    world.hung.update(nodes)
    return world


async def phases(slots):
    return [(await slot.doing()).phase for slot in slots]


@pytest.mark.parametrize(("cpus", "most"), [(0.0, 2), (0.5, 2), (1.0, 2), (2.0, 4), (64.0, 128)])
def test_two_processes_for_each_cpu_start_at_once_and_never_less_than_two(cpus, most):
    assert most_starting(cpus) == most


def test_a_run_starts_few_processes_at_once_on_each_node_and_plays_all(tmp_path):
    world = World()
    found = config(parallel=20, max_episodes=40)
    result = asyncio.run(driver_of(world, found, tmp_path, rooms=(10, 10), cpus=1).run())
    assert graded(result) == [40]
    assert world.most_starting == {"n0": 2, "n1": 2}


def test_those_that_have_started_play_while_others_wait_for_their_turn(tmp_path):
    world = World()
    result = asyncio.run(driver_of(world, config(parallel=9, max_episodes=9), tmp_path, rooms=(9,), cpus=1).run())
    assert graded(result) == [9]
    assert [trajectory for _, trajectory in world.played[:2]] == ["r:e0:0:0", "r:e0:1:0"], "in the order they asked"
    assert world.started_when_first_played < 9


def test_a_node_on_which_nothing_gets_ready_holds_up_no_other():
    world = hung("n0")

    async def looks(slots, specs):
        for slot in slots:
            slot.begin()
        played = await asyncio.gather(*(play(slot, spec) for slot, spec in zip(slots[5:], specs[5:], strict=True)))
        return await phases(slots[:5]), [each.success for each in played]

    seen, played = over_slots(world, 5, looks, nodes=("n0", "n1"))
    assert seen == ["starting"] * 2 + ["waiting"] * 3
    assert played == [True] * 5
    assert world.starts.count("n0") == 2


@pytest.mark.parametrize("how", [Slot.stop, Slot.cut, Slot.cancel], ids=["stopped", "cut", "cancelled"])
def test_a_slot_that_ends_before_its_turn_starts_no_process_and_its_row_says_cancelled(how):
    world = hung("n0")

    async def looks(slots, specs):
        for slot in slots[:2]:
            slot.begin()
        third, fourth = (play(slot, spec) for slot, spec in zip(slots[2:], specs[2:], strict=True))
        await until(lambda: world.starting["n0"] == 2)
        ended = how(slots[2])
        if ended is not None:
            await ended
        async with asyncio.timeout(5):
            summary = await third
        assert (await phases(slots[3:]), len(world.starts)) == (["waiting"], 2)
        world.hung.clear()
        assert (await fourth).success
        return summary.status, summary.error_message

    assert over_slots(world, 4, looks) == ("cancelled", "it was stopped before it began")
    assert len(world.starts) == 3


def test_a_slot_that_is_killed_before_its_turn_starts_no_process():
    world = hung("n0")

    async def looks(slots, specs):
        for slot in slots:
            slot.begin()
        await until(lambda: world.starting["n0"] == 2)
        slots[2].kill()
        world.hung.clear()
        assert (await play(slots[3], specs[3])).success

    over_slots(world, 4, looks)
    assert len(world.starts) == 3


def test_one_that_is_killed_while_it_starts_gives_its_turn_back():
    world = hung("n0")

    async def looks(slots, _specs):
        for slot in slots:
            slot.begin()
        await until(lambda: world.starting["n0"] == 2)
        slots[0].kill()
        await until(lambda: len(world.starts) == 3)
        return await phases(slots)

    assert over_slots(world, 4, looks) == ["waiting", "starting", "starting", "waiting"]
    assert world.most_starting["n0"] == 2


def test_those_whose_start_fails_give_their_turns_back():
    world = World()
    world.unstartable.add("n0")

    async def looks(slots, specs):
        summaries = await asyncio.gather(*(play(slot, spec) for slot, spec in zip(slots, specs, strict=True)))
        return {(each.failure_cause, each.error_message) for each in summaries}

    assert over_slots(world, 6, looks) == {("sandbox", "the engine does not answer")}
    assert (len(world.starts), world.most_starting["n0"]) == (6, 2)


def test_where_one_hangs_all_that_wait_with_it_fail_with_it():
    world = hung("n0")

    async def looks(slots, specs):
        summaries = await asyncio.gather(*map(play, slots[:6], specs[:6]))
        world.hung.clear()
        later = await play(slots[6], specs[6])
        return [(each.failure_cause, each.retryable) for each in summaries], later.success

    failed, later = over_slots(world, 7, looks, start_s=0.3)
    assert failed == [("node", True)] * 6
    assert later
    assert len(world.starts) == 3


def test_a_wait_for_the_turn_is_not_counted_as_a_start():
    world = World()
    world.slow_to_start = 0.2

    async def looks(slots, specs):
        return [each.success for each in await asyncio.gather(*map(play, slots, specs))]

    assert over_slots(world, 10, looks, start_s=0.5) == [True] * 10

"""Processes of rollouts start a few at a time on each node."""

import asyncio

import pytest

from realwork.distributed import slot
from realwork.distributed.starts import FEWEST
from tests.distributed.simulated import World, config, driver_of
from tests.distributed.test_dispatching import until


def play(world, tmp_path, *, rooms, cpus=1, during=None, **control):
    """The result of a run of as many rollouts at once as there is room for, while `during` goes on."""

    async def main():
        found = config(parallel=sum(rooms), max_episodes=sum(rooms), safety_limit=sum(rooms), **control)
        driver = driver_of(world, found, tmp_path, rooms=rooms, cpus=cpus)
        running = asyncio.create_task(driver.run())
        if during is not None:
            await during(driver)
        return await asyncio.wait_for(running, 30)

    return asyncio.run(main())


@pytest.mark.parametrize(("cpus", "most"), [(1, FEWEST), (6, 12)])
def test_so_many_at_a_time_as_its_cpus_allow_on_each_node(tmp_path, cpus, most):
    world = World()
    world.slow_to_start = 0.05
    result = play(world, tmp_path, rooms=(20, 20), cpus=cpus)
    assert world.most_starting == {"n0": most, "n1": most}
    assert sum(each.graded for each in result.environments) == 40


def test_those_that_have_started_play_while_others_wait_for_their_turn(tmp_path):
    world = World()
    world.slow_to_start = 0.2

    async def watch(_driver):
        await until(lambda: world.played)
        assert len(world.begun) < 20

    play(world, tmp_path, rooms=(20,), during=watch)


def test_a_wait_for_the_turn_is_no_failure_to_start(tmp_path, monkeypatch):
    monkeypatch.setattr(slot, "START_S", 0.4)
    world = World()
    world.slow_to_start = 0.2
    result = play(world, tmp_path, rooms=(16,))
    assert (result.failures, world.rows) == ({}, [])


def test_a_start_that_fails_or_takes_too_long_gives_back_its_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(slot, "START_S", 0.1)
    world = World()
    world.unstartable = {"n0"}
    result = play(world, tmp_path, rooms=(6, 20))
    assert sum(each.graded for each in result.environments) == 26
    assert world.begun.count("n0") > FEWEST


def test_a_run_that_is_stopped_starts_none_of_those_that_wait(tmp_path):
    world = World()
    world.slow_to_start = 0.3

    async def stop(driver):
        await until(lambda: world.begun)
        await driver.interrupt()

    result = play(world, tmp_path, rooms=(20,), during=stop)
    assert len(world.begun) == FEWEST
    assert result.environments[0].failed == 20 - FEWEST

"""Slots are never taken twice, by whatever process, and a holder that is gone has none."""

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from realwork.errors import NoSlot, SandboxError
from realwork.sandbox.cpu_slots import CpuSlots, NoSlots

HOLDER = """
import asyncio, sys, time
from realwork.sandbox.cpu_slots import CpuSlots

async def hold():
    async with CpuSlots(int(sys.argv[1])).taken() as waited_s:
        print(waited_s, flush=True)
        time.sleep(float(sys.argv[2]))

asyncio.run(hold())
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Slots of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path / f"realwork-slots-{os.getuid()}"


def holder(count, seconds):
    """A process that holds one of `count` slots, when this returns."""
    command = [sys.executable, "-c", HOLDER, str(count), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


async def most_at_once(*takings):
    """How many of `takings`, each of which holds its slot for 20 ms, had one at the same moment."""
    now = most = 0

    async def take(slots):
        nonlocal now, most
        async with slots.taken():
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.02)
            now -= 1

    await asyncio.gather(*map(take, takings))
    return most


def test_no_more_are_taken_at_once_than_there_are():
    assert asyncio.run(most_at_once(*[CpuSlots(3) for _ in range(12)])) == 3


def test_without_a_bound_nobody_waits():
    assert asyncio.run(most_at_once(*[NoSlots() for _ in range(12)])) == 12


def test_runs_with_different_numbers_share_the_slots_of_the_smaller_one():
    assert asyncio.run(most_at_once(*[CpuSlots(2) for _ in range(6)], *[CpuSlots(4) for _ in range(8)])) <= 4


def test_a_wait_is_told_and_summed_up():
    async def take():
        slots = CpuSlots(1)
        with holder(1, 0.5) as process:
            async with slots.taken() as waited_s:
                pass
        async with slots.taken() as none:
            pass
        return waited_s, none, slots.waited_s, process.wait()

    waited_s, none, total_s, _ = asyncio.run(take())
    assert 0.2 < waited_s < 2
    assert none < 0.05
    assert total_s == pytest.approx(waited_s + none)


def test_a_killed_holder_frees_its_slot():
    async def take():
        async with CpuSlots(1).taken(longest_s=5) as waited_s:
            return waited_s

    with holder(1, 60) as process:
        process.kill()
        assert asyncio.run(take()) < 1


def test_one_that_was_killed_while_it_waited_keeps_nobody_from_the_next_slot():
    async def take():
        async with CpuSlots(1).taken(longest_s=5) as waited_s:
            return waited_s

    with holder(1, 1.0):
        waiting = subprocess.Popen([sys.executable, "-c", HOLDER, "1", "0"], stdout=subprocess.PIPE)
        time.sleep(0.5)
        waiting.kill()
        waiting.communicate()
        assert asyncio.run(take()) < 2


def test_a_child_of_the_holder_does_not_keep_its_slot():
    async def take():
        async with CpuSlots(1).taken():
            child = subprocess.Popen(["sleep", "60"])  # noqa: ASYNC220 - it is not waited for
        async with CpuSlots(1).taken(longest_s=5) as waited_s:
            pass
        child.kill()
        child.wait()
        return waited_s

    assert asyncio.run(take()) < 0.1


def test_who_is_cancelled_while_waiting_or_holding_has_no_slot():
    async def hold(slots):
        async with slots.taken():
            await asyncio.sleep(60)

    async def play():
        tasks = [asyncio.create_task(hold(CpuSlots(1))) for _ in range(3)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with CpuSlots(1).taken(longest_s=1) as waited_s:
            return waited_s

    assert asyncio.run(play()) < 0.1
    opened = [file.resolve() for file in Path("/proc/self/fd").iterdir()]
    assert not [file for file in opened if "realwork-slots" in str(file)]


def test_a_wait_ends_when_its_time_is_over():
    async def take():
        slots = CpuSlots(1)
        async with CpuSlots(1).taken():
            with pytest.raises(NoSlot):
                async with slots.taken(longest_s=0.2):
                    pass
        return slots.waited_s

    assert 0.2 <= asyncio.run(take()) < 1


def test_those_who_come_later_do_not_keep_one_waiting_for_ever():

    async def play():
        newcomers = []

        async def short():
            async with CpuSlots(2).taken():
                await asyncio.sleep(0.004)

        async def come():
            while True:
                newcomers.append(asyncio.create_task(short()))
                await asyncio.sleep(0.002)

        coming = asyncio.create_task(come())
        await asyncio.sleep(0.3)
        try:
            async with CpuSlots(2).taken(longest_s=5):
                return len(newcomers)
        finally:
            coming.cancel()
            await asyncio.gather(coming, *newcomers, return_exceptions=True)

    assert asyncio.run(play()) > 20


def test_a_free_slot_costs_well_under_a_millisecond():
    async def take():
        waits = []
        for _ in range(300):
            began = time.perf_counter()
            async with CpuSlots(8).taken():
                pass
            waits.append(time.perf_counter() - began)
        return statistics.median(waits)

    assert asyncio.run(take()) < 0.0005


@pytest.mark.parametrize("what", ["open to others", "a link"])
def test_a_folder_that_is_not_this_users_alone_is_refused(folder, tmp_path, what):
    async def take():
        async with CpuSlots(1).taken():
            pass

    asyncio.run(take())
    assert folder.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(folder)
    if what == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o755)
    with pytest.raises(SandboxError, match="realwork-slots"):
        asyncio.run(take())

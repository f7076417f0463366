"""A wait for a CPU slot is nobody's time: not the command's, not the test's, and for a while not the episode's."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from realwork.errors import NoSlot
from realwork.grading import Grading
from realwork.rollout import bound_s, longest_s
from realwork.sandbox.base import CommandResult
from realwork.sandbox.memory import MemorySandbox

from .rollouts import call, calls, play, run, settings

LS = {"ls": CommandResult(exit_code=0, stdout=b"a.py\n", stdout_bytes=5)}


class SlowSlots:
    """Each taking waits for so many seconds."""

    def __init__(self, wait_s):
        self.wait_s = wait_s
        self.waited_s = 0.0
        self.taken_by = 0

    @asynccontextmanager
    async def taken(self, *, longest_s=float("inf")):
        wait_s = min(self.wait_s, longest_s)
        await asyncio.sleep(wait_s)
        self.waited_s += wait_s
        if wait_s < self.wait_s:
            self.wait_s = 0.0  # for the tests
            raise NoSlot("none")
        self.taken_by += 1
        yield wait_s


class TimedSandbox(MemorySandbox):
    """Keeps the timeouts that commands were given."""

    def __init__(self, answers=None):
        super().__init__(answers)
        self.timeouts = {}

    async def execute(self, command, *, timeout_s, **options):
        self.timeouts[command] = timeout_s
        return await super().execute(command, timeout_s=timeout_s, **options)


def test_a_wait_stands_in_the_record_and_in_no_other_time():
    slots = SlowSlots(0.3)
    trajectory, backends = play([run("ls")], LS, slots=slots, sandbox=TimedSandbox, unit_tests=("check", "check"))
    (observation,) = trajectory.steps[0].observations
    assert observation.slot_wait_s == 0.3
    assert observation.duration_s < 0.2
    assert trajectory.timing.slot_s == pytest.approx(3 * 0.3)
    times = trajectory.timing.model_dump(exclude={"slot_s"})
    assert sum(times.values()) < 0.3
    assert backends.sandbox.timeouts["ls"] == 300
    assert backends.fresh.timeouts["check"] == 120


def test_commands_of_either_kind_and_tests_take_a_slot_and_nothing_else_does():
    slots = SlowSlots(0.0)
    others = calls(call("write_file", filepath="a", content="b"), call("read_file", filepath="a"), call("nope"))
    commands = calls(call("execute_command", command="ls"), call("execute_command", command="ls", background=True))
    init = {"init_commands": ["make"]}
    play([others, commands], LS | {"make": CommandResult(exit_code=0)}, slots=slots, environment=init)
    assert slots.taken_by == 3


def test_waits_put_off_the_end_of_an_episode():
    given = {"timeout_config": {"global_timeout": 0.5}, "rollout_config": {"cpu_slots": 1}}
    trajectory, _ = play([run("ls"), run("ls")], LS, slots=SlowSlots(0.24), **given)
    assert trajectory.terminated_reason == "completed"
    assert [each.observations[0].status for each in trajectory.steps] == ["ok", "ok", "ok"]


def test_waits_of_more_than_an_episodes_time_count():
    given = {"timeout_config": {"global_timeout": 0.4}, "rollout_config": {"cpu_slots": 1}}
    slots = SlowSlots(0.3)
    trajectory, _ = play([run("ls")] * 5, LS, slots=slots, **given)
    assert (trajectory.terminated_reason, trajectory.success) == ("global_timeout", True)
    assert [each.observations[0].status for each in trajectory.steps] == ["ok", "ok", "not_executed"]
    assert 0.6 < trajectory.timing.slot_s <= 0.8
    assert (trajectory.ended_at - trajectory.started_at).total_seconds() < 1.5


def test_every_bound_knows_of_the_waits():
    environment = {"timeout_config": {"global_timeout": 100.0}}
    without, bound = (
        settings(environment=environment, rollout_config=rollout).config for rollout in ({}, {"cpu_slots": 2})
    )
    (task,) = bound.environments
    assert longest_s(bound, task) == longest_s(without, task) + 200
    assert bound_s(bound, task) == bound_s(without, task) + 600
    gradings = [
        Grading(environment=task, test_timeout_s=10, patience_s=config.patience_s(task)) for config in (without, bound)
    ]
    assert gradings[1].longest_s - gradings[0].longest_s == 100

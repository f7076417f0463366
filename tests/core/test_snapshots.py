"""When snapshots of a running episode are taken, who waits for them, and which of them stay."""

import asyncio
from datetime import UTC, datetime

import pytest

from realwork.errors import SandboxError, SandboxLost
from realwork.model.scripted import ScriptedModel
from realwork.sandbox.base import CommandResult
from realwork.sandbox.memory import MemorySandbox
from realwork.snapshots import Snapshots
from realwork.types import Observation, Step

from . import rollouts
from .rollouts import OK, call, calls, run, says

LS = {"ls": OK}


async def keep_nothing(unfinished):
    pass


def play(replies, answers=None, *, on_steps=keep_nothing, **given):
    """As `rollouts.play`, with somebody to hand snapshots to."""
    return rollouts.play(replies, answers, on_steps=on_steps, **given)


def told_of(told):
    async def on_snapshot(index, _snapshot):
        told.append(index)

    return on_snapshot


def step(index, seconds):
    """A step that took so long, in which a command was carried out."""
    ran = Observation(call_id="1", tool_name="execute_command", status="ok")
    now = datetime.now(UTC)
    return Step(index=index, message_index=0, started_at=now, llm_s=seconds / 2, env_s=seconds / 2, observations=(ran,))


def taken(trajectory):
    """The ids of the snapshots by the index of their step."""
    return {step.index: step.state_snapshot.id for step in trajectory.steps if step.state_snapshot}


def test_a_snapshot_is_taken_every_few_steps_and_stands_in_the_step():
    trajectory, backends = play([run("ls")] * 11, LS, rollout_config={"snapshot_interval": 5})
    assert taken(trajectory) == {4: "snapshot-1", 9: "snapshot-2"}
    assert list(backends.sandbox.snapshots) == ["snapshot-2"]


def test_without_a_number_of_steps_a_snapshot_is_taken_when_a_minute_would_be_lost():
    sandbox, told = MemorySandbox(), []

    async def begin_snapshots():
        async with Snapshots(sandbox, interval=None, keep=False, on_snapshot=told_of(told)) as snapshots:
            steps = []
            for seconds in (20.0, 39.0, 0.5, 1.0, 59.0, 2.0, 70.0):
                steps.append(step(len(steps), seconds))
                snapshots.after_step(steps)
                await snapshots.settled()

    asyncio.run(begin_snapshots())
    assert told == [3, 5, 6]


def test_an_episode_of_seconds_takes_no_snapshot_by_itself():
    trajectory, backends = play([run("ls")] * 11, LS)
    assert (taken(trajectory), backends.sandbox.snapshots) == ({}, {})


def test_snapshots_that_are_to_be_kept_all_stay():
    trajectory, backends = play([run("ls")] * 7, LS, rollout_config={"snapshot_interval": 2, "keep_snapshots": True})
    assert taken(trajectory) == {1: "snapshot-1", 3: "snapshot-2", 5: "snapshot-3"}
    assert list(backends.sandbox.snapshots) == ["snapshot-1", "snapshot-2", "snapshot-3"]


def test_no_snapshot_is_taken_when_state_is_not_to_be_kept():
    trajectory, backends = play([run("ls")] * 7, LS, rollout_config={"state_persistence_enabled": False})
    assert (taken(trajectory), backends.sandbox.snapshots) == ({}, {})


def test_no_snapshot_is_taken_when_nobody_keeps_it():
    trajectory, backends = play([run("ls")] * 7, LS, on_steps=None)
    assert (taken(trajectory), backends.sandbox.snapshots) == ({}, {})


def test_no_snapshot_is_taken_when_nothing_was_done_since_the_last_one():
    idle = calls(call("nope"))
    replies = [run("ls"), idle, idle, idle, run("ls"), idle, says("done")]
    trajectory, _ = play(replies, LS, rollout_config={"snapshot_interval": 2})
    assert taken(trajectory) == {1: "snapshot-1", 5: "snapshot-2"}


def test_a_snapshot_is_handed_over_with_the_steps_before_it():
    handed = []

    async def keep(unfinished):
        handed.append((len(unfinished.steps), taken(unfinished)))

    play([run("ls")] * 5, LS, on_steps=keep, rollout_config={"snapshot_interval": 2, "save_trajectory_interval": 50})
    assert handed == [(2, {1: "snapshot-1"}), (4, {1: "snapshot-1", 3: "snapshot-2"})]


class SlowSnapshots(MemorySandbox):
    """Takes 0.3 s for a snapshot and says in `overlaps` whether a command came meanwhile."""

    busy = False
    overlaps = 0

    async def snapshot(self, *, keep=False):
        SlowSnapshots.busy = True
        await asyncio.sleep(0.3)
        SlowSnapshots.busy = False
        return await super().snapshot(keep=keep)

    async def execute(self, command, **options):
        self.overlaps += self.busy
        return await super().execute(command, **options)


class SlowModel(ScriptedModel):
    """Takes 0.1 s for a reply, and counts in `during_snapshots` those that it gave while one was taken."""

    during_snapshots = 0

    async def complete(self, messages, *, deadline_s):
        await asyncio.sleep(0.1)
        self.during_snapshots += SlowSnapshots.busy
        return await super().complete(messages, deadline_s=deadline_s)


@pytest.mark.parametrize("kind", [ScriptedModel, SlowModel])
def test_a_snapshot_is_taken_while_the_model_thinks_and_the_next_action_waits_for_it(kind):
    model = kind("m", (run("ls"), run("ls"), run("ls"), says("done")), "e")
    trajectory, backends = play([], LS, model=model, sandbox=SlowSnapshots, rollout_config={"snapshot_interval": 1})
    assert taken(trajectory) == {0: "snapshot-1", 1: "snapshot-2", 2: "snapshot-3"}
    assert backends.sandbox.overlaps == 0
    assert kind is ScriptedModel or model.during_snapshots == 3


class NoSnapshots(MemorySandbox):
    """Refuses the first snapshot; how often it was asked stands in `asked`."""

    asked = 0

    async def snapshot(self, *, keep=False):
        self.asked += 1
        raise SandboxError("no space left on the engine")


class Volumes(NoSnapshots):
    """Can take none."""

    async def snapshot(self, *, keep=False):
        self.asked += 1


@pytest.mark.parametrize("kind", [NoSnapshots, Volumes])
def test_a_snapshot_that_cannot_be_taken_costs_nothing_and_is_not_tried_again(kind):
    trajectory, backends = play([run("ls")] * 4, LS, sandbox=kind, rollout_config={"snapshot_interval": 1})
    assert (trajectory.reward, len(trajectory.steps), taken(trajectory)) == (1.0, 5, {})
    assert backends.sandbox.asked == 1


class Stubborn(MemorySandbox):
    """Does not remove its snapshots."""

    async def remove_snapshot(self, snapshot_id):
        raise SandboxError("it is in use")


def test_an_older_snapshot_that_cannot_be_removed_costs_nothing():
    trajectory, backends = play([run("ls")] * 3, LS, sandbox=Stubborn, rollout_config={"snapshot_interval": 1})
    assert trajectory.reward == 1.0
    assert len(backends.sandbox.snapshots) == 3


def test_the_tests_do_not_begin_before_a_snapshot_has_ended():
    trajectory, backends = play(
        [run("ls"), says("done")], LS, sandbox=SlowSnapshots, rollout_config={"snapshot_interval": 1}
    )
    assert (trajectory.reward, taken(trajectory)) == (1.0, {0: "snapshot-1"})
    assert backends.sandbox.overlaps == 0


def test_a_container_lost_while_a_snapshot_is_taken_ends_the_attempt_at_once():
    answers = LS | {"boom": SandboxLost("container died")}
    replies = [run("ls"), run("boom")]
    trajectory, backends = play(replies, answers, sandbox=SlowSnapshots, rollout_config={"snapshot_interval": 1})
    assert (trajectory.error_type, len(trajectory.steps)) == ("SandboxLost", 1)
    assert backends.closed


def test_a_result_of_any_kind_counts_as_something_done():
    failed = {"ls": CommandResult(exit_code=1)}
    trajectory, _ = play([run("ls"), says("done")], failed, rollout_config={"snapshot_interval": 1})
    assert taken(trajectory) == {0: "snapshot-1"}

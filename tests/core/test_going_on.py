"""An attempt that takes up an earlier one: the same conversation, the same files, nothing done twice."""

import asyncio

import pytest

from realwork.dataset.summaries import summarize
from realwork.errors import SandboxLost
from realwork.model.scripted import ScriptedModel
from realwork.plugins.hooks import NoHooks
from realwork.record import cut_off_rollout, failed_rollout, with_steps
from realwork.rollout import run_rollout
from realwork.types import Resumption

from .rollouts import OK, SPEC, MemoryBackends, run, settings
from .test_snapshots import play

STEPS = [run(f"step {number}") for number in range(6)]
ANSWERS = {f"step {number}": OK for number in range(6)} | {"check": OK}
EVERY_2 = {"snapshot_interval": 2}


def lost_after(steps):
    """An attempt whose container is lost in the step after `steps`, with a snapshot after every second one."""
    answers = ANSWERS | {f"step {steps}": SandboxLost("container died")}
    trajectory, _ = play(STEPS, answers, rollout_config=EVERY_2)
    assert (len(trajectory.steps), trajectory.error_type) == (steps, "SandboxLost")
    return trajectory


def go_on(parent, *, is_here=True, is_known=True, replies=STEPS, answers=ANSWERS, **given):
    """The attempt after `parent`, and the backends it was played with."""
    resumption = summarize(parent).resumption
    spec = SPEC.model_copy(update={"attempt": parent.spec.attempt + 1, "resumed": resumption})
    played = resumption.fork_step if is_here and is_known else 0
    backends = MemoryBackends(ScriptedModel("scripted", tuple(replies), "e", played=played), answers)
    if is_here:
        backends.sandbox.snapshots[resumption.snapshot_id] = {}
    handed = []

    async def recall(trajectory_id):
        return parent if is_known and trajectory_id == parent.spec.trajectory_id else None

    async def keep(unfinished):
        handed.append(unfinished)

    shared = settings(**({"rollout_config": EVERY_2} | given))
    trajectory = asyncio.run(run_rollout(spec, shared, backends, NoHooks(), on_steps=keep, recall=recall))
    return trajectory, backends, handed


def commands(trajectory):
    return [call.function.arguments for message in trajectory.messages for call in message.tool_calls]


def test_the_conversation_is_whole_and_nothing_before_the_fork_is_done_again():
    parent = lost_after(5)
    trajectory, backends, _ = go_on(parent)
    whole, _ = play(STEPS, ANSWERS, rollout_config=EVERY_2)
    assert backends.sandbox.commands == ["step 4", "step 5"]
    assert (trajectory.parent_trajectory_id, trajectory.fork_step) == (parent.spec.trajectory_id, 4)
    assert [step.index for step in trajectory.steps] == list(range(7))
    assert [step.message_index for step in trajectory.steps] == [step.message_index for step in whole.steps]
    assert trajectory.messages == whole.messages
    assert trajectory.steps[:4] == parent.steps[:4]
    assert (trajectory.reward, trajectory.spec.attempt, trajectory.spec.resumed) == (1.0, 1, None)
    assert (trajectory.final_diff, whole.final_diff) == (None, "")  # nobody knows what was there at first


def test_what_was_done_after_the_snapshot_is_not_taken_over():
    trajectory, _, _ = go_on(lost_after(5))
    assert len(trajectory.messages) == 2 + 2 * 7
    assert commands(trajectory) == commands(play(STEPS, ANSWERS)[0])
    assert trajectory.steps[3].state_snapshot.id == "snapshot-2"


@pytest.mark.parametrize(("is_here", "is_known"), [(False, True), (True, False)], ids=["no snapshot", "no parent"])
def test_an_attempt_begins_at_the_beginning_when_it_cannot_go_on(is_here, is_known):
    trajectory, backends, _ = go_on(lost_after(5), is_here=is_here, is_known=is_known)
    assert backends.sandbox.commands == [*(f"step {number}" for number in range(6))]
    assert (trajectory.parent_trajectory_id, trajectory.fork_step, trajectory.reward) == (None, None, 1.0)


def test_tokens_and_time_of_the_steps_taken_over_are_counted_once():
    parent = lost_after(5)
    paid = parent.steps[0].usage.model_copy(update={"prompt_tokens": 70, "completion_tokens": 20, "cost_usd": 1.0})
    steps = tuple(step.model_copy(update={"usage": paid, "llm_s": 100.0}) for step in parent.steps)
    trajectory, _, _ = go_on(parent.model_copy(update={"steps": steps}))
    totals = trajectory.totals
    assert (totals.n_steps, totals.n_tool_calls) == (7, 7)
    assert (totals.prompt_tokens, totals.completion_tokens, totals.cost_usd) == (0, 0, None)
    assert trajectory.timing.llm_s < 50


@pytest.mark.parametrize(
    ("taken_over", "limits", "reason"),
    [
        ({"llm_s": 3.0}, {"timeout_config": {"global_timeout": 10.0}}, "global_timeout"),
        ({"env_s": 2.0}, {"timeout_config": {"global_timeout": 10.0}}, "completed"),
        ({}, {"rollout_config": EVERY_2 | {"max_steps": 4}}, "action_limit"),
    ],
)
def test_what_was_taken_over_counts_for_the_limits_of_the_episode(taken_over, limits, reason):
    parent = lost_after(5)
    steps = tuple(step.model_copy(update=taken_over) for step in parent.steps)
    trajectory, _, _ = go_on(parent.model_copy(update={"steps": steps}), **limits)
    assert trajectory.terminated_reason == reason


def test_tokens_taken_over_count_for_the_limit_of_tokens():
    parent = lost_after(5)
    used = parent.steps[0].usage.model_copy(update={"prompt_tokens": 30})
    parent = parent.model_copy(update={"steps": tuple(s.model_copy(update={"usage": used}) for s in parent.steps)})
    trajectory, _, _ = go_on(parent, rollout_config=EVERY_2 | {"max_episode_tokens": 100})
    assert (trajectory.terminated_reason, len(trajectory.steps)) == ("token_limit", 4)


def test_an_attempt_lost_before_it_took_a_step_says_what_it_went_on_from_and_offers_it_to_the_next():
    parent = lost_after(5)
    trajectory, _, handed = go_on(parent, answers=ANSWERS | {"step 4": SandboxLost("container died")})
    assert (trajectory.fork_step, len(trajectory.steps), trajectory.reward) == (4, 4, None)
    offered = summarize(trajectory).resumption
    assert offered == Resumption(
        parent_trajectory_id=trajectory.spec.trajectory_id, fork_step=4, snapshot_id="snapshot-2"
    )
    assert [len(each.steps) for each in handed] == [4]


def test_a_lost_process_leaves_a_row_that_offers_its_last_snapshot():
    _, _, handed = go_on(lost_after(5))
    spec = SPEC.model_copy(update={"attempt": 1})
    lost = with_steps(failed_rollout(spec, settings(), SandboxLost("the process is gone")), handed[-1])
    summary = summarize(lost)
    assert (lost.fork_step, lost.parent_trajectory_id) == (4, "r:e:0:0")
    assert summary.resumption.fork_step == len(handed[-1].steps) == 6


@pytest.mark.parametrize("environment_id", ["e", "dropped"])
def test_an_attempt_that_was_cut_off_keeps_what_it_said_of_itself(environment_id):
    _, _, handed = go_on(lost_after(5))
    spec = handed[-1].spec.model_copy(update={"environment_id": environment_id})
    unfinished = handed[-1].model_copy(update={"spec": spec, "docker_image": "as it was", "sampling_params": "[1]"})
    lost = cut_off_rollout(spec, settings(), unfinished)
    assert (lost.docker_image, lost.sampling_params, len(lost.steps)) == ("as it was", "[1]", 6)
    nothing = cut_off_rollout(spec, settings(), None)
    for record in (lost, nothing):
        assert (record.spec, record.status, record.failure_cause, record.reward) == (spec, "failed", "node", None)
        assert record.ended_at >= record.started_at


def test_the_logs_of_earlier_background_commands_are_not_written_over():
    replies = [run("serve", background=True), run("serve", background=True)]
    parent, first = play(
        [replies[0], run("die")], {"die": SandboxLost("gone")}, rollout_config={"snapshot_interval": 1}
    )
    _, second, _ = go_on(parent, replies=replies)
    assert "background-1.log" in first.sandbox.commands[0]
    assert "background-2.log" in second.sandbox.commands[0]


def test_a_failure_of_the_model_or_of_the_tests_offers_nothing():
    parent, _ = play(STEPS, ANSWERS | {"check": SandboxLost("gone")}, rollout_config=EVERY_2)
    assert parent.failure_cause == "grading"
    assert parent.steps[1].state_snapshot is not None
    assert summarize(parent).resumption is None

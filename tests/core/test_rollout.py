import asyncio
import json

import pytest

from realwork.dataset.summaries import summarize
from realwork.errors import (
    ContextExceeded,
    ImageError,
    ModelError,
    ModelRefused,
    ModelTimeout,
    PluginError,
    SandboxError,
    SandboxLost,
)
from realwork.model.scripted import ScriptedModel
from realwork.plugins.hooks import NoHooks, Verdict
from realwork.rollout import run_rollout
from realwork.sandbox.base import CommandResult
from realwork.sandbox.files import pack_folder
from realwork.sandbox.memory import MemorySandbox
from realwork.tools import MAX_CALLS_PER_REPLY
from realwork.types import CommandAction, InvalidAction, Message, Reply, Usage

from .rollouts import FAILED, OK, SPEC, ListedModel, MemoryBackends, call, calls, play, run, says, settings

LS = {"ls": CommandResult(exit_code=0, stdout=b"a.py\n", stdout_bytes=5)}


ODD_IDS = ("a\ud800", "a\0b")


def reply_of(reply):
    return asyncio.run(ScriptedModel("s", (reply,), "e").complete([], deadline_s=1))


def text(content=None, finish_reason="stop"):
    return Reply(message=Message(role="assistant", content=content), finish_reason=finish_reason)


def test_a_whole_rollout_is_recorded_and_graded():
    trajectory, backends = play([run("ls"), says("All done.")], LS)
    assert (trajectory.status, trajectory.terminated_reason) == ("completed", "completed_naturally")
    assert (trajectory.success, trajectory.reward, trajectory.grading_mode) == (True, 1.0, "fresh")
    assert [message.role for message in trajectory.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert trajectory.messages[3].content == "Success: true\nOutput: a.py\n\nExit code: 0"
    assert trajectory.messages[3].tool_call_id == trajectory.messages[2].tool_calls[0].id
    assert [(step.index, step.message_index, len(step.observations)) for step in trajectory.steps] == [
        (0, 2, 1),
        (1, 4, 0),
    ]
    assert backends.closed
    assert backends.sandbox.stops == 1


def test_every_call_of_a_reply_is_answered_once_in_order():
    trajectory, _ = play(
        [calls(call("execute_command", command="ls"), call("nope"), call("read_file", filepath="x"))], LS
    )
    observations = trajectory.steps[0].observations
    assert [each.status for each in observations] == ["ok", "invalid", "error"]
    asked = [each.id for each in trajectory.messages[2].tool_calls]
    assert [each.call_id for each in observations] == asked
    assert [message.tool_call_id for message in trajectory.messages[3:6]] == asked


def test_calls_after_mark_done_are_not_executed():
    trajectory, backends = play([calls(call("mark_done"), call("execute_command", command="ls"))], LS)
    assert [each.status for each in trajectory.steps[0].observations] == ["ok", "not_executed"]
    assert (backends.sandbox.commands, backends.fresh.commands[-1]) == ([], "check")
    assert trajectory.terminated_reason == "completed"


def test_more_calls_than_are_carried_out_are_still_answered():
    many = [call("execute_command", command="ls")] * (MAX_CALLS_PER_REPLY + 5)
    trajectory, backends = play([calls(*many)], LS)
    assert len(trajectory.steps[0].observations) == len(many)
    assert backends.sandbox.commands.count("ls") == MAX_CALLS_PER_REPLY


def test_duplicate_and_empty_call_ids_become_unique():
    twice = calls(call("execute_command", command="ls"), call("execute_command", command="ls"))
    message = reply_of(twice).message
    same = message.model_copy(
        update={"tool_calls": tuple(each.model_copy(update={"id": "x"}) for each in message.tool_calls)}
    )
    empty = message.model_copy(
        update={"tool_calls": tuple(each.model_copy(update={"id": ""}) for each in message.tool_calls)}
    )
    odd = message.model_copy(
        update={
            "tool_calls": tuple(
                each.model_copy(update={"id": given}) for each, given in zip(message.tool_calls, ODD_IDS, strict=True)
            )
        }
    )
    trajectory, _ = play([], LS, model=ListedModel(*(Reply(message=each) for each in (same, empty, odd))))
    assert [result.given_call_id for result in trajectory.steps[2].observations] == list(ODD_IDS)
    ids = [call.id for message in trajectory.messages for call in message.tool_calls]
    assert len(set(ids)) == len(ids)
    assert all(ids)
    assert not set(ODD_IDS) & set(ids)


def test_the_tests_alone_say_what_the_work_is_worth():
    trajectory, _ = play(
        [says("I solved it perfectly.")], {"check": FAILED, "other": OK}, unit_tests=["check", "other"]
    )
    assert (trajectory.success, trajectory.reward) == (False, 0.5)
    assert [(test.status, test.exit_code) for test in trajectory.test_results] == [("failed", 1), ("passed", 0)]


def test_a_test_that_runs_out_of_time_fails():
    late = CommandResult(exit_code=None, timed_out=True)
    trajectory, _ = play([says("done")], {"check": late})
    assert (trajectory.test_results[0].status, trajectory.reward) == ("timeout", 0.0)


def test_copied_folders_stand_again_as_given_before_the_tests(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.txt").write_text("given")
    archive = pack_folder(tmp_path / "t", "t")
    weaken = calls(
        call("write_file", filepath="t/a.txt", content="weakened"), call("write_file", filepath="t/new", content="")
    )
    trajectory, backends = play([weaken], folders=[("t", archive)])
    assert backends.fresh.files == {"/workspace/t/a.txt": b"given"}
    assert trajectory.success


@pytest.mark.parametrize("error", [SandboxLost("container died"), SandboxError("no answer")])
def test_a_lost_sandbox_keeps_the_steps_already_taken(error):
    trajectory, backends = play([run("ls"), run("boom")], LS | {"boom": error})
    assert (trajectory.status, trajectory.failure_cause) == ("failed", "sandbox")
    assert (len(trajectory.steps), trajectory.reward, trajectory.success) == (1, None, None)
    assert trajectory.retryable
    assert backends.closed


@pytest.mark.parametrize("mode", ["same", "fresh"])
def test_what_the_agent_changed_is_told_as_it_left_it_before_folders_stand_again_as_given(tmp_path, mode):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.txt").write_text("given\n")
    weaken = calls(call("write_file", filepath="t/a.txt", content="weakened\n"))
    folders = [("t", pack_folder(tmp_path / "t", "t"))]
    trajectory, _ = play([weaken], folders=folders, environment={"grading_config": {"mode": mode}})
    header = "diff --git a/t/a.txt b/t/a.txt\n--- a/t/a.txt\n+++ b/t/a.txt\n"
    assert (trajectory.reward, trajectory.final_diff) == (1.0, header + "@@ -1 +1 @@\n-given\n+weakened\n")
    untouched, _ = play([], folders=folders, environment={"grading_config": {"mode": mode}})
    assert untouched.final_diff == ""


def test_a_diff_that_cannot_be_had_changes_no_grade():
    class Silent(MemorySandbox):
        async def diff(self):
            raise SandboxError("no answer")

    trajectory, _ = play([says("done")], sandbox=Silent)
    assert (trajectory.reward, trajectory.final_diff) == (1.0, None)


def test_a_sandbox_that_fails_under_the_tests_is_no_reward_and_its_diff_stays():
    trajectory, _ = play([says("done")], {"check": SandboxLost("container died")})
    assert trajectory.final_diff == ""
    assert (trajectory.failure_cause, trajectory.terminated_reason) == ("grading", "grading_error")
    assert (trajectory.reward, trajectory.success, trajectory.test_results) == (None, None, ())


def test_an_image_that_cannot_be_had_fails_the_environment():
    trajectory, _ = play([], opening=ImageError("no such image"))
    assert summarize(trajectory).fails_environment
    assert not trajectory.retryable


def test_a_failing_init_command_fails_the_environment_with_the_tail_of_its_output():
    failing = CommandResult(exit_code=3, stdout=b"x" * 5000 + b"no such package")
    trajectory, _ = play([], {"prepare": failing}, environment={"init_commands": ["prepare"]})
    assert "exit code 3" in trajectory.error_message
    assert trajectory.error_message.endswith("no such package")
    assert summarize(trajectory).fails_environment
    assert trajectory.terminated_reason == "environment_error"


def test_plugins_that_fail_a_rollout_leave_no_call_behind():
    class Failing(NoHooks):
        closed = False

        async def evaluate(self, trajectory):
            raise PluginError("the critical plugin p failed")

        def close(self):
            self.closed = True

    hooks = Failing()
    trajectory, _ = play([says("done")], hooks=hooks)
    assert (trajectory.failure_cause, trajectory.reward, hooks.closed) == ("plugin", None, True)


class Changing(NoHooks):
    """A modifier called `spoiler` that makes `changes`."""

    def __init__(self, **changes):
        self.changes = changes

    async def modify(self, environment, refuse):
        self.modified_by = ("spoiler",)
        return environment.model_copy(update=self.changes)


@pytest.mark.parametrize(
    ("changes", "opening"), [({"init_commands": ["prepare"]}, None), ({"docker_image": "j"}, ImageError("no image j"))]
)
def test_an_environment_that_plugins_spoilt_fails_this_rollout_alone(changes, opening):
    answers = {"prepare": CommandResult(exit_code=3, stdout=b"no such package")}
    trajectory, _ = play([], answers, opening=opening, hooks=Changing(**changes))
    assert (trajectory.failure_cause, trajectory.reward, trajectory.retryable) == ("plugin", None, False)
    assert trajectory.error_message.startswith("the environment as spoiler changed it: ")
    assert trajectory.error_message.endswith("no image j" if opening else "no such package")
    assert not summarize(trajectory).fails_environment


def test_an_image_that_cannot_be_had_fails_the_environment_whatever_else_plugins_changed():
    trajectory, _ = play([], opening=ImageError("no such image"), hooks=Changing(prompt="another"))
    assert summarize(trajectory).fails_environment


def test_a_model_that_fails_is_no_reward():
    trajectory, _ = play([], model=ListedModel(ModelError("no connection")))
    assert (trajectory.failure_cause, trajectory.terminated_reason) == ("model", "llm_error")
    assert (trajectory.reward, trajectory.retryable) == (None, True)


def test_a_refused_key_stops_the_run():
    trajectory, _ = play([], model=ListedModel(ModelRefused("401", status=401)))
    assert summarize(trajectory).aborts_run


def test_a_defect_of_ours_becomes_a_row_not_a_crash():
    trajectory, _ = play([], model=ListedModel(ZeroDivisionError("oops")))
    assert (trajectory.status, trajectory.error_type, trajectory.reward) == ("failed", "ZeroDivisionError", None)


def test_the_episode_ends_at_its_step_limit_and_is_graded():
    trajectory, _ = play([run("ls")] * 9, LS, rollout_config={"max_steps": 3})
    assert (trajectory.status, trajectory.terminated_reason) == ("truncated", "action_limit")
    assert (len(trajectory.steps), trajectory.reward) == (3, 1.0)


def test_context_that_is_too_long_is_shortened_once_then_ends_the_episode():
    model = ListedModel(
        *[reply_of(run("ls")) for _ in range(4)], ContextExceeded("too long"), ContextExceeded("too long")
    )
    trajectory, _ = play([], LS, model=model)
    assert (trajectory.terminated_reason, trajectory.reward) == ("context_limit", 1.0)
    assert len(model.asked[-1]) < len(model.asked[-2])


def test_time_that_runs_out_while_the_model_thinks_is_graded_if_it_ever_replied():
    timeout = ModelTimeout("no answer before the episode's time was over")
    first = reply_of(run("ls"))
    trajectory, _ = play([], LS, model=ListedModel(first, timeout))
    assert (trajectory.terminated_reason, trajectory.reward) == ("global_timeout", 1.0)
    trajectory, _ = play([], LS, model=ListedModel(timeout))
    assert (trajectory.terminated_reason, trajectory.reward) == ("llm_error", None)


def test_a_task_that_is_too_long_for_the_endpoint_is_no_reward():
    trajectory, _ = play([], model=ListedModel(ContextExceeded("too long", status=400)))
    assert (trajectory.failure_cause, trajectory.reward, trajectory.retryable) == ("model", None, False)
    assert summarize(trajectory).is_bad_request


class Slow(ListedModel):
    """Says with each reply how long it was waited for before it was asked for."""

    def __init__(self, *answers, replies_s=0.0, hangs_s=0.0):
        super().__init__(*answers)
        self.replies_s = replies_s
        self.hangs_s = hangs_s

    async def complete(self, messages, *, deadline_s):
        await asyncio.sleep(self.replies_s if self.answers else self.hangs_s)
        if not self.answers:
            raise ModelTimeout("no answer before the episode's time was over")
        return await super().complete(messages, deadline_s=deadline_s)


@pytest.mark.parametrize(
    ("model", "graded"),
    [
        (Slow(reply_of(run("ls")), hangs_s=0.1), True),
        (Slow(reply_of(run("ls")), hangs_s=0.6), False),
        (Slow(reply_of(run("ls")), replies_s=0.6, hangs_s=0.7), True),
        (Slow(reply_of(run("ls")).model_copy(update={"waited_s": 0.6}), hangs_s=0.01), False),
    ],
    ids=["cut in its last reply", "hangs", "always slow", "failed and paused"],
)
def test_time_that_the_endpoint_has_used_up_is_not_the_agent_s(model, graded):
    trajectory, _ = play([], LS, model=model, timeout_config={"global_timeout": 2})
    expected = ("global_timeout", 1.0, None) if graded else ("llm_error", None, "model")
    assert (trajectory.terminated_reason, trajectory.reward, trajectory.failure_cause) == expected
    assert graded or trajectory.retryable


@pytest.mark.parametrize(
    ("reply", "reason"), [(text(None), "completed_naturally"), (text("half a", "length"), "token_limit")]
)
def test_three_unusable_replies_in_a_row_end_the_episode(reply, reason):
    trajectory, _ = play([], model=ListedModel(reply, reply, reply))
    assert (trajectory.terminated_reason, len(trajectory.steps), trajectory.reward) == (reason, 3, 1.0)
    assert all(step.error for step in trajectory.steps)
    assert [message.role for message in trajectory.messages[2:]] == [
        "assistant",
        "user",
        "assistant",
        "user",
        "assistant",
    ]


def test_a_usable_reply_in_between_starts_the_count_anew():
    used = reply_of(run("ls"))
    trajectory, _ = play([], LS, model=ListedModel(text(), text(), used, text(), text()))
    assert trajectory.terminated_reason == "completed"


def test_the_model_sees_a_shortened_output_and_the_record_keeps_it_whole():
    long = CommandResult(exit_code=0, stdout=b"x" * 9000, stdout_bytes=9000)
    trajectory, _ = play([run("long")], {"long": long}, llm_config={"max_output_length": 200})
    assert len(trajectory.steps[0].observations[0].output) == 9000
    assert len(trajectory.messages[3].content) < 400
    assert "8800 characters omitted" in trajectory.messages[3].content


def test_a_blocked_action_is_answered_and_not_run():
    class Blocking(NoHooks):
        async def review(self, actions):
            return [Verdict(action=InvalidAction(problem="blocked by guard: no"), decision="blocked by guard: no")]

    trajectory, backends = play([run("rm -rf /")], hooks=Blocking())
    observation = trajectory.steps[0].observations[0]
    assert (observation.status, observation.decision) == ("blocked", "blocked by guard: no")
    assert "rm -rf /" not in backends.sandbox.commands


def test_a_rewritten_action_runs_rewritten():
    class Rewriting(NoHooks):
        async def review(self, actions):
            return [Verdict(action=CommandAction(command="ls"), decision="rewritten by guard") for _ in actions]

    trajectory, backends = play([run("dir")], LS, hooks=Rewriting())
    assert "dir" not in backends.sandbox.commands
    assert trajectory.steps[0].observations[0].decision == "rewritten by guard"
    answer = next(each for each in trajectory.messages if each.role == "tool")
    assert answer.content.splitlines()[0] == "Note: rewritten by guard: ls"


def test_a_background_command_says_where_its_output_goes():
    _, backends = play([run("serve 'it'", background=True)])
    started = backends.sandbox.commands[0]
    assert "background-1.log" in started
    assert started.splitlines()[1].endswith("&")


def test_unfinished_records_are_handed_over_every_few_steps():
    handed = []

    async def keep(unfinished):
        handed.append(len(unfinished.steps))

    play([run("ls")] * 7, LS, on_steps=keep, rollout_config={"save_trajectory_interval": 3, "snapshot_interval": 8})
    assert handed == [3, 6]


def test_a_cancelled_rollout_has_a_row_without_reward_and_leaves_nothing_open():
    async def scenario():
        started = asyncio.Event()

        class Waiting(ListedModel):
            async def complete(self, messages, *, deadline_s):
                started.set()
                await asyncio.sleep(60)

        backends = MemoryBackends(Waiting())
        task = asyncio.create_task(run_rollout(SPEC, settings(), backends, NoHooks()))
        await started.wait()
        task.cancel()
        return await task, backends

    trajectory, backends = asyncio.run(scenario())
    assert (trajectory.status, trajectory.terminated_reason) == ("cancelled", "cancelled")
    assert (trajectory.reward, trajectory.failure_cause, trajectory.retryable) == (None, "cancelled", False)
    assert backends.closed


def test_the_row_says_what_it_was_made_with():
    trajectory, _ = play([says("done")])
    assert json.loads(trajectory.sampling_params) == {}
    assert json.loads(trajectory.tools)[0]["function"]["name"] == "execute_command"
    assert (trajectory.network, trajectory.docker_image) == ("none", "i")


def test_usage_is_left_out_of_the_steps_and_still_bounds_the_episode():
    reply = reply_of(run("ls")).model_copy(update={"usage": Usage(prompt_tokens=60, completion_tokens=10)})
    trajectory, _ = play(
        [],
        LS,
        model=ListedModel(reply, reply, reply),
        llm_config={"track_token_usage": False},
        rollout_config={"max_episode_tokens": 100},
    )
    assert (trajectory.terminated_reason, len(trajectory.steps)) == ("token_limit", 2)
    assert trajectory.steps[0].usage.prompt_tokens is None

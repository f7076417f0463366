"""What the page of one attempt says of it."""

import json

import pytest

from realwork.dataset.rows import row
from realwork.types import Message, Step
from realwork.web.places import whole_text
from realwork.web.rollout_page import rollout_view
from tests.dataset.records import BEGAN, call, failed, graded, rich

from .runs import conversation


@pytest.fixture(scope="module")
def view():
    return rollout_view(row(rich(1)))


def test_calls_stand_with_their_own_results(view):
    first, second = view.steps[0].calls
    assert (first.name, first.summary, first.result.output.head) == ("write_file", "a.py", "written")
    assert (second.summary, second.result.exit_code, second.result.status) == ("python a.py", 3, "error")
    assert (second.result.error.head, second.result.decision) == ("warning\n", "rewritten by guard")
    assert [name for name, _ in second.arguments] == ["command", "timeout", "working_directory"]
    assert dict(first.arguments)["content"].language == "a.py"


def test_tokens_stand_with_their_mask_and_their_log_probabilities(view):
    tokens = view.steps[0].tokens
    assert (tokens.prompt, tokens.completion, tokens.mean_logprob, tokens.lowest_logprob) == (3, 2, -0.875, -1.25)
    assert [(cell.token_id, cell.level) for cell in tokens.cells] == [(4, 1), (5, 2)]
    assert view.steps[1].tokens is None
    assert view.segments == 1


def test_a_taken_over_step_is_told_from_its_own(view):
    assert [step.is_taken_over for step in view.steps] == [True, False]
    assert (view.parent_trajectory_id, view.fork_step) == ("r1:calc:0:0", 1)
    assert {span.anchor for span in view.spans} == {"step-1", "tests", "outcome"}


def test_a_graded_attempt_says_how_its_reward_came_about(view):
    assert view.reward_by == "1 of 2 test commands passed in a fresh sandbox."
    assert view.untrainable == []
    assert any("outside the working directory" in note for note in view.notes)


def test_a_reward_that_a_plugin_set_says_so():
    judge = {"replaced_reward": 1.0, "analysis": {"loops": 2}, "suggestions": ["be brief"], "error": "slow"}
    said = json.dumps({"judge": judge})
    view = rollout_view(row(rich(1, plugin_data=said)))
    assert view.reward_by == "Set by the plugin judge; the tests' own reward was 1.00."
    lines = [
        "replaced the reward of the tests, 1.00",
        'found {"loops": 2}',
        "suggests: be brief",
        "failed 1 of 1 times: slow",
    ]
    assert view.plugins[0].lines == lines


def test_an_attempt_without_a_grade_says_why_it_cannot_be_trained_on():
    view = rollout_view(row(failed(2, cause="sandbox")))
    assert view.untrainable[0] == "Its sandbox failed (SandboxLost)."
    assert "never a reward of 0" in view.reward_by
    assert (view.outcome, view.reward, view.error_message.head) == ("ungraded", None, "the container is gone")


def test_what_was_said_between_replies_is_shown():
    messages = (
        Message(role="user", content="task"),
        Message(role="assistant", content=None),
        Message(role="user", content="your reply was empty"),
        Message(role="assistant", content="done"),
    )
    steps = (Step(index=0, message_index=1, started_at=BEGAN), Step(index=1, message_index=3, started_at=BEGAN))
    view = rollout_view(row(graded(0, messages=messages, steps=steps)))
    assert [said.text.head for said in view.opening] == ["task"]
    assert [said.text.head for said in view.steps[0].followed] == ["your reply was empty"]


@pytest.mark.parametrize("arguments", ['{"command": ', "[1, 2]", '"text"', "[" * 100_000])
def test_arguments_that_are_no_object_are_shown_as_they_were_written(arguments):
    messages = (Message(role="assistant", tool_calls=(call("c", "execute_command", arguments),)),)
    view = rollout_view(row(graded(0, messages=messages, steps=(Step(index=0, message_index=0, started_at=BEGAN),))))
    ((name, text),) = view.steps[0].calls[0].arguments
    assert (name, text.head[:3]) == ("arguments", arguments[:3])


def test_the_timeline_has_every_step_within_the_width():
    view = rollout_view(row(conversation("passed", steps=12)))
    assert {f"step-{index}" for index in range(12)} <= {span.anchor for span in view.spans}
    assert all(0 <= span.left <= 1000 and span.left + span.width <= 1001 for span in view.spans)


def test_every_text_on_the_page_is_found_whole_in_its_place():
    columns = row(rich(1)) | {"final_diff": "-a\n+b\n"}
    view = rollout_view(columns)
    texts = [said.text for said in view.opening]
    texts += [text for step in view.steps for text in (step.content, step.reasoning) if text]
    texts += [argument for step in view.steps for each in step.calls for _, argument in each.arguments]
    texts += [
        text for step in view.steps for each in step.calls for text in (each.result.output, each.result.error) if text
    ]
    texts += [text for test in view.tests for text in (test.command, test.output, test.error) if text]
    texts += [view.diff, *(text for _, text in view.documents), *(plugin.raw for plugin in view.plugins)]
    assert len(texts) > 15
    for text in texts:
        assert whole_text(columns, text.at) == text.head, text.at


@pytest.mark.parametrize(
    "at", ["", "content", "content.99", "content.x", "messages.0", "output.0", "output.9.9", "__class__"]
)
def test_a_place_that_is_none_holds_nothing(at):
    assert whole_text(row(rich(1)), at) is None

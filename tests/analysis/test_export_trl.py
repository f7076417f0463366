"""The exports for TRL: what a line holds, which rollouts are lines, and which are not."""

import json

import pytest

from realwork.analysis.export import trl_dpo
from realwork.analysis.export.formats import export
from realwork.errors import InputError
from realwork.types import Message
from tests.dataset.records import call, failed, graded, rich

from .records import make_run

TOOLS = '[{"type": "function"}]'
PROMPT = [{"role": "system", "content": "You work."}, {"role": "user", "content": "Fix it — bitte, 修理"}]
COMPLETION = [
    {
        "role": "assistant",
        "content": "",
        "reasoning_content": "hm",
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "write_file", "arguments": {"filepath": "a.py", "content": "print(1)\n"}},
            },
            {
                "id": "c2",
                "type": "function",
                "function": {
                    "name": "execute_command",
                    "arguments": {"command": "python a.py", "timeout": 5, "working_directory": "/w"},
                },
            },
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "name": "write_file", "content": "Success: true"},
    {"role": "tool", "tool_call_id": "c2", "name": "execute_command", "content": "Output: 5 passed\n"},
    {"role": "assistant", "content": "Done."},
]


def worked(sample, reward, **more):
    """A graded rollout with that reward, whose last words tell which it is."""
    record = rich(sample, reward=reward, success=reward == 1.0, **more)
    last = Message(role="assistant", content=f"Sample {sample}.")
    return record.model_copy(update={"messages": (*record.messages[:-1], last)})


def lines(directory, name, records):
    """The lines of the export, and what is said of it."""
    make_run(directory / "run", records)
    said = export(directory / "run", name, directory / "out.jsonl")
    found = [json.loads(line) for line in (directory / "out.jsonl").read_text().splitlines()]
    assert len(found) == said.written
    assert [path.name for path in directory.iterdir() if path.name != "run"] == ["out.jsonl"]
    return found, said.left_out


def words(messages):
    return messages[-1]["content"]


def test_a_line_for_sft_is_the_conversation_with_its_tools(tmp_path):
    (line,), left_out = lines(tmp_path, "trl-sft", [rich()])
    assert line == {
        "messages": PROMPT + COMPLETION,
        "tools": TOOLS,
        "reward": 0.5,
        "success": False,
        "trajectory_id": "r1:calc:0:0",
    }
    assert left_out == {}


def test_a_line_for_kto_is_labelled_with_success(tmp_path):
    found, _ = lines(tmp_path, "trl-kto", [rich(0), worked(1, 1.0), worked(2, 0.0)])
    assert found[0] == {
        "prompt": PROMPT,
        "completion": COMPLETION,
        "label": False,
        "tools": TOOLS,
        "reward": 0.5,
        "trajectory_id": "r1:calc:0:0",
    }
    assert [line["label"] for line in found] == [False, True, False]


@pytest.mark.parametrize("name", ["trl-sft", "trl-kto"])
def test_a_rollout_is_one_line_and_what_has_no_grade_is_none(tmp_path, name):
    records = [
        failed(0, attempt=0, messages=rich().messages),
        rich(0, attempt=1),
        failed(1, attempt=0),
        failed(1, attempt=1, messages=rich().messages),
        graded(2, messages=rich().messages[:2]),
        worked(3, 0.0),
    ]
    found, left_out = lines(tmp_path, name, records)
    assert [(line["trajectory_id"], line["reward"]) for line in found] == [("r1:calc:0:1", 0.5), ("r1:calc:3:0", 0.0)]
    assert left_out == {
        "earlier attempts of a rollout": 2,
        "rollouts without a grade": 1,
        "rollouts without a reply of the model": 1,
    }


def test_what_the_model_wrote_badly_is_as_the_model_was_shown_it(tmp_path):
    calls = (
        call("a", "execute_command", "{not json"),
        call("b", "execute_command", '["a list"]'),
        call("c", "execute_command", '{"command": "\\ud800 \\u0000"}'),
    )
    messages = (*rich().messages[:2], Message(role="assistant", tool_calls=calls), Message(role="assistant"))
    (line,), _ = lines(tmp_path, "trl-sft", [graded(messages=messages, tools="[]")])
    arguments = [each["function"]["arguments"] for each in line["messages"][2]["tool_calls"]]
    assert arguments == [{}, {}, {"command": "\ufffd \ufffd"}]
    assert line["messages"][3] == {"role": "assistant", "content": ""}
    assert line["tools"] is None


def test_a_pair_is_the_best_of_a_group_against_its_worst(tmp_path):
    rewards = [0.5, 0.0, 1.0, 1.0, 0.0]
    records = [worked(sample, reward) for sample, reward in enumerate(rewards)]
    (line,), left_out = lines(tmp_path, "trl-dpo", list(reversed(records)))
    assert words(line.pop("chosen")) == "Sample 2."
    assert words(line.pop("rejected")) == "Sample 1."
    assert line == {
        "prompt": PROMPT,
        "tools": TOOLS,
        "score_chosen": 1.0,
        "score_rejected": 0.0,
        "chosen_id": "r1:calc:2:0",
        "rejected_id": "r1:calc:1:0",
    }
    assert left_out == {"graded rollouts that are neither best nor worst of their group": 3}


def test_no_pair_comes_of_equal_rewards_a_single_grade_or_a_silent_rollout(tmp_path):
    records = [
        *(worked(sample, 0.5, environment_id="equal") for sample in range(3)),
        worked(0, 1.0, environment_id="alone"),
        failed(1, environment_id="alone"),
        worked(0, 1.0, environment_id="silent"),
        graded(1, passed=0, environment_id="silent", messages=rich().messages[:2]),
        worked(0, 0.0, environment_id="good"),
        worked(1, 0.5, environment_id="good"),
    ]
    (line,), left_out = lines(tmp_path, "trl-dpo", records)
    assert (line["chosen_id"], line["rejected_id"]) == ("r1:good:1:0", "r1:good:0:0")
    assert left_out == {
        "rollouts without a grade": 1,
        "groups with equal rewards": 1,
        "groups of one graded rollout": 2,
        "rollouts without a reply of the model": 1,
    }


def test_groups_of_several_runs_are_different_groups(tmp_path):
    make_run(tmp_path / "runs" / "x", [worked(0, 1.0, run="x"), worked(1, 0.5, run="x")])
    make_run(tmp_path / "runs" / "y", [worked(0, 0.0, run="y"), worked(1, 0.5, run="y")])
    assert export(tmp_path / "runs", "trl-dpo", tmp_path / "out.jsonl").written == 2
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(line["chosen_id"][0], line["rejected_id"][0]) for line in found] == [("x", "x"), ("y", "y")]


def test_rollouts_with_different_prompts_are_no_pair(tmp_path):
    other = worked(1, 0.0)
    other = other.model_copy(update={"messages": (Message(role="user", content="else"), *other.messages[2:])})
    records = [worked(0, 1.0), other, worked(0, 1.0, environment_id="b"), worked(1, 0.0, environment_id="b")]
    (line,), left_out = lines(tmp_path, "trl-dpo", records)
    assert line["chosen_id"] == "r1:b:0:0"
    assert left_out == {trl_dpo.DIFFERENT: 1}


@pytest.mark.parametrize(
    ("name", "records", "why"),
    [
        ("trl-sft", [], "no rows yet"),
        ("trl-sft", [failed(0), failed(1)], "has a grade, of 2"),
        ("trl-kto", [graded(messages=rich().messages[:2])], "replied"),
        ("trl-dpo", [failed(0)], "has a grade, of 1"),
        ("trl-dpo", [worked(0, 0.5), worked(1, 0.5)], "two graded rollouts with different rewards"),
        ("trl-dpo", [worked(0, 0.5), failed(1)], "two graded rollouts with different rewards"),
    ],
)
def test_where_there_is_nothing_to_export_there_is_a_sentence_and_no_file(tmp_path, name, records, why):
    make_run(tmp_path / "run", records)
    with pytest.raises(InputError, match=why):
        export(tmp_path / "run", name, tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_each_group_of_an_environment_gives_a_pair_of_its_own(tmp_path):
    rewards = [1.0, 0.0, 0.25, 0.5]
    found, _ = lines(
        tmp_path, "trl-dpo", [worked(sample, reward, group_size=2) for sample, reward in enumerate(rewards)]
    )
    assert [(words(line["chosen"]), words(line["rejected"])) for line in found] == [
        ("Sample 0.", "Sample 1."),
        ("Sample 3.", "Sample 2."),
    ]

"""The export as Agent Trajectory Interchange Format 1.8: the format's own fields and rules, and what stands in them."""

import json
from datetime import datetime
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from realwork.analysis.export.formats import export
from realwork.errors import InputError
from realwork.types import Message, Observation, Step
from tests.dataset.records import BEGAN, call, failed, graded, rich

from .records import make_run

AGENT_ONLY = ("model_name", "reasoning_effort", "reasoning_content", "tool_calls", "metrics")


class Published(BaseModel):
    """A record of the format: no field beyond those it names."""

    model_config = ConfigDict(extra="forbid", strict=True)

    extra: dict[str, Any] | None = None


class ToolCall(Published):
    tool_call_id: str
    function_name: str
    arguments: dict[str, Any]


class Result(Published):
    source_call_id: str | None = None
    content: str | None = None


class Results(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    results: list[Result]


class Metrics(Published):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cost_usd: float | None = None
    prompt_token_ids: list[int] | None = None
    completion_token_ids: list[int] | None = None
    logprobs: list[float] | None = None


class AtifStep(Published):
    step_id: int = Field(ge=1)
    timestamp: str | None = None
    source: Literal["system", "user", "agent"]
    model_name: str | None = None
    reasoning_effort: str | float | None = None
    message: str
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    observation: Results | None = None
    metrics: Metrics | None = None
    is_copied_context: bool | None = None
    llm_call_count: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def follows_the_rules(self):
        if self.timestamp is not None:
            datetime.fromisoformat(self.timestamp)
        if self.source != "agent":
            assert not [name for name in AGENT_ONLY if getattr(self, name) is not None]
        calls = {each.tool_call_id for each in self.tool_calls or ()}
        results = self.observation.results if self.observation else []
        assert {each.source_call_id for each in results} - {None} <= calls
        return self


class Agent(Published):
    name: str
    version: str
    model_name: str | None = None
    tool_definitions: list[dict[str, Any]] | None = None


class FinalMetrics(Published):
    total_prompt_tokens: int | None = None
    total_completion_tokens: int | None = None
    total_cached_tokens: int | None = None
    total_cost_usd: float | None = None
    total_steps: int | None = Field(default=None, ge=0)


class Document(Published):
    schema_version: Literal["ATIF-v1.8"]
    session_id: str | None = None
    trajectory_id: str | None = None
    agent: Agent
    steps: list[AtifStep] = Field(min_length=1)
    notes: str | None = None
    final_metrics: FinalMetrics | None = None
    continued_trajectory_ref: str | None = None

    @model_validator(mode="after")
    def follows_the_rules(self):
        assert [step.step_id for step in self.steps] == list(range(1, len(self.steps) + 1))
        assert self.notes or not self.final_metrics or self.final_metrics.total_steps == len(self.steps)
        return self


def documents(directory, records):
    """The lines of the export, each valid, and what is said of it."""
    make_run(directory / "run", records)
    said = export(directory / "run", "atif", directory / "out.jsonl")
    lines = (directory / "out.jsonl").read_text().splitlines()
    assert len(lines) == said.written
    for line in lines:
        Document.model_validate_json(line)
    return [json.loads(line) for line in lines], said.left_out


def test_a_document_says_whose_work_it_is_and_what_came_of_it(tmp_path):
    (document,), _ = documents(tmp_path, [rich()])
    document.pop("steps")
    extra = document.pop("extra")
    assert document == {
        "schema_version": "ATIF-v1.8",
        "session_id": "r1:calc:0",
        "trajectory_id": "r1:calc:0:0",
        "agent": {
            "name": "realwork",
            "version": "unknown",
            "model_name": "policy",
            "tool_definitions": [{"type": "function"}],
        },
        "final_metrics": {"total_steps": 4},
    }
    assert (extra["reward"], extra["success"], extra["attempt"]) == (0.5, False, 0)
    assert extra["tests"] == [{"command": "check 0", "status": "passed"}, {"command": "check 1", "status": "failed"}]


def test_a_reply_is_a_step_with_the_results_of_its_calls(tmp_path):
    (document,), _ = documents(tmp_path, [rich()])
    system, user, work, last = document["steps"]
    assert system == {"step_id": 1, "source": "system", "message": "You work."}
    assert user == {"step_id": 2, "source": "user", "message": "Fix it — bitte, 修理"}
    assert work["tool_calls"][1] == {
        "tool_call_id": "c2",
        "function_name": "execute_command",
        "arguments": {"command": "python a.py", "timeout": 5, "working_directory": "/w"},
    }
    assert work["observation"]["results"][1] == {
        "source_call_id": "c2",
        "content": "Output: 5 passed\n",
        "extra": {"status": "error", "exit_code": 3, "duration_s": 1.5, "decision": "rewritten by guard"},
    }
    assert (work["message"], work["reasoning_content"], work["model_name"]) == ("", "hm", "answering")
    assert work["metrics"] == {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "cached_tokens": 60,
        "cost_usd": 0.25,
        "completion_token_ids": [4, 5],
        "logprobs": [-0.5, -1.25],
    }
    assert last == {
        "step_id": 4,
        "timestamp": "2026-01-02T03:04:10.678901+00:00",
        "source": "agent",
        "message": "Done.",
        "llm_call_count": 1,
        "extra": {"finish_reason": "stop", "error": "cut off"},
    }


def test_steps_taken_over_from_another_attempt_are_marked_and_in_no_sum(tmp_path):
    forked, whole = rich(0), rich(1, fork_step=None, parent_trajectory_id=None)
    first, second = documents(tmp_path, [forked, whole])[0]
    assert [step.get("is_copied_context") for step in first["steps"]] == [None, None, True, None]
    assert [step.get("is_copied_context") for step in second["steps"]] == [None] * 4
    assert second["final_metrics"] == {
        "total_prompt_tokens": 100,
        "total_completion_tokens": 20,
        "total_cached_tokens": 60,
        "total_cost_usd": 0.25,
        "total_steps": 4,
    }


def test_arguments_that_are_no_object_stand_beside_an_empty_one(tmp_path):
    calls = (call("a", "x", "{not json"), call("b", "x", '{"k": "\\ud800"}'), call("c", "x", ""))
    answers = tuple(Observation(call_id=each.id, tool_name="x", status="invalid") for each in calls)
    step = Step(index=0, message_index=1, started_at=BEGAN, observations=answers)
    messages = (Message(role="user", content="p"), Message(role="assistant", tool_calls=calls))
    (document,), _ = documents(tmp_path, [graded(messages=messages, steps=(step,))])
    given = [(each["arguments"], each.get("extra")) for each in document["steps"][1]["tool_calls"]]
    assert given == [({}, {"written_arguments": "{not json"}), ({"k": "\ufffd"}, None), ({}, None)]


def test_a_rollout_is_one_document_and_without_a_grade_it_has_no_reward(tmp_path):
    records = [
        failed(0, attempt=0, messages=rich().messages),
        rich(0, attempt=1),
        failed(1, attempt=0, messages=rich().messages),
        failed(1, attempt=1, messages=rich().messages),
        failed(2),
    ]
    found, left_out = documents(tmp_path, records)
    assert [(each["trajectory_id"], each["extra"]["reward"]) for each in found] == [
        ("r1:calc:0:1", 0.5),
        ("r1:calc:1:1", None),
    ]
    assert found[1]["extra"]["failure_cause"] == "sandbox"
    assert left_out == {"earlier attempts of a rollout": 2, "rollouts without a message": 1}


def test_the_version_is_that_which_played_the_run(tmp_path):
    make_run(tmp_path / "run", [rich()])
    (tmp_path / "run" / "run.json").write_text('{"run_id": "r1", "versions": {"realwork": "0.0.7"}}')
    export(tmp_path / "run", "atif", tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["agent"]["version"] == "0.0.7"


@pytest.mark.parametrize(("records", "why"), [([], "no rows yet"), ([failed(0)], "first message")])
def test_where_there_is_nothing_to_export_there_is_a_sentence_and_no_file(tmp_path, records, why):
    make_run(tmp_path / "run", records)
    with pytest.raises(InputError, match=why):
        export(tmp_path / "run", "atif", tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

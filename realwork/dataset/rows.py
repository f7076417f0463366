"""Trajectories as rows, and rows as trajectories.

Guarantees: `trajectory(row(t)) == t` for every record of valid text, and a lone surrogate becomes U+FFFD on the way in,
so that one bad text cannot fail a part. What was not measured is null, never 0.
"""

import json
from collections.abc import Mapping
from typing import Any

from realwork.dataset.version import SCHEMA_VERSION
from realwork.text import valid_unicode
from realwork.types import (
    Message,
    NamedReward,
    Observation,
    Record,
    RolloutSpec,
    Snapshot,
    Step,
    StepTokens,
    TestResult,
    Timing,
    ToolCall,
    Trajectory,
    Usage,
    Window,
)

Row = dict[str, Any]
Names = Mapping[str, str]
"""Column by field, where both hold the same value."""


def _same(*names: str) -> Names:
    return {name: name for name in names}


_SPEC = _same("run_id", "environment_id", "sample_index", "group_size", "attempt", "seed")
_TRAJECTORY = _same(
    *("parent_trajectory_id", "fork_step"),
    *("status", "terminated_reason", "failure_cause", "error_type", "error_message", "reward", "success"),
    *(
        "grading_mode",
        "changed_outside",
        "model",
        "base_url_host",
        "sampling_params",
        "tools",
        "started_at",
        "ended_at",
    ),
    *("docker_image", "image_digest", "node_id", "network", "final_diff", "environment", "plugin_data"),
)
_TEST = {
    "name": "test_name",
    "kind": "test_kind",
    "command": "test_command",
    "status": "test_status",
    "started_at": "test_started_at",
    "duration_s": "test_duration_s",
    "exit_code": "test_exit_code",
    "output": "test_output",
    "error": "test_stderr",
}
_MESSAGE = _same("role", "content", "reasoning_content", "tool_call_id", "name")
_STEP = {
    "index": "step_index",
    "message_index": "message_index",
    "started_at": "step_started_at",
    "finish_reason": "finish_reason",
    "llm_s": "llm_s",
    "env_s": "env_s",
    "retries": "retries",
    "error": "step_error",
    "model": "step_model",
    "policy_version": "step_policy_version",
}
_USAGE = _same("prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd")
_WINDOW = {"dropped": "messages_dropped", "shortened": "messages_shortened"}
_TOKENS = {
    "prefix_len": "prompt_prefix_len",
    "prompt": "prompt_token_ids",
    "completion": "completion_token_ids",
    "logprobs": "completion_logprobs",
}
_OBSERVATION = {
    "call_id": "call_id",
    "given_call_id": "given_call_id",
    "tool_name": "tool_name",
    "status": "call_status",
    "exit_code": "exit_code",
    "output": "output",
    "error": "stderr",
    "output_bytes": "output_bytes",
    "truncated": "output_truncated",
    "duration_s": "call_duration_s",
    "slot_wait_s": "slot_wait_s",
    "decision": "decision",
}
_SNAPSHOT = {"id": "snapshot_id", "taken_at": "snapshot_taken_at", "size_bytes": "snapshot_bytes"}
_NOT_RECORDED = ("group_complete",)
"""What no trajectory knows, but the store."""
_RETRYABLE = "retryable"


def row(trajectory: Trajectory) -> Row:
    """The row of `trajectory`, by column name."""
    spec = trajectory.spec
    columns: Row = {
        "schema_version": SCHEMA_VERSION,
        "trajectory_id": spec.trajectory_id,
        "task_id": spec.environment_id,
        "group_id": spec.group_id,
        **_columns(spec, _SPEC),
        **_columns(trajectory, _TRAJECTORY),
        **_grade_columns(trajectory),
        **_totals(trajectory),
        "messages": [_message_row(message) for message in trajectory.messages],
        "steps": [_step_row(step) for step in trajectory.steps],
        "timing": trajectory.timing.model_dump(),
        "policy_version": trajectory.policy_version,
        "metadata": _metadata_column(trajectory),
        **dict.fromkeys(_NOT_RECORDED),
    }
    return {name: _valid(value) for name, value in columns.items()}


def trajectory(row: Mapping[str, Any]) -> Trajectory:
    """The record of which `row` was made.

    Raises:
        pydantic.ValidationError: it was not made by `row()`.
    """
    retryable, metadata = _from_metadata(row["metadata"])
    return Trajectory(
        spec=RolloutSpec(**_fields(row, _SPEC), group_index=_group_index(row)),
        **_fields(row, _TRAJECTORY),
        rewards=tuple(NamedReward(**reward) for reward in row["rewards"]),
        test_results=tuple(TestResult(**_fields(test, _TEST)) for test in row["test_results"]),
        messages=tuple(_message(message) for message in row["messages"]),
        steps=tuple(_step(step) for step in row["steps"]),
        timing=Timing(**row["timing"]),
        retryable=retryable,
        metadata=metadata,
    )


def _columns(record: Record, names: Names) -> Row:
    return {column: getattr(record, field) for field, column in names.items()}


def _fields(row: Mapping[str, Any], names: Names) -> Row:
    return {field: row[column] for field, column in names.items()}


def _valid(value: Any) -> Any:
    """`value` with every text in it made valid."""
    match value:
        case str():
            return value if value.isascii() else valid_unicode(value)
        case dict():
            return {name: _valid(item) for name, item in value.items()}
        case list():
            return [_valid(item) for item in value]
        case _:
            return value


def _grade_columns(trajectory: Trajectory) -> Row:
    return {
        "reward_valid": trajectory.graded and trajectory.reward is not None,
        "rewards": [reward.model_dump() for reward in trajectory.rewards],
        "tests_passed": trajectory.tests_passed,
        "tests_total": trajectory.tests_total if trajectory.graded else None,
        "test_results": [_columns(test, _TEST) for test in trajectory.test_results],
    }


def _totals(trajectory: Trajectory) -> Row:
    totals = trajectory.totals
    return {
        "n_steps": totals.n_steps,
        "n_tool_calls": totals.n_tool_calls,
        "total_prompt_tokens": totals.prompt_tokens,
        "total_completion_tokens": totals.completion_tokens,
        "total_cost_usd": totals.cost_usd,
    }


def _message_row(message: Message) -> Row:
    calls = [call.model_dump() for call in message.tool_calls]
    return {**_columns(message, _MESSAGE), "tool_calls": calls or None}


def _message(row: Mapping[str, Any]) -> Message:
    calls = tuple(ToolCall.model_validate(call) for call in row["tool_calls"] or ())
    return Message(**_fields(row, _MESSAGE), tool_calls=calls)


def _step_row(step: Step) -> Row:
    snapshot = step.state_snapshot
    return {
        **_columns(step, _STEP),
        "state_snapshot": _columns(snapshot, _SNAPSHOT) if snapshot else None,
        **_columns(step.usage, _USAGE),
        **_columns(step.window, _WINDOW),
        "tool_results": [_columns(observation, _OBSERVATION) for observation in step.observations],
        **(_columns(step.tokens, _TOKENS) if step.tokens else dict.fromkeys(_TOKENS.values())),
    }


def _step(row: Mapping[str, Any]) -> Step:
    snapshot = row["state_snapshot"]
    return Step(
        **_fields(row, _STEP),
        usage=Usage(**_fields(row, _USAGE)),
        window=Window(**_fields(row, _WINDOW)),
        tokens=StepTokens(**_fields(row, _TOKENS)) if row["prompt_token_ids"] is not None else None,
        observations=tuple(Observation(**_fields(result, _OBSERVATION)) for result in row["tool_results"]),
        state_snapshot=Snapshot(**_fields(snapshot, _SNAPSHOT)) if snapshot else None,
    )


def _group_index(row: Mapping[str, Any]) -> int | None:
    """What stands at the end of the group's id, null where the environment's episodes are one group."""
    index = row["group_id"].removeprefix(f"{row['run_id']}:{row['environment_id']}").removeprefix(":")
    return int(index) if index else None


def _metadata_column(trajectory: Trajectory) -> str:
    """The record's metadata, and in it that the failure was retryable, for which there is no column."""
    if not trajectory.retryable:
        return trajectory.metadata
    return json.dumps({**json.loads(trajectory.metadata), _RETRYABLE: True}, ensure_ascii=False)


def _from_metadata(column: str) -> tuple[bool, str]:
    """Whether the failure was retryable, and the record's own metadata."""
    if f'"{_RETRYABLE}"' not in column:
        return False, column
    metadata = json.loads(column)
    retryable = metadata.pop(_RETRYABLE, False)
    return retryable, json.dumps(metadata, ensure_ascii=False)

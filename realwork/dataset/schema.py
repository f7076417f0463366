"""The columns of `trajectories/part-*.parquet`, one row per attempt, and of `samples/part-*.parquet`, one row per token
segment; one fixed schema each per version.

Guarantees: every column is in every part; no map and no JSON type, which some readers refuse; a nested name never
repeats a top-level one. The token columns (`*_token_ids`, `*_logprobs`, `prompt_prefix_len`) are filled together or
null together.
"""

import pyarrow as pa

from realwork.dataset.version import SCHEMA_VERSION

_TIME = pa.timestamp("us", tz="UTC")


def _fields(**types: pa.DataType) -> list[pa.Field]:
    return [pa.field(name, kind) for name, kind in types.items()]


def _records(**types: pa.DataType) -> pa.DataType:
    """A list of structs; the item is called `element`, as Parquet calls it."""
    return pa.list_(pa.field("element", pa.struct(_fields(**types))))


def _numbers(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", kind))


_IDS = _fields(
    schema_version=pa.int32(),
    run_id=pa.string(),
    trajectory_id=pa.string(),
    environment_id=pa.string(),
    task_id=pa.string(),
    group_id=pa.string(),
    group_size=pa.int32(),
    sample_index=pa.int32(),
    attempt=pa.int32(),
    parent_trajectory_id=pa.string(),
    fork_step=pa.int32(),
)

_OUTCOME = _fields(
    group_complete=pa.bool_(),
    status=pa.string(),
    terminated_reason=pa.string(),
    failure_cause=pa.string(),
    error_type=pa.string(),
    error_message=pa.string(),
    reward=pa.float64(),
    reward_valid=pa.bool_(),
    rewards=_records(name=pa.string(), value=pa.float64(), weight=pa.float64()),
    success=pa.bool_(),
    tests_passed=pa.int32(),
    tests_total=pa.int32(),
    test_results=_records(
        test_name=pa.string(),
        test_kind=pa.string(),
        test_command=pa.string(),
        test_status=pa.string(),
        test_started_at=_TIME,
        test_duration_s=pa.float64(),
        test_exit_code=pa.int32(),
        test_output=pa.string(),
        test_stderr=pa.string(),
    ),
    grading_mode=pa.string(),
    changed_outside=pa.int32(),
)

_POLICY = _fields(
    model=pa.string(),
    policy_version=pa.string(),
    base_url_host=pa.string(),
    sampling_params=pa.string(),
    seed=pa.int64(),
)

_TOOL_CALL = {
    "id": pa.string(),
    "type": pa.string(),
    "function": pa.struct(_fields(name=pa.string(), arguments=pa.string())),
}

_CHAT = _fields(
    messages=_records(
        role=pa.string(),
        content=pa.string(),
        reasoning_content=pa.string(),
        tool_calls=_records(**_TOOL_CALL),
        tool_call_id=pa.string(),
        name=pa.string(),
    ),
    tools=pa.string(),
)

_TOOL_RESULT = {
    "call_id": pa.string(),
    "given_call_id": pa.string(),
    "tool_name": pa.string(),
    "call_status": pa.string(),
    "exit_code": pa.int32(),
    "output": pa.string(),
    "stderr": pa.string(),
    "output_bytes": pa.int64(),
    "output_truncated": pa.bool_(),
    "call_duration_s": pa.float64(),
    "slot_wait_s": pa.float64(),
    "decision": pa.string(),
}

_SNAPSHOT = _fields(snapshot_id=pa.string(), snapshot_taken_at=_TIME, snapshot_bytes=pa.int64())

_STEPS = _fields(
    steps=_records(
        step_index=pa.int32(),
        message_index=pa.int32(),
        step_started_at=_TIME,
        finish_reason=pa.string(),
        prompt_tokens=pa.int32(),
        completion_tokens=pa.int32(),
        cached_tokens=pa.int32(),
        cost_usd=pa.float64(),
        llm_s=pa.float64(),
        env_s=pa.float64(),
        retries=pa.int32(),
        step_error=pa.string(),
        step_model=pa.string(),
        step_policy_version=pa.string(),
        messages_dropped=pa.int32(),
        messages_shortened=pa.int32(),
        state_snapshot=pa.struct(_SNAPSHOT),
        tool_results=_records(**_TOOL_RESULT),
        prompt_prefix_len=pa.int32(),
        prompt_token_ids=_numbers(pa.int32()),
        completion_token_ids=_numbers(pa.int32()),
        completion_logprobs=_numbers(pa.float32()),
    )
)

_TIMING = ("queue_s", "image_s", "boot_s", "agent_s", "llm_s", "env_s", "grade_s", "slot_s", "store_s")

_TOTALS = _fields(
    n_steps=pa.int32(),
    n_tool_calls=pa.int32(),
    total_prompt_tokens=pa.int64(),
    total_completion_tokens=pa.int64(),
    total_cost_usd=pa.float64(),
    timing=pa.struct(_fields(**dict.fromkeys(_TIMING, pa.float64()))),
    started_at=_TIME,
    ended_at=_TIME,
)

_PLACE = _fields(
    docker_image=pa.string(),
    image_digest=pa.string(),
    node_id=pa.string(),
    network=pa.string(),
    final_diff=pa.string(),
    environment=pa.string(),
    plugin_data=pa.string(),
    metadata=pa.string(),
)

SCHEMA = pa.schema(
    [*_IDS, *_OUTCOME, *_POLICY, *_CHAT, *_STEPS, *_TOTALS, *_PLACE],
    metadata={"realwork.schema_version": str(SCHEMA_VERSION)},
)

SAMPLE_SCHEMA = pa.schema(
    [
        *_IDS,
        *_fields(
            segment_index=pa.int32(),
            first_step=pa.int32(),
            last_step=pa.int32(),
            input_ids=_numbers(pa.int32()),
            completion_mask=_numbers(pa.int8()),
            logprobs=_numbers(pa.float32()),
            prompt_length=pa.int32(),
            reward=pa.float64(),
            reward_valid=pa.bool_(),
            advantage=pa.float64(),
            policy_version_min=pa.string(),
            policy_version_max=pa.string(),
            temperature=pa.float32(),
            model=pa.string(),
        ),
    ],
    metadata={"realwork.schema_version": str(SCHEMA_VERSION)},
)

DICTIONARY_COLUMNS = (
    "run_id",
    "environment_id",
    "task_id",
    "group_id",
    "status",
    "terminated_reason",
    "failure_cause",
    "error_type",
    "grading_mode",
    "model",
    "policy_version",
    "base_url_host",
    "sampling_params",
    "tools",
    "docker_image",
    "image_digest",
    "node_id",
    "network",
    "environment",
    "test_results.list.element.test_name",
    "test_results.list.element.test_kind",
    "test_results.list.element.test_command",
    "test_results.list.element.test_status",
    "messages.list.element.role",
    "messages.list.element.name",
    "messages.list.element.tool_calls.list.element.type",
    "messages.list.element.tool_calls.list.element.function.name",
    "steps.list.element.finish_reason",
    "steps.list.element.step_model",
    "steps.list.element.step_policy_version",
    "steps.list.element.tool_results.list.element.tool_name",
    "steps.list.element.tool_results.list.element.call_status",
    "steps.list.element.tool_results.list.element.decision",
    "policy_version_min",
    "policy_version_max",
)
"""Columns of either whose values repeat from row to row; token ids and texts gain nothing from a dictionary."""

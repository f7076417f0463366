"""Trajectories to write, for the tests of writers and readers."""

from datetime import UTC, datetime, timedelta

from realwork.types import (
    FunctionCall,
    Message,
    NamedReward,
    Observation,
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

BEGAN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def call(call_id, name, arguments):
    return ToolCall(id=call_id, function=FunctionCall(name=name, arguments=arguments))


def spec_of(sample, *, attempt, environment_id, run, group_size, **more):
    """A sample of one of its environment's groups of that size; null: of its own."""
    group = {"group_index": sample // group_size, "group_size": group_size} if group_size else {}
    named = {"run_id": run, "environment_id": environment_id, "sample_index": sample, "attempt": attempt}
    return RolloutSpec(**named, **group, **more)


def graded(
    sample=0,
    *,
    attempt=0,
    environment_id="calc",
    run="r1",
    passed=2,
    total=2,
    seconds=10.0,
    group_size=None,
    **more,
):
    """An attempt whose tests ran."""
    tests = tests_of(passed, total)
    fields = {
        "status": "completed",
        "terminated_reason": "completed",
        "reward": passed / total,
        "rewards": (NamedReward(name="tests", value=passed / total),),
        "success": passed == total,
        "grading_mode": "fresh",
        "changed_outside": 3,
        "started_at": BEGAN,
        "ended_at": BEGAN + timedelta(seconds=seconds),
        "test_results": tests,
    }
    named = {"attempt": attempt, "environment_id": environment_id, "run": run, "group_size": group_size}
    spec = spec_of(sample, **named, seed=7 + sample)
    return Trajectory(spec=spec, **{**fields, **more})


def tests_of(passed, total):
    """What test commands did."""
    return tuple(
        TestResult(
            name=f"test {number}",
            command=f"check {number}",
            status="passed" if number < passed else "failed",
            started_at=BEGAN + timedelta(seconds=8 + number),
            duration_s=0.5,
            exit_code=0 if number < passed else 1,
            output=f"output of {number}",
            error="" if number < passed else "AssertionError",
        )
        for number in range(total)
    )


def failed(
    sample=0, *, attempt=0, environment_id="calc", run="r1", cause="sandbox", seconds=10.0, group_size=None, **more
):
    """An attempt that our machinery failed."""
    return Trajectory(
        spec=spec_of(sample, attempt=attempt, environment_id=environment_id, run=run, group_size=group_size),
        status="failed",
        terminated_reason={"sandbox": "environment_error", "model": "llm_error"}[cause],
        failure_cause=cause,
        error_type="SandboxLost",
        error_message="the container is gone",
        retryable=True,
        started_at=BEGAN,
        ended_at=BEGAN + timedelta(seconds=seconds),
        **more,
    )


def rich(sample=0, *, output="5 passed\n", **more):
    """A graded attempt in which every field differs from its default."""
    calls = (
        call("c1", "write_file", '{"filepath": "a.py", "content": "print(1)\\n"}'),
        call("c2", "execute_command", '{"command": "python a.py", "timeout": 5, "working_directory": "/w"}'),
    )
    answers = (
        Observation(
            call_id="c1", given_call_id="c0", tool_name="write_file", status="ok", output="written", duration_s=0.25
        ),
        Observation(
            call_id="c2",
            tool_name="execute_command",
            status="error",
            output=output,
            error="warning\n",
            exit_code=3,
            output_bytes=4096,
            truncated=True,
            duration_s=1.5,
            slot_wait_s=0.125,
            decision="rewritten by guard",
        ),
    )
    messages = (
        Message(role="system", content="You work."),
        Message(role="user", content="Fix it — bitte, 修理"),
        Message(role="assistant", content=None, reasoning_content="hm", tool_calls=calls),
        Message(role="tool", tool_call_id="c1", name="write_file", content="Success: true"),
        Message(role="tool", tool_call_id="c2", name="execute_command", content=f"Output: {output}"),
        Message(role="assistant", content="Done."),
    )
    steps = (
        Step(
            index=0,
            message_index=2,
            started_at=BEGAN,
            finish_reason="tool_calls",
            usage=Usage(prompt_tokens=100, completion_tokens=20, cached_tokens=60, cost_usd=0.25),
            llm_s=2.0,
            env_s=1.75,
            retries=1,
            model="answering",
            policy_version="7",
            window=Window(dropped=2, shortened=4),
            tokens=StepTokens(prefix_len=0, prompt=(1, 2, 3), completion=(4, 5), logprobs=(-0.5, -1.25)),
            observations=answers,
            state_snapshot=Snapshot(id="sha256:2", taken_at=BEGAN + timedelta(seconds=4), size_bytes=1 << 40),
        ),
        Step(index=1, message_index=5, started_at=BEGAN + timedelta(seconds=5), finish_reason="stop", error="cut off"),
    )
    fields = {
        "parent_trajectory_id": "r1:calc:0:0",
        "fork_step": 1,
        "steps": steps,
        "test_results": (
            *tests_of(1, 2),
            TestResult(
                name="a.py::test_b",
                kind="case",
                command="check 1",
                status="skipped",
                started_at=BEGAN,
                duration_s=0.25,
                error="not today",
            ),
        ),
        "messages": messages,
        "tools": '[{"type": "function"}]',
        "model": "policy",
        "base_url_host": "127.0.0.1:8000",
        "sampling_params": '{"temperature": 0.7}',
        "timing": Timing(queue_s=1, image_s=2, boot_s=3, agent_s=4, llm_s=5, env_s=6, grade_s=7, store_s=8, slot_s=9),
        "docker_image": "python:3.12",
        "image_digest": "sha256:1",
        "node_id": "node-1",
        "network": "bridge",
        "final_diff": "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-1\n+2\n",
        "environment": '{"id": "calc"}',
        "plugin_data": '{"guard": {"blocked": 1}}',
        "metadata": '{"python": "3.12", "nested": {"a": [1, null]}}',
    }
    return graded(sample, **{"passed": 1, "group_size": 8, **fields, **more})

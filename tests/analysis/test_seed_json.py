"""The JSON list of trajectories and the numbers beside it."""

import json

import pytest

from realwork.analysis.export.seed_json import export_json
from realwork.errors import InputError
from realwork.types import FunctionCall, Message, Observation, Snapshot, Step, ToolCall, Usage

from .records import BEGAN, failed, graded, make_run

CALLS = [
    ("write_file", '{"filepath": "a.py", "content": "print(1)"}'),
    ("execute_command", '{"command": "python a.py", "timeout": 5, "working_directory": "/w", "background": true}'),
    ("execute_command", '{"command": 1}'),
    ("read_file", '{"filepath": "a.py"}'),
    ("mark_done", '{"message": "finished \\ud800"}'),
]


def worked(sample=0, **more):
    """An attempt of two replies: five calls of tools, then words."""
    calls = tuple(ToolCall(id=f"c{n}", function=FunctionCall(name=a, arguments=b)) for n, (a, b) in enumerate(CALLS))
    answers = [
        Observation(call_id=f"c{n}", tool_name=a, status="ok", output=f"out {n}", exit_code=0, duration_s=1.0)
        for n, (a, _) in enumerate(CALLS)
    ]
    answers[2] = Observation(call_id="c2", tool_name="execute_command", status="invalid", error="command: not text")
    usage = Usage(prompt_tokens=100, completion_tokens=20, cached_tokens=40)
    steps = (
        Step(
            index=0, message_index=1, started_at=BEGAN, llm_s=2.0, retries=1, usage=usage, observations=tuple(answers)
        ),
        Step(index=1, message_index=2, started_at=BEGAN, usage=Usage(prompt_tokens=10, completion_tokens=2)),
    )
    messages = (
        Message(role="user", content="p"),
        Message(role="assistant", tool_calls=calls),
        Message(role="assistant", content="words"),
    )
    return graded("calc", sample, 1, steps=steps, messages=messages, metadata='{"python": "3.12"}', **more)


def export(directory, records):
    make_run(directory / "run", records)
    export_json(directory / "run", directory / "out" / "results.json")
    assert sorted(path.name for path in (directory / "out").iterdir()) == ["results.json", "results.stats.json"]
    return [json.loads((directory / "out" / name).read_text()) for name in ("results.json", "results.stats.json")]


def test_a_trajectory_has_the_known_shape(tmp_path):
    (entry,), _ = export(tmp_path, [worked()])
    assert list(entry) == [
        *("trajectory_id", "environment_id", "start_time", "end_time"),
        *("steps", "test_results", "episode_result", "metadata"),
    ]
    assert (entry["trajectory_id"], entry["environment_id"]) == ("r1:calc:0:0", "calc")
    assert (entry["start_time"], entry["end_time"]) == ("2026-01-02T03:04:05+00:00", "2026-01-02T03:04:15+00:00")
    assert entry["test_results"][1] == {
        "command": "check 1",
        "success": False,
        "output": "",
        "error": "",
        "exit_code": 1,
        "duration": 0.5,
        "timestamp": "2026-01-02T03:04:14+00:00",
    }
    assert entry["metadata"]["python"] == "3.12"
    assert entry["metadata"]["sample_index"] == 0


def test_there_is_one_step_for_each_tool_call_in_order(tmp_path):
    (entry,), _ = export(tmp_path, [worked()])
    assert [step["step_id"] for step in entry["steps"]] == [0, 1, 2, 3, 4]
    plain = {"timeout": None, "working_directory": None, "background": False}
    assert [step["action"] for step in entry["steps"]] == [
        {"type": "file_write", "content": "print(1)", "filepath": "a.py", **plain},
        {"type": "command", "content": "python a.py", "timeout": 5, "working_directory": "/w", "background": True},
        {"type": "invalid", "content": '{"command": 1}', **plain},
        {"type": "file_read", "content": "a.py", **plain},
        {"type": "done", "content": "finished \ufffd", **plain},
    ]
    assert entry["steps"][1]["timestamp"] == "2026-01-02T03:04:08+00:00"
    assert entry["steps"][1]["result"] == {
        "success": True,
        "output": "out 1",
        "error": "",
        "exit_code": 0,
        "duration": 1.0,
        "timestamp": "2026-01-02T03:04:09+00:00",
    }
    assert entry["steps"][2]["result"]["success"] is False


def test_a_snapshot_stands_with_the_last_call_of_its_step(tmp_path):
    snapshot = Snapshot(id="sha256:1", taken_at=BEGAN, size_bytes=4096)
    record = worked()
    steps = (record.steps[0].model_copy(update={"state_snapshot": snapshot}), *record.steps[1:])
    (entry,), _ = export(tmp_path, [record.model_copy(update={"steps": steps})])
    assert [step["state_snapshot"] for step in entry["steps"]] == [None] * 4 + [
        {"id": "sha256:1", "taken_at": "2026-01-02T03:04:05Z", "size_bytes": 4096}
    ]


def test_the_result_says_what_the_tests_said_and_what_was_used(tmp_path):
    (entry,), _ = export(tmp_path, [worked()])
    result = entry["episode_result"]
    assert result.pop("test_results") == entry["test_results"]
    assert result == {
        "environment_id": "calc",
        "success": False,
        "total_actions": 5,
        "duration": 10.0,
        "terminated_reason": "completed",
        "final_score": 0.5,
        "token_usage": {
            "total_input_tokens": 110,
            "total_output_tokens": 22,
            "api_calls": 3,
            "cache_hits": 1,
            "cache_misses": 1,
            "cache_hit_rate": 0.5,
        },
    }


def test_what_was_not_graded_has_no_score_and_is_no_success(tmp_path):
    (entry,), numbers = export(tmp_path, [failed("calc", 0, "sandbox")])
    assert (entry["episode_result"]["final_score"], entry["episode_result"]["success"]) == (None, False)
    assert entry["metadata"]["failure_cause"] == "sandbox"
    assert numbers["environments"]["calc"]["avg_score"] is None


def test_list_and_numbers_have_one_entry_for_each_rollout(tmp_path):
    records = [
        failed("a", 0, "model", attempt=0, seconds=99),
        graded("a", 0, 2, attempt=1, seconds=10),
        graded("a", 1, 1, seconds=20),
        failed("a", 2, "sandbox", seconds=30),
        graded("b", 0, 2, seconds=5),
    ]
    entries, numbers = export(tmp_path, records)
    assert [entry["trajectory_id"] for entry in entries] == ["r1:a:0:1", "r1:a:1:0", "r1:a:2:0", "r1:b:0:0"]
    assert numbers == {
        "total_episodes": 4,
        "successful_episodes": 2,
        "failed_episodes": 2,
        "total_duration": 65.0,
        "environments": {
            "a": {"episodes": 3, "successful": 1, "failed": 2, "total_duration": 60.0, "avg_score": 0.75},
            "b": {"episodes": 1, "successful": 1, "failed": 0, "total_duration": 5.0, "avg_score": 1.0},
        },
    }


def test_a_run_without_rows_is_an_empty_list(tmp_path):
    entries, numbers = export(tmp_path, [])
    assert (entries, numbers["total_episodes"]) == ([], 0)


def test_an_output_that_is_no_regular_file_is_refused_and_stays(tmp_path):
    make_run(tmp_path / "run", [])
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="no regular file"):
        export_json(tmp_path / "run", tmp_path / "folder")

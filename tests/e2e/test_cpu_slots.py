"""A busy node slows down instead of timing out."""

import json

import pytest

from .command import plain, realwork, rows, run_file


@pytest.mark.usefixtures("on_cluster")
def test_commands_that_wait_for_their_turn_do_not_time_out_and_their_rows_tell_the_wait(tmp_path):
    command = "sleep 1 && touch done"
    replies = [{"tool_calls": [{"name": "execute_command", "arguments": {"command": command}}]}]
    (tmp_path / "script.json").write_text(json.dumps(replies))
    file = run_file(
        tmp_path,
        llm_config={"model": "scripted:script.json"},
        episode_control_config={"max_episodes": 4},
        rollout_config={"max_parallel_rollouts": 4, "cpu_slots": 1},
        timeout_config={"command_timeout": 1.5, "test_timeout": 1.5},
    )
    ended = realwork("run", file, "--run-id", "r", "--sandbox", "local", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = rows(tmp_path / "out" / "r")
    assert [row["success"] for row in found] == [True] * 4
    results = [row["steps"][0]["tool_results"][0] for row in found]
    assert [result["call_status"] for result in results] == ["ok"] * 4
    assert all(1 <= result["call_duration_s"] < 1.5 for result in results)
    assert sum(result["slot_wait_s"] > 0.5 for result in results) >= 2
    for row, result in zip(found, results, strict=True):
        assert row["timing"]["slot_s"] >= result["slot_wait_s"]
        assert row["steps"][0]["env_s"] < 1.5
    began, ended_at = min(row["started_at"] for row in found), max(row["ended_at"] for row in found)
    assert (ended_at - began).total_seconds() >= 4
    shown = realwork("stats", tmp_path / "out" / "r", cwd=tmp_path)
    assert "CPU slots" in plain(shown.stdout)


def test_in_a_run_without_slots_nothing_waits(tmp_path):
    (tmp_path / "script.json").write_text("[]")
    file = run_file(tmp_path, llm_config={"model": "scripted:script.json"})
    ended = realwork("run", file, "--run-id", "r", "--sandbox", "local", "--no-ray", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    (row,) = rows(tmp_path / "out" / "r")
    assert row["timing"]["slot_s"] == 0.0
    assert "CPU slots" not in realwork("stats", tmp_path / "out" / "r", cwd=tmp_path).stdout

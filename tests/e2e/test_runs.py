"""Whole runs through the command line: real Ray, real containers, a real HTTP endpoint."""

import json

import pytest

from tests.e2e.command import environment, on_terminal, own_containers, realwork, rows, run_file
from tests.endpoint import DONE, Endpoint, Request, by_turn, error, reply, run


def task_of(request: Request) -> str:
    """The environment's prompt, by which the endpoint tells rollouts apart."""
    return request["messages"][1]["content"]


@pytest.fixture(scope="module")
def mixed_run(docker_image, tmp_path_factory):
    """One run of four environments that an endpoint plays, each in its own way."""
    folder = tmp_path_factory.mktemp("mixed")
    failed_once: set[str] = set()

    def respond(request):
        task = task_of(request)
        turn = sum(message["role"] == "assistant" for message in request["messages"])
        if task == "stumble" and task not in failed_once:
            failed_once.add(task)
            return error(503, "overloaded", headers={"retry-after-ms": "10"})
        if task == "speak":
            return reply("I cannot do this.")
        if task == "parallel" and turn == 0:
            return reply(
                "Both at once.",
                ("execute_command", {"command": "printf 'a\\tb\\n\"c\" \\'; exit 3"}),
                ("write_file", {"filepath": "deep/er/f.txt", "content": "ä\n"}),
                ("read_file", {"filepath": "deep/er/f.txt"}),
                ("no_such_tool", {}),
                ("execute_command", "{broken"),
            )
        return run("touch done") if turn <= 1 else DONE

    with Endpoint(respond) as endpoint:
        file = run_file(
            folder,
            endpoint.base_url,
            environments=[environment(name, prompt=name) for name in ("parallel", "stumble", "speak")],
        )
        result = realwork("run", file, "--run-id", "mixed", "--output", folder / "results.json", cwd=folder)
    found = {row["environment_id"]: row for row in rows(folder / "out" / "mixed")}
    return result, found, folder, endpoint


def test_a_run_ends_with_one_graded_row_for_each_rollout(mixed_run):
    result, found, _, _ = mixed_run
    assert result.returncode == 0, result.stderr
    assert {name: (row["success"], row["reward"]) for name, row in found.items()} == {
        "parallel": (True, 1.0),
        "stumble": (True, 1.0),
        "speak": (False, 0.0),
    }
    assert all(row["reward_valid"] and row["grading_mode"] == "fresh" for row in found.values())
    assert own_containers("mixed") == []


def test_parallel_calls_are_answered_in_order_each_with_its_own_result(mixed_run):
    _, found, _, endpoint = mixed_run
    step = found["parallel"]["steps"][0]
    assert [(one["tool_name"], one["call_status"], one["exit_code"]) for one in step["tool_results"]] == [
        ("execute_command", "error", 3),
        ("write_file", "ok", None),
        ("read_file", "ok", None),
        ("no_such_tool", "invalid", None),
        ("execute_command", "invalid", None),
    ]
    assert step["tool_results"][0]["output"] == 'a\tb\n"c" \\'
    assert step["tool_results"][2]["output"] == "ä\n"
    sent = next(
        request["messages"]
        for request in endpoint.requests
        if task_of(request) == "parallel" and len(request["messages"]) > 3
    )
    asked = [call["id"] for call in sent[2]["tool_calls"]]
    assert [message["tool_call_id"] for message in sent[3:8]] == asked
    assert sent[2]["tool_calls"][4]["function"]["arguments"] == "{}"
    raw = found["parallel"]["messages"][2]["tool_calls"][4]["function"]["arguments"]
    assert raw == "{broken"


def test_an_error_of_the_endpoint_is_survived_and_counted(mixed_run):
    _, found, _, _ = mixed_run
    assert found["stumble"]["steps"][0]["retries"] == 1
    assert found["stumble"]["status"] == "completed"


def test_a_reply_without_tool_calls_ends_the_episode_which_is_graded(mixed_run):
    _, found, _, _ = mixed_run
    row = found["speak"]
    assert (row["terminated_reason"], row["n_steps"], row["tests_passed"], row["tests_total"]) == (
        "completed_naturally",
        1,
        0,
        1,
    )


def test_the_json_outputs_stand_beside_the_parquet(mixed_run):
    _, _, folder, _ = mixed_run
    written = {one["environment_id"]: one for one in json.loads((folder / "results.json").read_text())}
    assert written["parallel"]["steps"][0]["action"]["type"] == "command"
    assert written["parallel"]["steps"][0]["result"]["exit_code"] == 3
    assert written["parallel"]["episode_result"]["final_score"] == 1.0
    stats = json.loads((folder / "results.stats.json").read_text())
    assert (stats["total_episodes"], stats["successful_episodes"], stats["failed_episodes"]) == (3, 2, 1)


def test_stats_and_show_read_the_run(mixed_run):
    _, _, folder, _ = mixed_run
    stats = realwork("stats", "out/mixed", cwd=folder)
    assert stats.returncode == 0
    assert "parallel" in stats.stdout
    assert json.loads(realwork("stats", "out/mixed", "--json", cwd=folder).stdout)["total"]["graded"] == 3
    assert "mixed:parallel:0:0" in realwork("show", "out/mixed", cwd=folder).stdout
    shown = realwork("show", "out/mixed", "mixed:parallel", cwd=folder)
    assert "Both at once." in shown.stdout
    missing = realwork("show", "out/mixed", "nothing", cwd=folder)
    assert (missing.returncode, "Traceback" in missing.stderr) == (2, False)


def test_a_finished_run_that_is_resumed_plays_nothing_again(mixed_run):
    _, _, folder, endpoint = mixed_run
    before = sorted((folder / "out" / "mixed" / "trajectories").iterdir())
    result = realwork("run", folder / "run.json", "--resume", folder / "out" / "mixed", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "nothing is missing" in result.stderr
    assert sorted((folder / "out" / "mixed" / "trajectories").iterdir()) == before
    by_id = realwork("run", folder / "run.json", "--run-id", "mixed", cwd=folder)
    assert (by_id.returncode, "nothing is missing" in by_id.stderr) == (0, True)
    changed = run_file(folder, endpoint.base_url, template_prompt="another")
    refused = realwork("run", changed, "--run-id", "mixed", cwd=folder)
    assert refused.returncode == 2
    assert "template_prompt" in refused.stderr


@pytest.mark.usefixtures("on_cluster")
def test_on_a_terminal_a_live_table_shows_how_the_run_goes(docker_image, tmp_path):
    with Endpoint(by_turn(run("touch done"), DONE)) as endpoint:
        file = run_file(tmp_path, endpoint.base_url, episode_control_config={"max_episodes": 2})
        code, shown = on_terminal("run", file, "--run-id", "live", cwd=tmp_path)
    assert code == 0, shown
    assert "In flight" in shown
    assert "Is doing" in shown
    assert "2/2 rollouts" in shown
    assert "2/2 successful" in shown


def test_a_json_output_that_cannot_be_written_is_refused_before_anything_starts(tmp_path):
    (tmp_path / "folder").mkdir()
    result = realwork("run", run_file(tmp_path), "--output", "folder", cwd=tmp_path)
    assert (result.returncode, "--output" in result.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_a_refused_key_stops_the_run_with_one_message_and_is_nowhere_in_the_output(docker_image, tmp_path):
    with Endpoint(lambda _: error(401, "invalid key: you sent Bearer sk-canary-echo")) as endpoint:
        file = run_file(tmp_path, endpoint.base_url, episode_control_config={"max_episodes": 20})
        result = realwork("run", file, "--run-id", "refused", "--no-ray", cwd=tmp_path, OPENAI_API_KEY="sk-canary-echo")
    assert result.returncode == 1
    assert result.stderr.count("The run was stopped") == 1
    assert "invalid key" in result.stderr
    assert len(rows(tmp_path / "out" / "refused")) < 20
    assert own_containers("refused") == []
    assert endpoint.authorizations[0] == "Bearer sk-canary-echo"
    assert "sk-canary-echo" not in result.stdout + result.stderr
    assert "sk-canary-echo" not in str(rows(tmp_path / "out" / "refused"))
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path for path in written if b"sk-canary-echo" in path.read_bytes()]


def test_a_run_with_the_local_sandbox_says_loudly_what_that_means_and_a_failing_init_is_one_row(tmp_path):
    environments = [
        environment("bad", init_commands=["echo no such package; exit 7"], init_network="none"),
        environment("good"),
    ]
    with Endpoint(by_turn(run("touch done"), DONE)) as endpoint:
        file = run_file(
            tmp_path, endpoint.base_url, environments=environments, episode_control_config={"max_episodes": 4}
        )
        result = realwork("run", file, "--run-id", "local", "--sandbox", "local", "--no-ray", cwd=tmp_path)
    assert result.returncode == 1
    assert "NO ISOLATION" in result.stderr
    assert result.stderr.count("no such package") == 2  # in the command, and in what it said
    found = rows(tmp_path / "out" / "local")
    assert sorted(row["environment_id"] for row in found) == ["bad"] + ["good"] * 4
    assert all(row["success"] for row in found if row["environment_id"] == "good")

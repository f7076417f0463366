import asyncio
import json
import socket
import time

import pytest

from realwork.config import LlmConfig
from realwork.errors import ContextExceeded, ModelError, ModelRefused, ModelTimeout, ReplyWithheld
from realwork.model.openai import OpenAIModel, open_endpoint
from realwork.types import FunctionCall, Message, ToolCall
from tests.endpoint import Answer, Endpoint, error, in_order, reply, run

MESSAGES = [Message(role="system", content="s"), Message(role="user", content="u")]
HI = reply("hi")
NOW = {"retry-after-ms": "1"}


def ask(respond, *, messages=MESSAGES, deadline_s=20.0, **config):
    with Endpoint(respond) as endpoint:
        return asyncio.run(complete(endpoint.base_url, messages, deadline_s, config)), endpoint


async def complete(base_url, messages, deadline_s, config):
    llm = LlmConfig(model="m", base_url=base_url, **config)
    async with open_endpoint(llm, "sk-test") as client:
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
    assert ask(in_order(run("ls")))[0].message.tool_calls[0].function.name == "execute_command"


def test_the_parameters_that_were_sent_are_told():
    async def asked(base_url):
        llm = LlmConfig(model="m", base_url=base_url)
        async with open_endpoint(llm, "sk-test") as client:
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

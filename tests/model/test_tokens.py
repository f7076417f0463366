"""Token ids and log-probabilities, from a server that plays vLLM and SGLang, through an episode into its steps."""

import asyncio
import math
import random

import pytest

from realwork.config import LlmConfig
from realwork.errors import ModelError, ModelRefused
from realwork.model.conversation import Conversation
from realwork.model.openai import OpenAIModel, open_endpoint
from realwork.model.tokens import REQUEST, step_tokens, tells_none, whole
from realwork.secret import Secret
from realwork.types import Message, Step, TokenIds
from tests.endpoint import Answer, Endpoint, error, reply

HEAD = [Message(role="system", content="s"), Message(role="user", content="u")]
IDS = TokenIds(prompt=(1, 2, 3), completion=(4, 5), logprobs=(-0.5, -1.0))


def vllm(ids=IDS, **changed):
    """A completion as vLLM words it; `changed` replaces parts of the choice."""
    content = [{"token": "x", "logprob": one, "bytes": None, "top_logprobs": []} for one in ids.logprobs]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "hi", "reasoning": "because"},
        "logprobs": {"content": content},
        "token_ids": list(ids.completion),
        "finish_reason": "stop",
    }
    return Answer({"choices": [choice | changed], "prompt_token_ids": list(ids.prompt), "model": "m"})


def sglang(ids=IDS, **changed):
    """A completion as SGLang words it."""
    told = [[one, token, None] for one, token in zip(ids.logprobs, ids.completion, strict=True)]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "hi"},
        "prompt_token_ids": list(ids.prompt),
        "token_ids": list(ids.completion),
        "meta_info": {"output_token_logprobs": told},
        "finish_reason": "stop",
    }
    return Answer({"choices": [choice | changed], "model": "m"})


def ask(respond, *, times=1, **config):
    """The replies to the same messages, and the requests."""

    async def asked(base_url):
        llm = LlmConfig(model="m", base_url=base_url, **config)
        async with open_endpoint(llm, Secret("k")) as endpoint:
            return [
                await OpenAIModel(endpoint, llm, seed=number).complete(HEAD, deadline_s=20) for number in range(times)
            ]

    with Endpoint(respond) as endpoint:
        return asyncio.run(asked(endpoint.base_url)), endpoint.requests


@pytest.mark.parametrize("dialect", [vllm, sglang])
def test_ids_and_logprobs_come_as_they_were_told(dialect):
    (answer,), (request,) = ask(lambda _: dialect())
    assert answer.tokens == IDS
    assert {name: request[name] for name in REQUEST} == REQUEST


@pytest.mark.parametrize("dialect", [vllm, sglang])
@pytest.mark.parametrize(
    "changed",
    [
        {"token_ids": [4]},
        {"token_ids": [4, 5, 6]},
        {"token_ids": None},
        {"token_ids": []},
        {"token_ids": [4, "5"]},
        {"token_ids": [4, -5]},
        {"token_ids": [4, True]},
        {"logprobs": None, "meta_info": None},
        {"logprobs": {"content": None}, "meta_info": {"output_token_logprobs": [[]]}},
        {"logprobs": {"content": [{"logprob": "x"}, {}]}, "meta_info": {"output_token_logprobs": [None, 1]}},
        {
            "logprobs": {"content": [{"logprob": -1.0}, {"logprob": math.nan}]},
            "meta_info": {"output_token_logprobs": [[-1.0, 4], [math.inf, 5]]},
        },
        {
            "logprobs": {"content": [{"logprob": -1.0}, {"logprob": -1e300}]},
            "meta_info": {"output_token_logprobs": [[-1.0, 4], [10**400, 5]]},
        },
        {
            "logprobs": {"content": [{"logprob": -1.0}, {"logprob": 10**400}]},
            "meta_info": {"output_token_logprobs": [[-1.0, 4], [-1e300, 5]]},
        },
    ],
    ids=str,
)
def test_what_is_not_whole_is_left_out_and_the_reply_is_taken(dialect, changed):
    (answer,), _ = ask(lambda _: dialect(**changed))
    assert answer.tokens is None
    assert answer.message.content == "hi"


def test_a_log_probability_is_rounded_as_the_dataset_holds_it():
    (answer,), _ = ask(lambda _: vllm(TokenIds(prompt=(1,), completion=(2,), logprobs=(-0.1,))))
    assert answer.tokens.logprobs == (-0.10000000149011612,)


def test_an_endpoint_that_refuses_to_be_asked_is_asked_once_for_all_rollouts():
    def strict(request):
        unknown = [name for name in request if name.startswith("return_")]
        return error(400, f"Unrecognized request argument supplied: {unknown[0]}") if unknown else reply("hi")

    answers, requests = ask(strict, times=3)
    assert [answer.retries for answer in answers] == [0, 0, 0]
    assert len(requests) == 4
    assert not set(REQUEST) & set(requests[-1])


def test_an_endpoint_that_tells_none_is_not_asked_for_ever():
    _, requests = ask(lambda _: reply("hi"), times=5)
    assert [set(REQUEST) <= set(request) for request in requests] == [True] * 3 + [False] * 2
    _, requests = ask(lambda request: vllm() if request["seed"] == 0 else reply("hi"), times=6)
    assert all(set(REQUEST) <= set(request) for request in requests), "it tells some"


def test_nothing_is_asked_for_where_it_is_off():
    _, (request,) = ask(lambda _: vllm(), capture_tokens="off")
    assert not set(REQUEST) & set(request)


def test_public_apis_are_not_asked_unless_they_must():
    assert tells_none("openrouter.ai")
    assert tells_none("api.openai.com:443")
    assert not tells_none("notopenai.com")
    assert not tells_none("10.0.0.5:8000")


def test_an_endpoint_that_never_tells_ids_is_refused_where_they_are_asked_for():
    with pytest.raises(ModelRefused, match="capture_tokens"):
        ask(lambda _: reply("hi"), capture_tokens="on")


def test_a_reply_without_ids_among_others_is_asked_for_again_where_they_are_asked_for():
    answers = [vllm(), vllm(token_ids=[4]), vllm()]
    (_, second), requests = ask(lambda _: answers.pop(0), times=2, capture_tokens="on")
    assert (second.tokens, second.retries, len(requests)) == (IDS, 1, 3)
    answers = [Answer({"choices": []}), Answer({"choices": []}), vllm()]
    (nothing, second), _ = ask(lambda _: answers.pop(0), times=2, capture_tokens="on")
    assert (nothing.tokens, second.tokens) == (None, IDS), "who says nothing has no ids to tell"
    with pytest.raises(ModelError, match="without whole token ids"):
        ask(lambda request: vllm(token_ids=[4]) if request["seed"] else vllm(), times=2, capture_tokens="on")


@pytest.mark.parametrize(
    ("config", "version"),
    [
        ({}, None),
        ({"policy_version": "label"}, "label"),
        ({"policy_version": "label", "policy_version_header": "x-weights"}, "41"),
        ({"policy_version": "label", "policy_version_field": "metadata.weight_version"}, "42"),
        ({"policy_version": "label", "policy_version_field": "metadata.nothing"}, "label"),
        ({"policy_version": "label", "policy_version_header": "x-none"}, "label"),
    ],
    ids=str,
)
def test_the_version_of_the_policy_comes_from_where_the_run_file_says(config, version):
    body = {"choices": [{"message": {"content": "hi"}}], "metadata": {"weight_version": 42}}
    (answer,), _ = ask(lambda _: Answer(body, headers={"x-weights": "41"}), **config)
    assert answer.policy_version == version


def random_ids(draw, before):
    """A prompt that begins with all of `before`, with some of it, or anew; then a completion."""
    shared = draw.choice([len(before), len(before), draw.randint(0, len(before)), 0])
    new = [draw.randint(0, 9) for _ in range(draw.randint(1, 5))]
    completion = tuple(draw.randint(0, 9) for _ in range(draw.randint(1, 5)))
    return TokenIds(prompt=(*before[:shared], *new), completion=completion, logprobs=(-0.5,) * len(completion))


def test_every_prompt_can_be_put_together_again_from_what_is_new_in_it():
    draw = random.Random(7)
    for _ in range(300):
        before = ()
        for _ in range(8):
            ids = random_ids(draw, before)
            told = step_tokens(before, ids)
            assert (*before[: told.prefix_len], *told.prompt) == ids.prompt
            assert told.prefix_len == len(before) or before[told.prefix_len : told.prefix_len + 1] != told.prompt[:1]
            before = whole(before, told)
            assert before == (*ids.prompt, *ids.completion)


def test_a_conversation_that_goes_on_knows_the_ids_of_the_steps_before():
    first = step_tokens((), IDS)
    step = Step(index=0, message_index=2, started_at="2026-01-01T00:00:00Z", tokens=first)
    conversation = Conversation(None, max_messages=50, max_tokens=None, steps=[step])
    told = conversation.new_tokens(TokenIds(prompt=(1, 2, 3, 4, 5, 6), completion=(7,), logprobs=(-1.0,)))
    assert (told.prefix_len, told.prompt) == (5, (6,))
    assert conversation.new_tokens(None) is None
    anew = conversation.new_tokens(TokenIds(prompt=(1, 2, 3), completion=(7,), logprobs=(-1.0,)))
    assert (anew.prefix_len, anew.prompt) == (0, (1, 2, 3))

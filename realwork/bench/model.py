"""The model client beside the bare one that it is built on, both measured in one run.

The endpoint is a process of its own on loopback that answers at once; the clients take turns, so that a busy machine
slows both alike.
"""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from realwork.bench.endpoint import serving
from realwork.bench.processes import Process
from realwork.bench.spread import Spread, spread
from realwork.config import LlmConfig
from realwork.model.context import visible
from realwork.model.openai import OpenAIModel, open_endpoint
from realwork.model.yardstick import bare_client
from realwork.secret import Secret
from realwork.types import FunctionCall, Message, Record, ToolCall, Window

PARALLEL = 8
ROUNDS = 7
EXCHANGES = 10
OUTPUT = "a line of output of some command, as agents see them\n" * 20
LONG_MESSAGES = 1000

Ask = Callable[[], Awaitable[object]]


class ClientCost(Record):
    """What requests cost in several rounds; `cpu_ms` is CPU milliseconds of the client's process each."""

    requests_per_s: Spread
    cpu_ms: Spread


class ModelBench(Record):
    """What was measured.

    Attributes:
        ratio: CPU of our client over that of the bare one, round by round.
        long_conversation_mib: what a process grows by that holds `LONG_MESSAGES` messages and asks with all of them.
    """

    requests: int
    ours: ClientCost
    bare: ClientCost
    ratio: Spread
    long_conversation_mib: float


def bench_model(*, requests: int) -> ModelBench:
    """Send `requests` requests in each of several rounds, with our client and with the bare one.

    Raises:
        InputError: the endpoint does not start.
    """
    with serving(partial(_answer, _completion())) as (base_url, _):
        return asyncio.run(_measure(LlmConfig(model="bench", base_url=base_url), requests))


async def _measure(config: LlmConfig, requests: int) -> ModelBench:
    messages = _conversation(2 + 2 * EXCHANGES)
    async with open_endpoint(config, Secret("bench")) as opened, bare_client(config, messages) as bare:
        model = OpenAIModel(opened, config, seed=1)

        async def ours() -> object:
            return await model.complete(messages, deadline_s=60.0)

        rounds: dict[str, list[tuple[float, float]]] = {"ours": [], "bare": []}
        for ask in (ours, bare):
            await _round(ask, PARALLEL)
        for _ in range(ROUNDS):
            rounds["ours"].append(await _round(ours, requests))
            rounds["bare"].append(await _round(bare, requests))
        grown_mib = await _growth(model)
    pairs = zip(rounds["ours"], rounds["bare"], strict=True)
    return ModelBench(
        requests=requests,
        ours=_cost(rounds["ours"]),
        bare=_cost(rounds["bare"]),
        ratio=spread([ours_ms / bare_ms for (_, ours_ms), (_, bare_ms) in pairs]),
        long_conversation_mib=grown_mib,
    )


async def _round(ask: Ask, requests: int) -> tuple[float, float]:
    """Requests a second and CPU milliseconds of each, of `requests` requests, `PARALLEL` at once."""
    left = iter(range(requests))

    async def one_after_the_other() -> None:
        for _ in left:
            await ask()

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one_after_the_other() for _ in range(PARALLEL)))
    return requests / (time.perf_counter() - began), (time.process_time() - cpu) * 1000 / requests


def _cost(rounds: Sequence[tuple[float, float]]) -> ClientCost:
    rates, cpu_ms = zip(*rounds, strict=True)
    return ClientCost(requests_per_s=spread(rates), cpu_ms=spread(cpu_ms))


async def _growth(model: OpenAIModel) -> float:
    own = Process(os.getpid())
    before = own.memory_mib
    messages = _conversation(LONG_MESSAGES)
    await model.complete(visible(messages, Window()), deadline_s=60.0)
    return own.memory_mib - before


def _conversation(length: int) -> list[Message]:
    """A conversation of `length` messages: the head, then calls and their observations, no two the same."""
    messages = [Message(role="system", content="You work."), Message(role="user", content="Do it.")]
    for number in range((length - 2) // 2):
        arguments = json.dumps({"command": f"cat file-{number}"})
        call = ToolCall(id=f"call_{number}", function=FunctionCall(name="execute_command", arguments=arguments))
        messages.append(Message(role="assistant", tool_calls=(call,)))
        messages.append(
            Message(role="tool", tool_call_id=call.id, name="execute_command", content=f"{number} {OUTPUT}")
        )
    return messages


def _completion() -> bytes:
    call = {
        "id": "call_0",
        "type": "function",
        "function": {"name": "execute_command", "arguments": '{"command": "ls"}'},
    }
    message = {"role": "assistant", "content": "I look at the files.", "tool_calls": [call]}
    completion: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020},
    }
    return json.dumps(completion).encode()


def _answer(completion: bytes, _body: bytes) -> bytes:
    return completion

"""What goes back to the model: a history that fits and that every endpoint accepts. Pure.

Guarantees: system messages and the task (the first user message) always stay; a reply and the answers to its calls stay
or go together; arguments that were no JSON object are replaced by `{}`; all text is valid Unicode.
"""

import json
from collections.abc import Sequence
from typing import Any

from realwork.text import valid_text
from realwork.types import Message, ToolCall


def fit(messages: Sequence[Message], max_messages: int) -> list[Message]:
    """The newest whole exchanges of `messages` after its head, at most `max_messages` in all.

    The last exchange is always kept, even where it alone is more than that.
    """
    if len(messages) <= max_messages:
        return list(messages)
    head, exchanges = _split(messages)
    room = max_messages - len(head)
    kept: list[list[Message]] = []
    for exchange in reversed(exchanges):
        if kept and sum(map(len, kept)) + len(exchange) > room:
            break
        kept.append(exchange)
    return head + [message for exchange in reversed(kept) for message in exchange]


def drop_oldest(messages: Sequence[Message]) -> list[Message] | None:
    """`messages` with the older half of its exchanges left out, or null when there is but one left."""
    head, exchanges = _split(messages)
    if len(exchanges) < 2:
        return None
    return head + [message for exchange in exchanges[(len(exchanges) + 1) // 2 :] for message in exchange]


def _split(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The head (system messages and the task) and the exchanges, each begun by a reply."""
    start = next((index for index, message in enumerate(messages) if message.role == "assistant"), len(messages))
    exchanges: list[list[Message]] = []
    for message in messages[start:]:
        if message.role == "assistant":
            exchanges.append([message])
        else:
            exchanges[-1].append(message)
    return list(messages[:start]), exchanges


def to_chat(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """`messages` in the form of the OpenAI chat API's `messages` parameter."""
    return [_to_chat(message) for message in messages]


def _to_chat(message: Message) -> dict[str, Any]:
    chat: dict[str, Any] = {"role": message.role, "content": valid_text(message.content or "")}
    if message.role == "assistant" and message.tool_calls:
        chat["tool_calls"] = [_call_to_chat(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        chat["tool_call_id"] = message.tool_call_id
    return chat


def _call_to_chat(call: ToolCall) -> dict[str, Any]:
    name = valid_text(call.function.name) or "unknown"
    return {"id": call.id, "type": "function", "function": {"name": name, "arguments": _arguments(call)}}


def _arguments(call: ToolCall) -> str:
    try:
        arguments = json.loads(call.function.arguments)
        return json.dumps(arguments) if isinstance(arguments, dict) else "{}"
    except (ValueError, RecursionError):
        return "{}"

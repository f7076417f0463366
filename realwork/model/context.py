"""What goes back to the model: a history that fits and that every endpoint accepts. Pure.

Guarantees: system messages and the task (the first user message) always stay; a reply and the answers to its calls stay
or go together, and the last ones stay whole; what was cut once stays cut, so that the beginning of a prompt seldom
changes; arguments that were no JSON object are replaced by `{}`, names that no tool can have by some that one could;
all text is valid Unicode.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

from realwork.text import shorten, valid_text
from realwork.types import Message, ToolCall, Window

SHORT_CHARACTERS = 200
"""What is left of an observation that is cut short."""
EMPTY = "(empty)"
"""Stands for a reply without anything, which strict endpoints refuse."""
LONGEST_NAME = 64
_NO_NAME = re.compile("[^a-zA-Z0-9_-]")
ROOM = 0.75
"""A history that is too long is cut to this share of what is allowed, so that it is not cut again at once."""


def visible(messages: Sequence[Message], window: Window) -> list[Message]:
    """What of `messages` the model is shown through `window`."""
    start = _head_length(messages)
    kept, whole = start + window.dropped, start + max(window.dropped, window.shortened)
    return [*messages[:start], *map(_cut_short, messages[kept:whole]), *messages[whole:]]


def narrowed(
    messages: Sequence[Message],
    window: Window,
    *,
    max_messages: int,
    max_tokens: int | None = None,
    tokens_per_character: float = 0.0,
) -> Window:
    """`window`, or a narrower one through which `messages` fit, or else the narrowest.

    Where there are too many messages, the oldest exchanges leave. Where there are too many tokens, the oldest
    observations are cut short, and only then exchanges leave.
    """
    cuts = _cuts(messages)

    def tokens(through: Window) -> float:
        return characters(visible(messages, through)) * tokens_per_character

    if len(visible(messages, window)) > max_messages:
        fewer = [Window(dropped=cut, shortened=window.shortened) for cut in cuts if cut > window.dropped]
        window = _widest(fewer, lambda each: len(visible(messages, each)) <= max_messages * ROOM) or window
    if max_tokens is not None and tokens(window) > max_tokens:
        shorter = [Window(dropped=window.dropped, shortened=cut) for cut in cuts if cut > window.shortened]
        fewer = [Window(dropped=cut, shortened=cuts[-1]) for cut in cuts if cut > window.dropped]
        window = _widest([*shorter, *fewer], lambda each: tokens(each) <= max_tokens * ROOM) or window
    return window


def halved(messages: Sequence[Message], window: Window) -> Window | None:
    """A narrower window without the older half of the exchanges and with short observations, null if one is left."""
    left = [cut for cut in _cuts(messages) if cut > window.dropped]
    return Window(dropped=left[(len(left) - 1) // 2], shortened=left[-1]) if left else None


def characters(messages: Sequence[Message]) -> int:
    """How many characters `messages` hold."""
    return sum(len(message.content or "") + sum(map(_length, message.tool_calls)) for message in messages)


def _length(call: ToolCall) -> int:
    return len(call.function.name) + len(call.function.arguments)


def _head_length(messages: Sequence[Message]) -> int:
    """How many messages (the system's and the task) stand before the first reply."""
    return next((index for index, message in enumerate(messages) if message.role == "assistant"), len(messages))


def _cuts(messages: Sequence[Message]) -> list[int]:
    """After how many messages behind the head each exchange ends, but for the last; each is begun by a reply."""
    start = _head_length(messages)
    return [index - start for index, message in enumerate(messages) if message.role == "assistant" and index > start]


def _widest(windows: Sequence[Window], fits: Callable[[Window], bool]) -> Window | None:
    """The first of `windows`, each narrower than the one before, that fits, else the last; null if there is none."""
    return windows[min(bisect_left(windows, 1, key=fits), len(windows) - 1)] if windows else None


def _cut_short(message: Message) -> Message:
    if message.role != "tool" or not message.content:
        return message
    content = shorten(message.content, SHORT_CHARACTERS, note="the rest of this old output is left out")
    return message.model_copy(update={"content": content})


def to_chat(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """`messages` in the form of the OpenAI chat API's `messages` parameter."""
    return [_to_chat(message) for message in messages]


def _to_chat(message: Message) -> dict[str, Any]:
    chat: dict[str, Any] = {"role": message.role, "content": valid_text(message.content or "")}
    if message.role == "assistant" and message.tool_calls:
        chat["tool_calls"] = [_call_to_chat(call) for call in message.tool_calls]
    elif message.role == "assistant" and not chat["content"].strip():
        chat["content"] = EMPTY
    if message.tool_call_id is not None:
        chat["tool_call_id"] = message.tool_call_id
    return chat


def _call_to_chat(call: ToolCall) -> dict[str, Any]:
    name = _NO_NAME.sub("_", call.function.name)[:LONGEST_NAME] or "unknown"
    return {"id": call.id, "type": "function", "function": {"name": name, "arguments": _arguments(call)}}


def _arguments(call: ToolCall) -> str:
    try:
        arguments = json.loads(call.function.arguments)
        return json.dumps(_valid(arguments), allow_nan=False) if isinstance(arguments, dict) else "{}"
    except (ValueError, RecursionError):
        return "{}"


def _valid(value: Any) -> Any:
    """`value`, which came as JSON, with valid text in it."""
    match value:
        case str():
            return valid_text(value)
        case list():
            return [_valid(each) for each in value]
        case dict():
            return {valid_text(name): _valid(each) for name, each in value.items()}
    return value

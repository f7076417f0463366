"""A conversation as chat templates want it. Pure.

Guarantees: arguments of tool calls are objects; where the model wrote none, they are empty, as in what it was shown
from then on. A key that would be null is left out, but for `content`, which is a text: templates differ in what they
make of null.
"""

import json
from collections.abc import Sequence
from typing import Any

from realwork.model.context import to_chat
from realwork.text import valid_text
from realwork.types import Message, Trajectory

Chat = dict[str, Any]


def chat(messages: Sequence[Message]) -> list[Chat]:
    """`messages` with the arguments of their tool calls as objects."""
    return [_message(message) for message in messages]


def tools(trajectory: Trajectory) -> str | None:
    """The tool schemas as JSON text, null where the model had no tools."""
    return trajectory.tools if json.loads(trajectory.tools) else None


def _message(message: Message) -> Chat:
    (shown,) = to_chat([message])
    shown["content"] = valid_text(message.content or "")
    if message.reasoning_content:
        shown["reasoning_content"] = valid_text(message.reasoning_content)
    if message.name is not None:
        shown["name"] = valid_text(message.name)
    for call in shown.get("tool_calls", []):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return shown

"""Messages and tools as the text that the model continues, and its text as a message. Pure.

Guarantees: the prompt of a turn begins with the prompt and the completion of the turn before it, where the history
holds what the model wrote.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

START, END = "<|im_start|>", "<|im_end|>"
CALL, CALL_END = "<tool_call>", "</tool_call>"
_TOOLS = "You can use these tools, each reply one: {tools}. Write {call}{{...}}{call_end}."


def prompt(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
    """The text before the next reply.

    Raises:
        ValueError: a message has no role or its content is no text.
    """
    turns = [_turn(message) for message in messages]
    if tools:
        names = json.dumps([tool["function"]["name"] for tool in tools])
        turns.insert(0, f"{START}system\n{_TOOLS.format(tools=names, call=CALL, call_end=CALL_END)}{END}\n")
    return "".join(turns) + f"{START}assistant\n"


def _turn(message: Mapping[str, Any]) -> str:
    role, content = message.get("role"), message.get("content")
    if role not in ("system", "user", "assistant", "tool") or not isinstance(content, str | None):
        raise ValueError("every message needs a role and a text as its content")
    said = content or ""
    for call in message.get("tool_calls") or ():
        function = call["function"]
        said += call_text(function["name"], function["arguments"])
    return f"{START}{'user' if role == 'tool' else role}\n{said}{END}\n"


def call_text(name: str, arguments: str) -> str:
    """A tool call as the model writes it."""
    return f'{CALL}{{"name": {json.dumps(name)}, "arguments": {arguments}}}{CALL_END}'


def read_call(text: str) -> tuple[str, str] | None:
    """Name and arguments of the call that `text` is, null where it is none."""
    if not (text.startswith(CALL) and text.endswith(CALL_END)):
        return None
    call = json.loads(text.removeprefix(CALL).removesuffix(CALL_END))
    return call["name"], json.dumps(call["arguments"])

"""The form of what the tiny model reads and writes, without the model."""

import random

import pytest

from realwork.tiny.chatml import call_text, prompt, read_call
from realwork.tiny.constraint import Exactly, FreeText, OneOf, tool_call
from realwork.tools import parse_call, tool_schemas
from realwork.types import FunctionCall, InvalidAction, ToolCall

HEAD = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]


def test_the_prompt_of_a_turn_begins_with_the_turn_before_it():
    first = prompt(HEAD, tool_schemas())
    arguments = '{"command": "ls \'a\'"}'
    call = {"id": "1", "function": {"name": "execute_command", "arguments": arguments}}
    answered = [*HEAD, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "ok"}]
    written = call_text("execute_command", arguments)
    assert prompt(answered, tool_schemas()).startswith(f"{first}{written}<|im_end|>\n<|im_start|>user\nok")
    assert read_call(written) == ("execute_command", arguments)


def test_text_is_no_call():
    assert read_call("I would call a tool.") is None


@pytest.mark.parametrize(
    "message", [{"content": "x"}, {"role": "boss", "content": "x"}, {"role": "user", "content": []}]
)
def test_a_message_that_is_none_is_refused(message):
    with pytest.raises(ValueError, match="every message needs a role"):
        prompt([message], [])


def test_whatever_is_chosen_and_written_is_a_call_that_the_tools_take():
    draw = random.Random(5)
    names = set()
    for _ in range(200):
        text, pieces, sent = "", tool_call(tool_schemas()), None
        try:
            while True:
                match pieces.send(sent):
                    case Exactly(text=said):
                        text, sent = text + said, None
                    case OneOf(texts=texts):
                        sent = draw.choice(texts)
                        text += sent
                    case FreeText():
                        text, sent = text + "".join(draw.choices("abc /.-", k=5)) + '"', None
        except StopIteration:
            name, arguments = read_call(text)
        call = ToolCall(id="1", function=FunctionCall(name=name, arguments=arguments))
        assert not isinstance(parse_call(call), InvalidAction), text
        names.add(name)
    assert names == {"execute_command", "write_file", "read_file", "mark_done"}

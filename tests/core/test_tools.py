import json

import pytest

from realwork.tools import parse_call, tool_schemas
from realwork.types import CommandAction, DoneAction, FunctionCall, InvalidAction, ReadAction, ToolCall, WriteAction


def parse(name, arguments):
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return parse_call(ToolCall(id="1", function=FunctionCall(name=name, arguments=text)))


def test_every_tool_becomes_its_action():
    assert parse("execute_command", {"command": "ls", "timeout": 3, "background": True}) == CommandAction(
        command="ls", timeout_s=3.0, background=True
    )
    assert parse("write_file", {"filepath": "a", "content": ""}) == WriteAction(path="a", content="")
    assert parse("read_file", {"filepath": "-x"}) == ReadAction(path="-x")
    assert parse("mark_done", {"message": "ok"}) == DoneAction(message="ok")


@pytest.mark.parametrize("arguments", ["", "null", "{}"])
def test_no_arguments_count_as_an_empty_object(arguments):
    assert parse("mark_done", arguments) == DoneAction()


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("execute_command", "{", "not valid JSON"),
        ("execute_command", "[" * 100_000, "not valid JSON"),
        ("execute_command", "[1]", "must be one JSON object, not list"),
        ("execute_command", "3", "must be one JSON object, not int"),
        ("execute_command", {}, "'command' is missing"),
        ("execute_command", {"command": ""}, "'command'"),
        ("execute_command", {"command": 5}, "'command'"),
        ("execute_command", {"command": "a", "timeout": True}, "'timeout'"),
        ("execute_command", {"command": "a", "timeout": "5"}, "'timeout'"),
        ("execute_command", '{"command": "a", "timeout": NaN}', "'timeout'"),
        ("execute_command", {"command": "a", "timeout": 0}, "'timeout'"),
        ("execute_command", {"command": "a\0b"}, "NUL"),
        ("write_file", {"filepath": "a\0b", "content": ""}, "NUL"),
        ("write_file", {"filepath": "a", "content": "", "mode": 1}, "'mode' is not one of its arguments"),
        ("mark_done", {"message": "x" * (1 << 20)}, "longer than 1 MiB"),
        ("no_such_tool", {}, "execute_command, write_file, read_file, mark_done"),
    ],
)
def test_a_call_that_cannot_be_carried_out_says_why(name, arguments, told):
    action = parse(name, arguments)
    assert isinstance(action, InvalidAction)
    assert told in action.problem


def test_a_lone_surrogate_becomes_a_replacement_character():
    assert parse("write_file", '{"filepath": "a", "content": "\\ud800x"}') == WriteAction(path="a", content="�x")


def test_the_schemas_name_every_argument_and_which_are_required():
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tool_schemas()}
    assert {name: schema["required"] for name, schema in schemas.items()} == {
        "execute_command": ["command"],
        "write_file": ["filepath", "content"],
        "read_file": ["filepath"],
        "mark_done": [],
    }
    assert set(schemas["execute_command"]["properties"]) == {"command", "timeout", "working_directory", "background"}

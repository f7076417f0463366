"""The tools that the model has: their schemas, and what a call of them asks for.

Pure. A call that cannot be carried out becomes an `InvalidAction` that tells the model why; nothing here raises.
"""

import json
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from realwork.text import shorten, valid_unicode
from realwork.types import (
    Action,
    CommandAction,
    DoneAction,
    InvalidAction,
    ReadAction,
    ToolCall,
    WriteAction,
)

MAX_ARGUMENTS_BYTES = 1 << 20
MAX_CALLS_PER_REPLY = 64


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _ExecuteCommand(_Arguments):
    """Run a shell command with /bin/sh in the working directory and return its output and exit code."""

    command: Annotated[str, Field(min_length=1, description="The command line.")]
    timeout: Annotated[
        float | None, Field(gt=0, allow_inf_nan=False, description="Seconds it may take; then it is killed.")
    ] = None
    working_directory: Annotated[
        str | None, Field(description="Where it runs, if not in the task's working directory.")
    ] = None
    background: Annotated[
        bool, Field(description="Return at once and let it run on; the answer says where its output goes.")
    ] = False


class _WriteFile(_Arguments):
    """Write a text file, replacing what was there; missing parent directories are created."""

    filepath: Annotated[str, Field(min_length=1, description="Absolute, or relative to the working directory.")]
    content: Annotated[str, Field(description="The whole content of the file.")]


class _ReadFile(_Arguments):
    """Read a text file."""

    filepath: Annotated[str, Field(min_length=1, description="Absolute, or relative to the working directory.")]


class _MarkDone(_Arguments):
    """Say that the task is finished. The work is then tested; nothing can be changed afterwards."""

    message: Annotated[str, Field(description="A short summary of what was done.")] = ""


_TOOLS: dict[str, type[_Arguments]] = {
    "execute_command": _ExecuteCommand,
    "write_file": _WriteFile,
    "read_file": _ReadFile,
    "mark_done": _MarkDone,
}


@cache
def tool_schemas() -> list[dict[str, Any]]:
    """The tools in the form of the OpenAI chat API's `tools` parameter, not to be changed."""
    return [
        {"type": "function", "function": {"name": name, "description": kind.__doc__, "parameters": _parameters(kind)}}
        for name, kind in _TOOLS.items()
    ]


def _parameters(kind: type[_Arguments]) -> dict[str, Any]:
    schema = kind.model_json_schema()
    properties = {name: _plain(field) for name, field in schema["properties"].items()}
    return {
        "type": "object",
        "properties": properties,
        "required": schema.get("required", []),
        "additionalProperties": False,
    }


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    """The parts of a field's schema that every endpoint understands."""
    options = [option for option in field.get("anyOf", [field]) if option.get("type") != "null"]
    return {"type": options[0]["type"], "description": field["description"]}


def parse_call(call: ToolCall) -> Action:
    """What `call` asks for."""
    kind = _TOOLS.get(call.function.name)
    if kind is None:
        name = shorten(call.function.name, 100)
        return InvalidAction(problem=f"There is no tool '{name}'. The tools are: {', '.join(_TOOLS)}.")
    arguments = _decode(call.function.arguments)
    if isinstance(arguments, InvalidAction):
        return arguments
    try:
        return _action(kind.model_validate(arguments))
    except ValidationError as error:
        return InvalidAction(problem=_explain(call.function.name, error))


def _decode(text: str) -> dict[str, Any] | InvalidAction:
    if len(text) > MAX_ARGUMENTS_BYTES or len(text.encode("utf-8", errors="replace")) > MAX_ARGUMENTS_BYTES:
        return InvalidAction(
            problem=f"The arguments are longer than {MAX_ARGUMENTS_BYTES >> 20} MiB; send less at once."
        )
    try:
        arguments = json.loads(text or "null")
    except (ValueError, RecursionError) as error:
        return InvalidAction(problem=f"The arguments are not valid JSON ({error}). Send one JSON object.")
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        return InvalidAction(problem=f"The arguments must be one JSON object, not {type(arguments).__name__}.")
    return {name: valid_unicode(value) if isinstance(value, str) else value for name, value in arguments.items()}


def _action(arguments: _Arguments) -> Action:
    match arguments:
        case _ExecuteCommand():
            if "\0" in arguments.command + (arguments.working_directory or ""):
                return InvalidAction(problem="A command must not contain a NUL character.")
            return CommandAction(
                command=arguments.command,
                timeout_s=arguments.timeout,
                working_directory=arguments.working_directory,
                background=arguments.background,
            )
        case _WriteFile(filepath=path) | _ReadFile(filepath=path) if "\0" in path:
            return InvalidAction(problem="A path must not contain a NUL character.")
        case _WriteFile():
            return WriteAction(path=arguments.filepath, content=arguments.content)
        case _ReadFile():
            return ReadAction(path=arguments.filepath)
        case _MarkDone():
            return DoneAction(message=arguments.message)
    raise AssertionError(f"no action for {type(arguments).__name__}")


def _explain(tool: str, error: ValidationError) -> str:
    problems = []
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        field = ".".join(str(part) for part in detail["loc"][:1])
        match detail["type"]:
            case "missing":
                problems.append(f"'{field}' is missing")
            case "extra_forbidden":
                problems.append(f"'{shorten(field, 100)}' is not one of its arguments")
            case _:
                problems.append(f"'{field}': {detail['msg'][0].lower()}{detail['msg'][1:]}")
    return f"{tool}: {'; '.join(dict.fromkeys(problems))}."

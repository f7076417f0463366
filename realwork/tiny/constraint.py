"""What a tool call may look like, piece by piece: text that must come, choices, and values that the model writes. Pure.

Guarantees: whatever is chosen and written, the pieces together are a call whose arguments fit the tool's schema.
"""

import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Literal

from realwork.tiny.chatml import CALL, CALL_END
from realwork.types import Record


class Exactly(Record):
    """Text that must come."""

    kind: Literal["exactly"] = "exactly"
    text: str


class OneOf(Record):
    """One of several texts, none of which begins with another."""

    kind: Literal["one of"] = "one of"
    texts: tuple[str, ...]


class FreeText(Record):
    """The inside of a JSON string: printable ASCII without quotes and backslashes, ended by a quote."""

    kind: Literal["free text"] = "free text"
    max_tokens: int = 48


Piece = Exactly | OneOf | FreeText


def tool_call(tools: Sequence[Mapping[str, Any]]) -> Generator[Piece, str | None, None]:
    """The pieces of a call of one of `tools`; send in what was written for each `OneOf`.

    Use it as a generator: `send(text)` after a `OneOf`, `send(None)` after the others.
    """
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    yield Exactly(text=f'{CALL}{{"name": "')
    name = yield OneOf(texts=tuple(f'{each}"' for each in schemas))
    yield Exactly(text=', "arguments": {')
    separator = ""
    schema = schemas[str(name).removesuffix('"')]
    for field in schema.get("required", ()):
        yield Exactly(text=f"{separator}{json.dumps(field)}: ")
        yield from _value(schema["properties"][field])
        separator = ", "
    yield Exactly(text="}}" + CALL_END)


def _value(schema: Mapping[str, Any]) -> Generator[Piece, str | None, None]:
    match schema.get("type"):
        case "boolean":
            yield OneOf(texts=("true", "false"))
        case "integer" | "number":
            yield OneOf(texts=tuple(str(number) for number in range(10)))
        case "array":
            yield Exactly(text="[]")
        case "object":
            yield Exactly(text="{}")
        case _ if options := schema.get("enum"):
            yield OneOf(texts=tuple(json.dumps(option) for option in options))
        case _:
            yield Exactly(text='"')
            yield FreeText()

"""The built-in model: plays the replies of a file, one after the other, the same for every sample of a group."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from realwork.errors import InputError
from realwork.types import FunctionCall, Message, Record, Reply, ToolCall, Usage


class ScriptedCall(Record):
    """One tool call; `arguments` given as text is sent as it stands, also when it is no JSON."""

    name: str
    arguments: dict[str, Any] | str = {}


class ScriptedReply(Record):
    """One reply of the script."""

    content: str | None = None
    tool_calls: tuple[ScriptedCall, ...] = ()


Replies = tuple[ScriptedReply, ...]
Script = Replies | dict[str, Replies]

_DONE = ScriptedReply(tool_calls=(ScriptedCall(name="mark_done"),))


def load_script(path: Path) -> Script:
    """The script at `path`: one list of replies for every environment, or one list per environment id.

    Raises:
        InputError: the file cannot be read, is not JSON, or does not have that shape.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: the script of the scripted model cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: the script of the scripted model is not valid JSON ({error})") from error
    kind: TypeAdapter[Any] = TypeAdapter(dict[str, Replies] if isinstance(document, dict) else Replies)
    try:
        return kind.validate_python(document)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise InputError(
            f"{path}: not a script", problems=[_place(path, detail) for detail in error.errors()]
        ) from error


def _place(path: Path, detail: Any) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
    return f"{path}: {place.lstrip('.') or 'the script'}: {detail['msg'].lower()}"


class ScriptedModel:
    """Plays `script` to one rollout of `environment_id`, then answers with `mark_done` for ever.

    The first `played` replies were given before, to an attempt that this one goes on from.
    """

    def __init__(self, name: str, script: Script, environment_id: str, *, played: int = 0) -> None:
        self.name = name
        self.host = ""
        self.sampling_params: dict[str, Any] = {}
        self._replies = script.get(environment_id, ()) if isinstance(script, dict) else script
        self._played = played

    async def complete(self, messages: Sequence[Message], *, deadline_s: float) -> Reply:
        """The next reply of the script; it always comes at once."""
        index, self._played = self._played, self._played + 1
        reply = self._replies[index] if index < len(self._replies) else _DONE
        calls = tuple(_tool_call(call, f"call_{index}_{number}") for number, call in enumerate(reply.tool_calls))
        return Reply(
            message=Message(role="assistant", content=reply.content, tool_calls=calls),
            finish_reason="tool_calls" if calls else "stop",
            model=self.name,
            usage=Usage(),
        )


def _tool_call(call: ScriptedCall, call_id: str) -> ToolCall:
    arguments = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments, ensure_ascii=False)
    return ToolCall(id=call_id, function=FunctionCall(name=call.name, arguments=arguments))

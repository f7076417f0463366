"""What an endpoint answered, as a reply. Pure.

Guarantees: a reply is whole and well-formed or it is an error; what the model wrote is kept as it is; what the endpoint
did not say about usage and cost stays null.
"""

import json
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from realwork.config import LlmConfig, Price
from realwork.errors import ModelError, ReplyWithheld
from realwork.model.failures import failure
from realwork.model.tokens import read_tokens
from realwork.text import valid_unicode
from realwork.types import FunctionCall, Message, Reply, ToolCall, Usage

HEAD_CHARACTERS = 500
"""What of a body is shown in an error."""


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore")


def _text(value: object) -> object:
    """Content that came in parts as one text."""
    if not isinstance(value, list):
        return value
    return "".join(str(part.get("text") or "") for part in value if isinstance(part, dict))


class _Function(_Lenient):
    name: Any = None
    arguments: Any = None


class _Call(_Lenient):
    id: Any = None
    function: _Function = _Function()


class _Said(_Lenient):
    content: Annotated[str | None, BeforeValidator(_text)] = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(_Lenient):
    message: _Said = _Said()
    finish_reason: str | None = None


class _Completion(_Lenient):
    choices: list[_Choice]
    model: str | None = None
    usage: Any = None


def read_reply(body: bytes, config: LlmConfig, *, show: Callable[[str], str]) -> Reply:
    """The first choice of a completion's body; one without any is an empty reply.

    Args:
        show: what of a text that the endpoint sent may stand in an error.

    Raises:
        ReplyWithheld: a content filter or a refusal.
        ModelError: the body is no completion, or an error that came under 200.
    """
    text = body.decode(errors="replace")
    nothing = ModelError(f"the endpoint answered 200 with no completion: {show(text)}", status=200)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise nothing from error
    if not isinstance(document, dict):
        raise nothing
    _raise_error(document, text, f"the endpoint answered 200 with an error: {show(text)}")
    try:
        completion = _Completion.model_validate(document)
    except (ValidationError, RecursionError) as error:
        raise nothing from error
    choice = completion.choices[0] if completion.choices else _Choice()
    said = choice.message
    if choice.finish_reason == "content_filter" or said.refusal:
        raise ReplyWithheld(f"the endpoint withheld its reply: {show(said.refusal or 'content_filter')}", status=200)
    message = Message(
        role="assistant",
        content=said.content,
        reasoning_content=said.reasoning_content or said.reasoning,
        tool_calls=tuple(_call(call) for call in said.tool_calls or ()),
    )
    return Reply(
        message=message,
        finish_reason=choice.finish_reason,
        model=completion.model,
        usage=_usage(completion.usage, config.prices.get(config.model)),
        policy_version=_policy_version(document, config),
        tokens=read_tokens(document, document["choices"][0]) if completion.choices else None,
    )


def is_empty(reply: Reply) -> bool:
    """Whether there is nothing in `reply` that one could act on."""
    return not reply.message.tool_calls and not (reply.message.content or "").strip()


def _raise_error(document: dict[str, Any], text: str, message: str) -> None:
    """Raise what came under 200 and is an error all the same, by the status that it names."""
    choices = document.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    error = document.get("error") or first.get("error")
    if not error and first.get("finish_reason") != "error":
        return
    code = error.get("code") if isinstance(error, dict) else None
    raised = failure(code if type(code) is int and 400 <= code < 600 else 200, text, message)
    if type(raised) is ModelError and not raised.retryable:
        raised.status = 200  # a bad request has a status of its own
    raise raised


def _call(call: _Call) -> ToolCall:
    name, given = call.function.name, call.function.arguments
    arguments = given if isinstance(given, str) else "" if given is None else json.dumps(given)
    return ToolCall(
        id=call.id if isinstance(call.id, str) else "" if call.id is None else json.dumps(call.id),
        function=FunctionCall(name=name if isinstance(name, str) else "", arguments=arguments),
    )


def _policy_version(document: dict[str, Any], config: LlmConfig) -> str | None:
    """What the field of the body that the run file names says, else its label."""
    value: Any = document
    for name in (config.policy_version_field or "").split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return config.policy_version if value is None or isinstance(value, dict | list) else valid_unicode(str(value))


def _usage(usage: Any, price: Price | None) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    details = usage.get("prompt_tokens_details")
    counts = Usage(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=_count(details.get("cached_tokens")) if isinstance(details, dict) else None,
    )
    cost = _cost(usage.get("cost"))
    return counts.model_copy(update={"cost_usd": _priced(counts, price) if cost is None else cost})


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 31 else None


def _cost(value: object) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value < 1e9 else None  # type: ignore[operator,arg-type]


def _priced(counts: Usage, price: Price | None) -> float | None:
    """What the counted tokens cost at `price`, null where either is missing."""
    if price is None or counts.prompt_tokens is None or counts.completion_tokens is None:
        return None
    cached = min(counts.cached_tokens or 0, counts.prompt_tokens)
    at_cache = price.input if price.cached is None else price.cached
    fresh = counts.prompt_tokens - cached
    return (fresh * price.input + cached * at_cache + counts.completion_tokens * price.output) / 1e6

"""Any OpenAI-compatible endpoint, one conversation of one rollout.

Guarantees: a reply is whole and well-formed or it is an error of `realwork.errors`; every wait is ours, is counted and
ends with the deadline (the client itself never retries); what the endpoint did not say about usage stays null.
"""

import asyncio
import json
import logging
import random
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import openai
from pydantic import BaseModel, ConfigDict

from realwork.config import LlmConfig
from realwork.errors import ContextExceeded, ModelError, ModelRefused, ModelTimeout, ReplyWithheld
from realwork.model.context import to_chat
from realwork.text import tail, valid_unicode
from realwork.tools import tool_schemas
from realwork.types import FunctionCall, Message, Reply, ToolCall, Usage

MAX_REQUESTS = 6
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
_OPTIONAL_PARAMETERS = ("seed", "temperature")
_UNKNOWN = re.compile(r"unrecognized|unsupported|unknown|unexpected|not support|not permitted|not allowed|extra")
_CONTEXT_PHRASES = (
    "context_length_exceeded",
    "context length",
    "maximum context",
    "prompt is too long",
    "too many tokens",
)
_LOG = logging.getLogger(__name__)


@asynccontextmanager
async def open_endpoint(config: LlmConfig, api_key: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client of the endpoint for the length of the block."""
    async with openai.AsyncOpenAI(
        api_key=api_key, base_url=config.base_url, timeout=config.timeout, max_retries=0
    ) as client:
        yield client


class OpenAIModel:
    """A `Model` that asks `client` with the parameters of `config`."""

    def __init__(self, client: openai.AsyncOpenAI, config: LlmConfig, *, seed: int) -> None:
        self.name = config.model
        self.host = urlsplit(config.base_url).netloc.rpartition("@")[2]
        self._client = client
        self._timeout_s = config.timeout
        self._parameters: dict[str, Any] = {
            "model": config.model,
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "seed": seed,
            "tools": tool_schemas(),
        }

    @property
    def sampling_params(self) -> dict[str, Any]:
        """See `Model.sampling_params`."""
        return {name: value for name, value in self._parameters.items() if name not in ("model", "tools")}

    async def complete(self, messages: Sequence[Message], *, deadline_s: float) -> Reply:
        """See `Model.complete`."""
        end = time.monotonic() + deadline_s
        chat = to_chat(messages)
        failures: list[ModelError] = []
        while True:
            try:
                reply = await self._request(chat, end)
                if failures or not _is_empty(reply):
                    return reply.model_copy(update={"retries": len(failures)})
                failures.append(ModelError("the reply was empty", status=200))
            except ModelError as error:
                if isinstance(error, ModelTimeout) and failures:
                    raise ModelError(f"{error}; before that: {failures[-1]}") from error
                failures.append(error)
                if not _worth_repeating(failures):
                    raise
            await self._back_off(failures, end)

    async def _back_off(self, failures: Sequence[ModelError], end: float) -> None:
        """Wait before the next request, or raise the last failure when the time does not suffice."""
        last = failures[-1]
        wait_s = last.retry_after_s
        if wait_s is None:
            wait_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (len(failures) - 1)) * random.uniform(0.5, 1.0)
        if time.monotonic() + wait_s >= end:
            raise ModelError(f"{last} (and the episode's time is over)", status=last.status) from last
        _LOG.info("asking again in %.1f s: %s", wait_s, last)
        await asyncio.sleep(wait_s)

    async def _request(self, chat: list[dict[str, Any]], end: float) -> Reply:
        """One accepted or failed request, repeated only without a parameter that the endpoint does not know."""
        while True:
            try:
                return await self._request_once(chat, end)
            except openai.APIStatusError as error:
                if not self._drop_refused_parameter(error):
                    raise self._status_error(error) from error
            except openai.APITimeoutError as error:
                raise ModelError(f"no answer from {self.host} within {self._timeout_s:g} s") from error
            except openai.APIConnectionError as error:
                raise ModelError(self._hide_key(f"no connection to {self.host}: {error.__cause__ or error}")) from error
            except (openai.OpenAIError, UnicodeError) as error:
                raise ModelError(self._hide_key(f"{self.host}: {error}")) from error

    async def _request_once(self, chat: list[dict[str, Any]], end: float) -> Reply:
        left_s = end - time.monotonic()
        try:
            async with asyncio.timeout(min(left_s, self._timeout_s)):
                response = await self._client.chat.completions.with_raw_response.create(
                    messages=chat,  # type: ignore[arg-type]
                    **self._parameters,
                )
        except TimeoutError as error:
            if left_s <= self._timeout_s:
                raise ModelTimeout(f"no answer from {self.host} before the episode's time was over") from error
            raise ModelError(f"no answer from {self.host} within {self._timeout_s:g} s") from error
        return self._read_reply(response.content)

    def _drop_refused_parameter(self, error: openai.APIStatusError) -> bool:
        """Whether the endpoint refused an optional parameter, which is then not sent again."""
        if error.status_code not in (400, 422):
            return False
        said = _said(error).lower()
        if "max_completion_tokens" in said and "max_tokens" in self._parameters:
            self._parameters["max_completion_tokens"] = self._parameters.pop("max_tokens")
            return True
        for name in _OPTIONAL_PARAMETERS:
            if name in self._parameters and (error.param == name or _UNKNOWN.search(said.partition(name)[0][-80:])):
                del self._parameters[name]
                _LOG.warning("%s does not accept '%s'; it is not sent any more", self.host, name)
                return True
        return False

    def _hide_key(self, text: str) -> str:
        """`text`, in which an endpoint may have echoed the key, without it."""
        return text.replace(self._client.api_key, "***") if self._client.api_key else text

    def _status_error(self, error: openai.APIStatusError) -> ModelError:
        status, said = error.status_code, _said(error)
        message = self._hide_key(f"the endpoint answered {status}: {said or error.message}")
        if status == 413 or (status == 400 and any(phrase in said.lower() for phrase in _CONTEXT_PHRASES)):
            return ContextExceeded(message, status=status)
        if status in (401, 403, 404) or (status == 429 and "insufficient_quota" in said):
            return ModelRefused(message, status=status)
        return ModelError(message, status=status, retry_after_s=_retry_after_s(error))

    def _read_reply(self, body: bytes) -> Reply:
        try:
            return _read_reply(body)
        except ValueError as error:
            said = self._hide_key(body[:200].decode(errors="replace"))
            raise ModelError(f"the endpoint answered 200 with no completion: {said}", status=200) from error


def _worth_repeating(failures: Sequence[ModelError]) -> bool:
    last = failures[-1]
    if isinstance(last, ModelTimeout):
        return False
    if isinstance(last, ModelRefused):
        return len(failures) < 2
    return last.retryable and len(failures) < MAX_REQUESTS


def _is_empty(reply: Reply) -> bool:
    return not reply.message.tool_calls and not (reply.message.content or "").strip()


def _said(error: openai.APIStatusError) -> str:
    return tail(error.response.text, 500)


def _retry_after_s(error: openai.APIStatusError) -> float | None:
    """Seconds of the `retry-after-ms` or `retry-after` header (seconds or a date), null without a usable one."""
    headers = error.response.headers
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        return max(0.0, float(headers["retry-after"]))
    except KeyError:
        return None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError):
        return None


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Function(_Lenient):
    name: str | None = None
    arguments: Any = None


class _Call(_Lenient):
    id: str | None = None
    function: _Function = _Function()


class _Said(_Lenient):
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(_Lenient):
    message: _Said
    finish_reason: str | None = None


class _Completion(_Lenient):
    choices: list[_Choice]
    model: str | None = None
    usage: Any = None


def _read_reply(body: bytes) -> Reply:
    """The first choice of a completion's body.

    Raises:
        ReplyWithheld: a content filter or a refusal.
        ModelError: status 200, for a completion without a choice.
        ValueError: the body is no completion.
    """
    try:
        completion = _Completion.model_validate(json.loads(body))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not completion.choices:
        raise ModelError("the endpoint answered 200 without a choice", status=200)
    choice = completion.choices[0]
    said = choice.message
    if choice.finish_reason == "content_filter" or said.refusal:
        raise ReplyWithheld(f"the endpoint withheld its reply: {said.refusal or 'content_filter'}", status=200)
    message = Message(
        role="assistant",
        content=said.content,
        reasoning_content=said.reasoning_content or said.reasoning,
        tool_calls=tuple(_call(call) for call in said.tool_calls or ()),
    )
    usage = _usage(completion.usage)
    return Reply(message=message, finish_reason=choice.finish_reason, model=completion.model, usage=usage)


def _call(call: _Call) -> ToolCall:
    arguments = call.function.arguments
    text = arguments if isinstance(arguments, str) else "" if arguments is None else json.dumps(arguments)
    return ToolCall(
        id=valid_unicode(call.id or ""), function=FunctionCall(name=call.function.name or "", arguments=text)
    )


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    details = usage.get("prompt_tokens_details")
    return Usage(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=_count(details.get("cached_tokens")) if isinstance(details, dict) else None,
        cost_usd=_cost(usage.get("cost")),
    )


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 31 else None


def _cost(value: object) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value < 1e9 else None  # type: ignore[operator,arg-type]

"""The endpoint of a run as one process sees it: its replicas, and what each was found not to accept.

Guarantees: a request ends in its time, with a body of bounded size; what comes back is a whole reply or an error of
`realwork.errors` that shows no key. Nothing of a conversation is kept here.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from realwork.config import LlmConfig
from realwork.errors import ModelError, ModelRefused
from realwork.model.failures import OPTIONAL, failure, is_refused, retry_after_s
from realwork.model.replies import HEAD_CHARACTERS, is_empty, read_reply
from realwork.model.tokens import REQUEST, tells_none
from realwork.secret import Secret, read_headers
from realwork.text import shorten
from realwork.types import Reply

MAX_BODY_BYTES = 64 << 20
MAX_COMPRESSED_BYTES = 1 << 20
"""Of a body that was compressed though that was not asked for."""
SHORTEST_SECRET = 6
PATIENCE = 3
"""Replies without token ids, after which they are not asked for."""
_LOG = logging.getLogger(__name__)


class Endpoint:
    """The replicas of a run's endpoint, at least one."""

    def __init__(self, replicas: Sequence["Replica"]) -> None:
        self.replicas = tuple(replicas)


@contextlib.asynccontextmanager
async def open_endpoint(config: LlmConfig, key: Secret) -> AsyncIterator[Endpoint]:
    """The endpoint that `config` names, for the length of the block; references in its headers are replaced here.

    Raises:
        ModelRefused: a variable of the headers is not set.
    """
    config = config.model_copy(update={"headers": read_headers(config.headers, os.environ)})
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(_client(config, key, each)) for each in config.replicas]
        yield Endpoint([Replica(client, config) for client in clients])


def _client(config: LlmConfig, key: Secret, base_url: str) -> openai.AsyncOpenAI:
    client = openai.AsyncOpenAI(
        api_key=key.get_secret_value(),
        base_url=base_url,
        timeout=config.timeout,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [_bound]}, follow_redirects=False),
    )
    # Not what variables of other tools say, which the client reads and adds to what it is given.
    client.organization, client.project = config.organization, None
    client._custom_headers = {"accept-encoding": "identity"} | config.headers
    return client


async def _bound(response: httpx2.Response) -> None:
    is_plain = response.headers.get("content-encoding", "identity") == "identity"
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Bounded(response.stream, MAX_BODY_BYTES if is_plain else MAX_COMPRESSED_BYTES)


class _Bounded(httpx2.AsyncByteStream):
    """A body that fails when it gets too long."""

    def __init__(self, stream: httpx2.AsyncByteStream, limit_bytes: int) -> None:
        self._stream = stream
        self._limit_bytes = limit_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._limit_bytes
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise httpx2.ReadError(f"the answer is longer than {self._limit_bytes >> 20} MiB")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


class Replica:
    """One server of the endpoint."""

    def __init__(self, client: openai.AsyncOpenAI, config: LlmConfig) -> None:
        self.host = urlsplit(str(client.base_url)).netloc.rpartition("@")[2]
        self._client = client
        self._config = config
        self._secrets = _secrets(config, client.api_key)
        self._refused: set[str] = set()
        self._tells_tokens = False
        self._untold = 0
        if config.capture_tokens == "off" or (config.capture_tokens == "auto" and tells_none(self.host)):
            self._refused.update(REQUEST)

    def accepted(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """`parameters` by the names under which they are sent, without those that were refused."""
        sent = {name: value for name, value in parameters.items() if name not in self._refused}
        if "max_tokens" in parameters and "max_tokens" in self._refused:
            sent["max_completion_tokens"] = parameters["max_tokens"]
        return sent

    async def complete(self, chat: list[dict[str, Any]], parameters: dict[str, Any], *, within_s: float) -> Reply:
        """The reply to one request, which is repeated only without a parameter that the endpoint does not know.

        Raises:
            TimeoutError: none came within that time.
            ContextExceeded, ModelRefused, ReplyWithheld, ModelError: as they say.
        """
        async with asyncio.timeout(within_s):
            while True:
                try:
                    return await self._request(chat, self.accepted(parameters | REQUEST))
                except openai.APIStatusError as error:
                    if not self._drops_refused(error):
                        raise self._status_error(error) from error
                except openai.APITimeoutError as error:
                    raise ModelError(f"no answer from {self.host} within {self._config.timeout:g} s") from error
                except openai.APIConnectionError as error:
                    raise self._error(f"no connection to {self.host}: {error.__cause__ or error}") from error
                except (openai.OpenAIError, httpx2.HTTPError, ValueError, LookupError, AssertionError) as error:
                    raise self._error(f"{self.host}: {error}") from error  # the last three: a charset that is none

    async def _request(self, chat: list[dict[str, Any]], parameters: dict[str, Any]) -> Reply:
        response = await self._client.chat.completions.with_raw_response.create(
            messages=(),
            model=self._config.model,
            # What stands here is sent as it is; messages of its own the client would go through again for every reply.
            extra_body={"messages": chat} | parameters | self._config.extra_body,
        )
        reply = read_reply(response.content, self._config, show=self._head)
        version = response.headers.get(self._config.policy_version_header or "")
        if version is not None:
            reply = reply.model_copy(update={"policy_version": version})
        if not is_empty(reply):
            self._note_tokens(is_told=reply.tokens is not None)
        return reply

    def _note_tokens(self, *, is_told: bool) -> None:
        """Ask no more for token ids that are never told.

        Raises:
            ModelError: the run file insists on them.
        """
        self._tells_tokens = self._tells_tokens or is_told
        if is_told:
            return
        if self._config.capture_tokens == "on":
            raise self._no_tokens()
        self._untold += 1
        if not self._tells_tokens and self._untold == PATIENCE:
            self._refused.update(REQUEST)

    def _no_tokens(self) -> ModelError:
        if self._tells_tokens:
            return ModelError(f"{self.host} answered without whole token ids and log-probabilities", status=200)
        return ModelRefused(
            f"{self.host} tells no token ids and log-probabilities, which llm_config.capture_tokens = 'on' asks for; "
            "use a server that tells them (vLLM, SGLang), or 'auto'",
            status=200,
        )

    def _drops_refused(self, error: openai.APIStatusError) -> bool:
        """Whether an optional parameter was refused, which is then never sent again."""
        if error.status_code not in (400, 422):
            return False
        said = _text(error)
        renamed = ["max_tokens"] if "max_completion_tokens" in said else []
        for name in (*renamed, *OPTIONAL):
            if name in self._refused or not is_refused(name, error.param, said):
                continue
            self._refused.update(REQUEST if name in REQUEST else [name])
            if name not in REQUEST or self._config.capture_tokens == "on":
                _LOG.warning("%s does not accept '%s'; it is not sent any more", self.host, name)
            return True
        return False

    def _status_error(self, error: openai.APIStatusError) -> ModelError:
        status, said = error.status_code, _text(error)
        message = f"the endpoint answered {status}: {self._head(said) or self._head(error.message)}"
        return failure(status, said, message, retry_after_s=retry_after_s(error.response.headers))

    def _error(self, message: str) -> ModelError:
        return ModelError(self._head(message))

    def _head(self, text: str) -> str:
        """What of `text`, in which an endpoint may have echoed the key or a header, may stand in an error."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return shorten(text.strip(), HEAD_CHARACTERS)


def _text(error: openai.APIStatusError) -> str:
    return error.response.content.decode(errors="replace")


def _secrets(config: LlmConfig, key: str) -> list[str]:
    """What no error may show, the longest first: the key, the headers and their words."""
    words = [word for value in config.headers.values() for word in value.split()]
    found = {each for each in (key, *config.headers.values(), *words) if len(each) >= SHORTEST_SECRET}
    return sorted(found, key=len, reverse=True)

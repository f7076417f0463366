"""One conversation with an OpenAI-compatible endpoint: retries, waits and replicas.

Guarantees: every wait is ours, is counted and ends with the deadline (the client itself never retries); a conversation
stays on one replica, whose cache knows its prefix, until that one fails it.
"""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from typing import Any

from realwork.config import LlmConfig
from realwork.errors import ModelError, ModelRefused, ModelTimeout
from realwork.model.context import to_chat
from realwork.model.endpoint import Endpoint, Replica, open_endpoint
from realwork.model.gate import Gate, LocalGate
from realwork.model.replies import is_empty
from realwork.tools import tool_schemas
from realwork.types import Message, Reply

__all__ = ["OpenAIModel", "open_endpoint"]
MAX_REQUESTS = 6
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
LONGEST_PAUSE_S = 3600.0
"""An endpoint that wants more will not have the run go on."""
_LOG = logging.getLogger(__name__)


class OpenAIModel:
    """A `Model` that asks `endpoint` with the parameters of `config`, when `gate` lets it."""

    def __init__(self, endpoint: Endpoint, config: LlmConfig, *, seed: int, gate: Gate | None = None) -> None:
        self.name = config.model
        self._endpoint = endpoint
        self._gate = gate or LocalGate()
        self._config = config
        self._at = seed
        self._parameters: dict[str, Any] = {
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "seed": seed,
            "tools": tool_schemas(),
        }

    @property
    def _replica(self) -> Replica:
        return self._endpoint.replicas[self._at % len(self._endpoint.replicas)]

    @property
    def host(self) -> str:
        """See `Model.host`; of the replica that was asked last."""
        return self._replica.host

    @property
    def sampling_params(self) -> dict[str, Any]:
        """See `Model.sampling_params`."""
        sent = self._replica.accepted(self._parameters) | self._config.extra_body
        return {name: value for name, value in sent.items() if name != "tools"}

    async def complete(self, messages: Sequence[Message], *, deadline_s: float) -> Reply:
        """See `Model.complete`."""
        end = time.monotonic() + deadline_s
        chat = to_chat(messages)
        failures: list[ModelError] = []
        began = time.monotonic()
        while True:
            await self._wait_for_leave(failures, end)
            waited_s = time.monotonic() - began
            try:
                reply = await self._request(chat, end)
                if failures or not is_empty(reply):
                    return reply.model_copy(update={"retries": len(failures), "waited_s": waited_s})
                failures.append(ModelError("the reply was empty", status=200))
            except ModelError as error:
                if isinstance(error, ModelTimeout) and failures:
                    raise ModelError(f"{error}; before that: {failures[-1]}") from error
                failures.append(_too_long_a_pause(error) or error)
                if not _worth_repeating(failures):
                    raise failures[-1] from error
            await self._back_off(failures, end, has_moved=self._moves_on(failures[-1]))

    async def _wait_for_leave(self, failures: Sequence[ModelError], end: float) -> None:
        """Wait until a request may be sent: not while the endpoint wants a pause or a budget of the run is used up."""
        try:
            await self._gate.ready(end - time.monotonic())
        except TimeoutError as error:
            last = f"; the last failure: {failures[-1]}" if failures else ""
            raise ModelError(
                f"no request could be sent before the episode's time was over{last}", status=429
            ) from error

    async def _request(self, chat: list[dict[str, Any]], end: float) -> Reply:
        replica, left_s, longest_s = self._replica, end - time.monotonic(), self._config.timeout
        try:
            reply = await replica.complete(chat, self._parameters, within_s=min(left_s, longest_s))
        except TimeoutError as error:
            if left_s <= longest_s:
                raise ModelTimeout(f"no answer from {replica.host} before the episode's time was over") from error
            raise ModelError(f"no answer from {replica.host} within {longest_s:g} s") from error
        self._gate.used(reply.usage)
        return reply

    def _moves_on(self, error: ModelError) -> bool:
        """Leave a replica that does not answer, or not for itself."""
        if error.status not in (None, 500, 502, 503, 504) or len(self._endpoint.replicas) < 2:
            return False
        left, self._at = self._replica, self._at + 1
        _LOG.info("going on with %s instead of %s: %s", self.host, left.host, error)
        return True

    async def _back_off(self, failures: Sequence[ModelError], end: float, *, has_moved: bool) -> None:
        """Wait before the next request, or raise the last failure when the time does not suffice.

        What the endpoint asks for holds for the replica that asked, and our own wait from the second failure on.
        """
        last = failures[-1]
        own_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (len(failures) - 1)) * random.uniform(0.5, 1.0)
        asked_s = None if has_moved else last.retry_after_s
        wait_s = own_s if asked_s is None else asked_s if len(failures) == 1 else max(asked_s, own_s)
        if last.status == 429:
            self._gate.pause(wait_s)
        if time.monotonic() + wait_s >= end:
            raise ModelError(f"{last} (and the episode's time is over)", status=last.status) from last
        _LOG.info("asking again in %.1f s: %s", wait_s, last)
        await asyncio.sleep(wait_s)


def _too_long_a_pause(error: ModelError) -> ModelRefused | None:
    if error.status != 429 or (error.retry_after_s or 0.0) <= LONGEST_PAUSE_S:
        return None
    return ModelRefused(f"{error} (it wants no request for {error.retry_after_s:.0f} s)", status=error.status)


def _worth_repeating(failures: Sequence[ModelError]) -> bool:
    last = failures[-1]
    if isinstance(last, ModelTimeout):
        return False
    if isinstance(last, ModelRefused):
        return sum(isinstance(each, ModelRefused) for each in failures) < 2 and len(failures) < MAX_REQUESTS
    return last.retryable and len(failures) < MAX_REQUESTS

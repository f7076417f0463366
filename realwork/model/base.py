"""The contract of every model: messages in, one reply out."""

from collections.abc import Sequence
from typing import Any, Protocol

from realwork.types import Message, Reply


class Model(Protocol):
    """A policy behind an endpoint, held by one rollout."""

    @property
    def name(self) -> str:
        """The model's name as it stands in the row."""

    @property
    def host(self) -> str:
        """Host and port of the endpoint, without any credentials; empty for a built-in model."""

    @property
    def sampling_params(self) -> dict[str, Any]:
        """The parameters that the completions are asked with now, by the names that the endpoint gives them."""

    async def complete(self, messages: Sequence[Message], *, deadline_s: float) -> Reply:
        """The reply to `messages`, within `deadline_s` seconds, retries and waits included.

        Raises:
            ContextExceeded: the messages do not fit; nothing was retried.
            ModelRefused: no rollout can succeed with this endpoint, key and model.
            ModelError: no usable reply came in time.
        """

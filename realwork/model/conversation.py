"""A conversation with a model: how much of it is shown, what is new in its token ids, and the ids of its calls.

Guarantees: what the model was shown follows from the messages and the window alone; what is left out once is not shown
again.
"""

import re
from collections.abc import Callable, Sequence

from realwork.errors import ContextExceeded
from realwork.faultpoints import pass_through
from realwork.model.base import Model
from realwork.model.context import characters, halved, narrowed, visible
from realwork.model.tokens import step_tokens, whole
from realwork.types import Message, Observation, Reply, Step, StepTokens, TokenIds, ToolCall, Window

_USUAL_ID = re.compile(r"[\w.:|-]{1,128}", re.ASCII)


class Conversation:
    """The conversation of one episode with `model`, after the steps of an earlier one.

    Attributes:
        window: what of the messages was shown for the last reply.
    """

    def __init__(self, model: Model, *, max_messages: int, max_tokens: int | None, steps: Sequence[Step]) -> None:
        self.window = steps[-1].window if steps else Window()
        self._model = model
        self._max_messages = max_messages
        self._max_tokens = max_tokens
        self._tokens_per_character = 0.0
        self._token_ids = _token_ids(steps)

    async def ask(self, messages: Sequence[Message], time_left: Callable[[], float]) -> Reply:
        """The reply to `messages`, of which less is shown, once, if the endpoint finds them too long.

        Raises:
            ContextExceeded: even that was too long.
            ModelError: as `Model.complete` says.
        """
        self.window = narrowed(
            messages,
            self.window,
            max_messages=self._max_messages,
            max_tokens=self._max_tokens,
            tokens_per_character=self._tokens_per_character,
        )
        try:
            return await self._ask(messages, time_left)
        except ContextExceeded:
            narrower = halved(messages, self.window)
            if narrower is None:
                raise
            self.window = narrower
            return await self._ask(messages, time_left)

    async def _ask(self, messages: Sequence[Message], time_left: Callable[[], float]) -> Reply:
        shown = visible(messages, self.window)
        pass_through("llm-wait")
        reply = await self._model.complete(shown, deadline_s=max(0.0, time_left()))
        if reply.usage.prompt_tokens:
            self._tokens_per_character = reply.usage.prompt_tokens / max(1, characters(shown))
        return reply

    def new_tokens(self, tokens: TokenIds | None) -> StepTokens | None:
        """What is new in the ids of the newest reply."""
        told = step_tokens(self._token_ids, tokens) if tokens else None
        self._token_ids = (*tokens.prompt, *tokens.completion) if tokens else ()
        return told


def _token_ids(steps: Sequence[Step]) -> tuple[int, ...]:
    """The ids of the prompt and completion of the last of `steps`, none where they are not known."""
    ids: tuple[int, ...] = ()
    for step in steps:
        ids = whole(ids, step.tokens) if step.tokens else ()
    return ids


def with_given_ids(observations: Sequence[Observation], calls: Sequence[ToolCall]) -> tuple[Observation, ...]:
    """`observations` of `calls`, the ids that are not those of the calls beside the model's own."""
    return tuple(
        one if one.call_id == call.id else one.model_copy(update={"given_call_id": call.id})
        for one, call in zip(observations, calls, strict=True)
    )


def with_unique_ids(message: Message, seen: set[str]) -> Message:
    """`message` with an id of its own for every call; one that is odd or was `seen` before gets a new one."""
    calls = []
    for call in message.tool_calls:
        call_id, number = call.id, len(seen)
        while not _USUAL_ID.fullmatch(call_id) or call_id in seen:
            call_id, number = f"call_{number}", number + 1
        seen.add(call_id)
        calls.append(call.model_copy(update={"id": call_id}))
    return message.model_copy(update={"tool_calls": tuple(calls)})

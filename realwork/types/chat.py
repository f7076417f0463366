"""The conversation with the model: messages, and the replies that it gave."""

from typing import Literal

from realwork.types.records import Record

Role = Literal["system", "user", "assistant", "tool"]


class FunctionCall(Record):
    """What the model wrote: `arguments` is its text, valid JSON or not."""

    name: str
    arguments: str


class ToolCall(Record):
    """One call of a tool, as the model wrote it."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Record):
    """One message of the conversation, in the roles and fields of the OpenAI chat format."""

    role: Role
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


class Usage(Record):
    """What one completion used, as the endpoint said it; null where it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cost_usd: float | None = None


class TokenIds(Record):
    """The token ids of one completion, as the endpoint told them.

    Attributes:
        prompt: of the whole prompt.
        completion: of what the model wrote, as many as `logprobs`.
        logprobs: natural logarithms, rounded to 32 bits.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    logprobs: tuple[float, ...]


class Reply(Record):
    """One accepted completion.

    Attributes:
        message: role assistant; what the model wrote, raw.
        model: the model that the endpoint says has answered.
        policy_version: which weights have answered, null when neither the run file nor the endpoint says.
        retries: requests that failed before this one was accepted.
        waited_s: seconds until that one was sent: failed requests, pauses, the pace of the run.
        tokens: null when they were not asked for, or not told whole.
    """

    message: Message
    finish_reason: str | None = None
    model: str | None = None
    usage: Usage = Usage()
    policy_version: str | None = None
    retries: int = 0
    waited_s: float = 0.0
    tokens: TokenIds | None = None

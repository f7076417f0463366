"""The steps of an episode."""

from datetime import datetime

from realwork.types.actions import Observation
from realwork.types.chat import Usage
from realwork.types.records import Record


class Snapshot(Record):
    """The files of a sandbox at one moment, kept by the engine of one node; processes are no part of it.

    Attributes:
        id: what the sandbox is restored from.
        size_bytes: what it holds beyond the image that the sandbox was made of.
    """

    id: str
    taken_at: datetime
    size_bytes: int


class Window(Record):
    """What of a conversation the model is shown; `realwork.model.context` makes the prompt of it.

    Attributes:
        dropped: messages after the task that are left out, the oldest ones.
        shortened: messages after the task of which the observations are cut short, the oldest ones, those left out
            included.
    """

    dropped: int = 0
    shortened: int = 0


class StepTokens(Record):
    """The token ids of one step, as the endpoint told them.

    Attributes:
        prefix_len: how many ids the prompt shares with the beginning of the prompt and completion before it; 0 where
            the step before has none.
        prompt: the ids of the prompt after these.
        completion: of what the model wrote, as many as `logprobs`.
        logprobs: natural logarithms, rounded to 32 bits.
    """

    prefix_len: int
    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    logprobs: tuple[float, ...]


class Step(Record):
    """One reply with the observations of its calls, in the order of the calls.

    Attributes:
        message_index: where the reply stands in the trajectory's messages.
        env_s: seconds spent on the actions, without what they waited for CPU slots.
        error: why the reply could not be used as it was, or null.
        model: the model that the endpoint says has answered.
        window: what of the conversation before it the model was shown.
        tokens: null where the endpoint did not tell them.
        state_snapshot: taken when the step had ended, null if none was.
    """

    index: int
    message_index: int
    started_at: datetime
    finish_reason: str | None = None
    usage: Usage = Usage()
    llm_s: float = 0.0
    env_s: float = 0.0
    retries: int = 0
    error: str | None = None
    window: Window = Window()
    model: str | None = None
    policy_version: str | None = None
    tokens: StepTokens | None = None
    observations: tuple[Observation, ...] = ()
    state_snapshot: Snapshot | None = None

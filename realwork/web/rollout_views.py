"""The records of which the page of one attempt is made.

Guarantees: texts that agents wrote stand in `Text` fields, cut and made visible.
"""

from typing import Literal

from realwork.types import NamedReward, Record


class Text(Record):
    """A text on the page, and where the whole of it is found."""

    head: str
    tail: str = ""
    omitted: int = 0
    size: int = 0
    at: str
    language: str = ""


class Result(Record):
    """The answer to one tool call."""

    status: str
    exit_code: int | None
    output: Text | None
    error: Text | None
    duration_s: float
    slot_wait_s: float
    output_bytes: int
    is_truncated: bool
    decision: str


class Call(Record):
    """One tool call, and what came back."""

    name: str
    summary: str
    arguments: list[tuple[str, Text]]
    result: Result | None


class TokenCell(Record):
    """One token that the policy wrote; `level` is 0 for a sure one, 4 for one that was most unlikely."""

    token_id: int
    logprob: float
    level: int


class Tokens(Record):
    """The token ids of a step: new ones of the prompt have mask 0, those that the policy wrote have mask 1."""

    prefix: int
    prompt: int
    completion: int
    mean_logprob: float | None
    lowest_logprob: float | None
    cells: list[TokenCell]


class Said(Record):
    """A message that is no reply and no result of a call: the system prompt, the task, what was told in between."""

    role: str
    text: Text


class StepView(Record):
    """One reply of the model with all that belongs to it."""

    index: int
    began_s: float
    llm_s: float
    env_s: float
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    cost_usd: float | None
    retries: int
    error: str | None
    policy_version: str | None
    is_taken_over: bool
    dropped: int
    shortened: int
    snapshot: str | None
    content: Text | None
    reasoning: Text | None
    calls: list[Call]
    followed: list[Said]
    tokens: Tokens | None
    has_problem: bool


class TestView(Record):
    """A test command or one of its cases."""

    number: int
    name: str
    kind: str
    command: Text
    status: str
    duration_s: float
    exit_code: int | None
    output: Text | None
    error: Text | None


class Span(Record):
    """A stretch of the timeline, in thousandths of its width."""

    kind: Literal["image", "boot", "llm", "env", "grade"]
    left: float
    width: float
    label: str
    anchor: str


class PluginView(Record):
    """What one plugin said."""

    name: str
    lines: list[str]
    raw: Text | None


class RolloutView(Record):
    """The page of one attempt.

    Attributes:
        outcome: passed, failed or ungraded.
        untrainable: why it cannot be trained on; empty where it can.
        notes: what else a trainer should know.
    """

    trajectory_id: str
    environment_id: str
    group_id: str
    sample_index: int
    group_size: int
    attempt: int
    outcome: str
    status: str
    terminated_reason: str
    failure_cause: str | None
    error_type: str | None
    error_message: Text | None
    reward: float | None
    rewards: list[NamedReward]
    reward_by: str
    tests_passed: int | None
    tests_total: int
    untrainable: list[str]
    notes: list[str]
    facts: list[tuple[str, str]]
    times: list[tuple[str, float]]
    duration_s: float
    spans: list[Span]
    opening: list[Said]
    steps: list[StepView]
    tests: list[TestView]
    diff: Text | None
    plugins: list[PluginView]
    parent_trajectory_id: str | None
    fork_step: int | None
    segments: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    documents: list[tuple[str, Text]]

"""The loop: ask, act, observe, until something stops it.

Guarantees: every tool call of a reply is answered once, in order, with its own id; a step is recorded whole or not at
all; when the sandbox or the model fails, the steps already taken are still there.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from realwork.activity import Activity
from realwork.environment import Environment, describe, in_short
from realwork.errors import ContextExceeded, ModelError, ModelTimeout
from realwork.model.base import Model
from realwork.model.conversation import Conversation, with_given_ids, with_unique_ids
from realwork.plugins.hooks import Hooks, Verdict
from realwork.tools import MAX_CALLS_PER_REPLY, parse_call
from realwork.types import (
    DoneAction,
    Message,
    Observation,
    Record,
    Reply,
    Snapshot,
    Step,
    TerminatedReason,
    ToolCall,
    Trajectory,
    Usage,
)

PATIENCE = 3
LOST_SHARE = 0.25
"""An episode that has lost more of its time to its endpoint is not graded when its time is over."""
_EMPTY = "Your reply was empty. Use a tool, or call mark_done when the task is finished."
_CUT_OFF = "Your reply was cut off at the token limit. Be shorter, and use a tool."


class EpisodeLimits(Record):
    """What bounds an episode; null means no bound.

    Attributes:
        patience_s: by so much waits for CPU slots may put off its end.
    """

    duration_s: float
    patience_s: float = 0.0
    max_steps: int
    max_tokens: int | None = None
    max_context_messages: int = 50
    max_context_tokens: int | None = None
    max_output_length: int = 2000
    tracks_usage: bool = True


class History(Record):
    """What an episode goes on from: whole steps of an earlier one, and the conversation up to the last of them."""

    messages: tuple[Message, ...]
    steps: tuple[Step, ...]

    @property
    def duration_s(self) -> float:
        """The time that it took, of which nothing is given twice."""
        return sum(step.llm_s + step.env_s for step in self.steps)


def history_of(earlier: Trajectory, steps: int) -> History:
    """The first `steps` steps of `earlier`."""
    rest = earlier.steps[steps:]
    end = rest[0].message_index if rest else len(earlier.messages)
    return History(messages=earlier.messages[:end], steps=earlier.steps[:steps])


async def _nothing() -> None:
    return None


class Episode:
    """One live interaction of `model` with `environment`, recorded as it goes.

    Attributes:
        messages: the conversation so far, as the trajectory will hold it.
        steps: the steps taken so far, those of the history included.
        begun: how many steps are of the history.
    """

    def __init__(
        self,
        model: Model,
        environment: Environment,
        hooks: Hooks,
        limits: EpisodeLimits,
        *,
        system: str,
        prompt: str,
        history: History | None = None,
        activity: Activity | None = None,
        after_step: Callable[[], Awaitable[None]] = _nothing,
        before_actions: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        first = (Message(role="system", content=system), Message(role="user", content=prompt))
        history = history or History(messages=first, steps=())
        self.messages = list(history.messages)
        self.steps = list(history.steps)
        self.begun = len(history.steps)
        self._conversation = Conversation(
            model,
            max_messages=limits.max_context_messages,
            max_tokens=limits.max_context_tokens,
            steps=history.steps,
        )
        self._environment = environment
        self._hooks = hooks
        self._limits = limits
        self._activity = activity or Activity()
        self._after_step = after_step
        self._before_actions = before_actions
        self._used_s = history.duration_s
        self._end = 0.0
        self._patience_s = limits.patience_s
        self._lost_s = 0.0
        self._unusable_replies = 0
        self._tokens = sum(_tokens(step.usage) for step in history.steps)
        self._call_ids = {call.id for message in history.messages for call in message.tool_calls}

    async def play(self) -> TerminatedReason:
        """Play to the end and say why it ended.

        Raises:
            ModelError: the endpoint gave no usable reply.
            SandboxError: the sandbox failed.
            PluginError: a critical plugin failed.
        """
        self._end = time.monotonic() + self._limits.duration_s - self._used_s
        while True:
            if reason := self._limit_reached():
                return reason
            asked_at, asked = datetime.now(UTC), time.monotonic()
            self._activity.begin("asking", step=len(self.steps) + 1)
            try:
                reply = await self._conversation.ask(self.messages, self._time_left)
            except ContextExceeded:
                if not self.steps:  # the task itself is too long for this endpoint
                    raise
                return "context_limit"
            except ModelTimeout:
                if not self.steps:
                    raise
                self._lost_s += max(0.0, time.monotonic() - asked - max(step.llm_s for step in self.steps))
                return self._out_of_time()
            self._lost_s += reply.waited_s
            if reason := await self._take(reply, asked_at, time.monotonic() - asked):
                return reason
            await self._after_step()

    def note_snapshot(self, index: int, snapshot: Snapshot) -> None:
        """Record that `snapshot` was taken after step `index`."""
        self.steps[index] = self.steps[index].model_copy(update={"state_snapshot": snapshot})

    def _limit_reached(self) -> TerminatedReason | None:
        if self._time_left() <= 0:
            return self._out_of_time()
        if len(self.steps) >= self._limits.max_steps:
            return "action_limit"
        if self._limits.max_tokens is not None and self._tokens >= self._limits.max_tokens:
            return "token_limit"
        if self._environment.is_disk_full:
            return "disk_limit"
        return None

    def _out_of_time(self) -> TerminatedReason:
        """The agent has used up its time.

        Raises:
            ModelError: the endpoint has, with failures and pauses, or with a reply that took far longer than others.
        """
        if self._lost_s > LOST_SHARE * self._limits.duration_s:
            lost, whole = f"{self._lost_s:.0f} s", f"{self._limits.duration_s:.0f} s"
            raise ModelError(f"the endpoint kept the agent waiting for {lost} of the episode's {whole}", status=408)
        return "global_timeout"

    def _time_left(self) -> float:
        return self._end - time.monotonic()

    async def _take(self, reply: Reply, asked_at: datetime, llm_s: float) -> TerminatedReason | None:
        """Act on `reply` and record the step; the reason to end, if there is one."""
        self._tokens += _tokens(reply.usage)
        message = with_unique_ids(reply.message, self._call_ids)
        began = time.monotonic()
        observations, notes, done = await self._act(message.tool_calls)
        observations = with_given_ids(observations, reply.message.tool_calls)
        reason: TerminatedReason | None = "completed" if done else None
        problem = None
        answers = [self._answer(each, note) for each, note in zip(observations, notes, strict=True)]
        if not message.tool_calls:
            problem, reason = self._judge(reply)
            if problem and not reason:
                answers = [Message(role="user", content=problem)]
        else:
            self._unusable_replies = 0
        self.steps.append(
            Step(
                index=len(self.steps),
                message_index=len(self.messages),
                started_at=asked_at,
                finish_reason=reply.finish_reason,
                usage=reply.usage if self._limits.tracks_usage else Usage(),
                llm_s=llm_s,
                env_s=time.monotonic() - began - sum(each.slot_wait_s for each in observations),
                retries=reply.retries,
                error=problem,
                window=self._conversation.window,
                model=reply.model,
                policy_version=reply.policy_version,
                tokens=self._conversation.new_tokens(reply.tokens),
                observations=observations,
            )
        )
        self.messages += [message, *answers]
        self._activity.took(self.steps[-1])
        return reason

    def _answer(self, observation: Observation, note: str | None) -> Message:
        return Message(
            role="tool",
            tool_call_id=observation.call_id,
            name=observation.tool_name,
            content=describe(observation, limit=self._limits.max_output_length, note=note),
        )

    def _judge(self, reply: Reply) -> tuple[str | None, TerminatedReason | None]:
        """What is wrong with a reply without tool calls, and whether the episode ends with it."""
        cut_off = reply.finish_reason == "length"
        if not cut_off and (reply.message.content or "").strip():
            return None, "completed_naturally"
        self._unusable_replies += 1
        problem = _CUT_OFF if cut_off else _EMPTY
        if self._unusable_replies < PATIENCE:
            return problem, None
        return problem, "token_limit" if cut_off else "completed_naturally"

    async def _act(self, calls: Sequence[ToolCall]) -> tuple[tuple[Observation, ...], list[str | None], bool]:
        """One observation and, if any, a note for each call, and whether the agent said that it is done."""
        observations: list[Observation] = []
        notes: list[str | None] = []
        done = False
        verdicts = await self._review(calls[:MAX_CALLS_PER_REPLY])
        if verdicts:
            await self._before_actions()
        for position, call in enumerate(calls):
            refusal = self._refusal(position, done, len(verdicts))
            if refusal is not None:
                observations.append(_not_executed(call, refusal))
                notes.append(None)
                continue
            verdict = verdicts[position]
            observations.append(await self._carry_out(call, verdict))
            notes.append(_note(verdict))
            done = isinstance(verdict.action, DoneAction)
        return tuple(observations), notes, done

    async def _review(self, calls: Sequence[ToolCall]) -> list[Verdict]:
        """One verdict for each of `calls`; none when the time was over before the plugins had decided."""
        try:
            async with asyncio.timeout(self._time_left()):
                return await self._hooks.review([parse_call(call) for call in calls])
        except TimeoutError:
            return []

    def _refusal(self, position: int, done: bool, reviewed: int) -> str | None:
        if done:
            return "Not executed: the task was marked as done before."
        if self._time_left() <= 0 or not reviewed:
            return "Not executed: the time for this task is over."
        if self._environment.is_disk_full:
            return "Not executed: more was written to disk than is allowed."
        if position >= MAX_CALLS_PER_REPLY:
            return f"Not executed: at most {MAX_CALLS_PER_REPLY} tool calls in one reply are carried out."
        return None

    async def _carry_out(self, call: ToolCall, verdict: Verdict) -> Observation:
        left_s, patience_s = self._time_left(), self._patience_s
        self._activity.begin("acting", step=len(self.steps) + 1, detail=in_short(verdict.action))
        observation = await self._environment.step(call, verdict.action, time_left_s=left_s, patience_s=patience_s)
        put_off_s = min(observation.slot_wait_s, patience_s)
        self._end += put_off_s
        self._patience_s -= put_off_s
        if verdict.decision.startswith("blocked"):
            return observation.model_copy(update={"decision": verdict.decision, "status": "blocked"})
        observation = observation.model_copy(update={"decision": verdict.decision})
        self._hooks.acted(verdict.action, observation)
        return observation


def _tokens(usage: Usage) -> int:
    return (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)


def _note(verdict: Verdict) -> str | None:
    """What the model is told when plugins have put another action in the place of its own."""
    return f"{verdict.decision}: {in_short(verdict.action)}" if verdict.decision.startswith("rewritten") else None


def _not_executed(call: ToolCall, why: str) -> Observation:
    return Observation(call_id=call.id, tool_name=call.function.name, status="not_executed", error=why)

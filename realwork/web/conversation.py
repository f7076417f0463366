"""What was said, on the page of an attempt: messages, and replies with their calls, results and tokens. Pure."""

import json
from collections.abc import Iterator

from realwork.types import Message, Observation, Step, ToolCall, Trajectory
from realwork.web.places import as_text, text_at
from realwork.web.rollout_views import Call, Result, Said, StepView, Text, TokenCell, Tokens
from realwork.web.text import excerpt
from realwork.web.timeline import since

CELLS = 600
"""Most tokens of a step that are drawn one by one."""


def opening(record: Trajectory) -> Iterator[Said]:
    """The messages before the first reply."""
    first = min((step.message_index for step in record.steps), default=len(record.messages))
    return _said_between(record, 0, first)


def step_view(record: Trajectory, step: Step) -> StepView:
    """One reply with what it led to, and what was said before the next one."""
    there = step.message_index < len(record.messages)
    message = record.messages[step.message_index] if there else Message(role="assistant")
    calls = [*_calls(step, message)]
    return StepView(
        index=step.index,
        began_s=since(record, step.started_at),
        llm_s=step.llm_s,
        env_s=step.env_s,
        finish_reason=step.finish_reason,
        **step.usage.model_dump(),
        retries=step.retries,
        error=step.error,
        policy_version=step.policy_version,
        is_taken_over=step.index < (record.fork_step or 0),
        dropped=step.window.dropped,
        shortened=step.window.shortened,
        snapshot=step.state_snapshot.id if step.state_snapshot else None,
        content=text_at(message.content, f"content.{step.message_index}"),
        reasoning=text_at(message.reasoning_content, f"reasoning.{step.message_index}"),
        calls=calls,
        followed=[*_said_between(record, step.message_index + 1, _next_reply(record, step))],
        tokens=_tokens(step),
        has_problem=step.error is not None or any(call.result and call.result.status != "ok" for call in calls),
    )


def _said_between(record: Trajectory, begin: int, end: int) -> Iterator[Said]:
    for number in range(begin, end):
        message = record.messages[number]
        if message.role != "tool" and (text := text_at(message.content, f"content.{number}")):
            yield Said(role=message.role, text=text)


def _next_reply(record: Trajectory, step: Step) -> int:
    later = (other.message_index for other in record.steps if other.message_index > step.message_index)
    return min(later, default=len(record.messages))


def _calls(step: Step, message: Message) -> Iterator[Call]:
    for number, call in enumerate(message.tool_calls):
        observation = step.observations[number] if number < len(step.observations) else None
        arguments = [*_arguments(step.message_index, number, call)]
        yield Call(
            name=excerpt(call.function.name, 80).head,
            summary=_summary(arguments),
            arguments=arguments,
            result=_result(step.index, number, observation) if observation else None,
        )


def _arguments(message: int, number: int, call: ToolCall) -> Iterator[tuple[str, Text]]:
    """The arguments one by one, or their text as it is where that is no JSON object."""
    raw = call.function.arguments
    try:
        parsed = json.loads(raw)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        if text := text_at(raw, f"arguments.{message}.{number}"):
            yield "arguments", text
        return
    for place, (name, value) in enumerate(parsed.items()):
        language = {"command": "bash", "content": str(parsed.get("filepath", ""))}.get(name, "")
        if text := text_at(as_text(value), f"argument.{message}.{number}.{place}", language):
            yield excerpt(name, 80).head, text


def _summary(arguments: list[tuple[str, Text]]) -> str:
    """The first line of what is most telling."""
    for wanted in ("command", "filepath", "message", "arguments"):
        for name, text in arguments:
            if name == wanted:
                return text.head.strip().partition("\n")[0][:160]
    return ""


def _result(step: int, number: int, observation: Observation) -> Result:
    return Result(
        status=observation.status,
        exit_code=observation.exit_code,
        output=text_at(observation.output, f"output.{step}.{number}"),
        error=text_at(observation.error, f"stderr.{step}.{number}"),
        duration_s=observation.duration_s,
        slot_wait_s=observation.slot_wait_s,
        output_bytes=observation.output_bytes,
        is_truncated=observation.truncated,
        decision=observation.decision,
    )


def _tokens(step: Step) -> Tokens | None:
    tokens = step.tokens
    if tokens is None:
        return None
    chosen = [*zip(tokens.completion, tokens.logprobs, strict=True)][:CELLS]
    return Tokens(
        prefix=tokens.prefix_len,
        prompt=len(tokens.prompt),
        completion=len(tokens.completion),
        mean_logprob=sum(tokens.logprobs) / len(tokens.logprobs) if tokens.logprobs else None,
        lowest_logprob=min(tokens.logprobs, default=None),
        cells=[TokenCell(token_id=token, logprob=logprob, level=_level(logprob)) for token, logprob in chosen],
    )


def _level(logprob: float) -> int:
    return sum(logprob < bound for bound in (-0.1, -0.7, -1.6, -3.0))

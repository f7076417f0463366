"""What the page of one attempt shows, made of its row. Pure.

Guarantees: texts that agents wrote stand in `Text` fields, cut and made visible, with the place under which the whole
text is found.
"""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from realwork.dataset.rows import Row, trajectory
from realwork.dataset.samples import segments
from realwork.types import Message, Observation, Step, TestResult, ToolCall, Trajectory
from realwork.web.rollout_views import (
    Call,
    PluginView,
    Result,
    RolloutView,
    Said,
    Span,
    StepView,
    TestView,
    Text,
    TokenCell,
    Tokens,
)
from realwork.web.text import Excerpt, excerpt
from realwork.web.trainer_notes import notes, reward_by, said_by_plugins, untrainable

CELLS = 600
"""Most tokens of a step that are drawn one by one."""
_QUIET_ANALYZER = "trajectory_analyzer"
"""Its findings are in every row; only what it suggests is news."""


def rollout_view(row: Row) -> RolloutView:
    """The page of the attempt in `row`."""
    record = trajectory(row)
    spec, totals = record.spec, record.totals
    plugins = _plugins(record)
    return RolloutView(
        trajectory_id=spec.trajectory_id,
        environment_id=spec.environment_id,
        group_id=spec.group_id,
        sample_index=spec.sample_index,
        group_size=spec.group_size,
        attempt=spec.attempt,
        outcome=_outcome(record),
        status=record.status,
        terminated_reason=record.terminated_reason,
        failure_cause=record.failure_cause,
        error_type=record.error_type,
        error_message=_text(record.error_message, "error"),
        reward=record.reward,
        rewards=[*record.rewards],
        reward_by=reward_by(record),
        tests_passed=record.tests_passed,
        tests_total=record.tests_total,
        untrainable=[*untrainable(record)],
        notes=[*notes(record)],
        facts=_facts(record),
        times=[(name.removesuffix("_s"), seconds) for name, seconds in record.timing.model_dump().items()],
        duration_s=(record.ended_at - record.started_at).total_seconds(),
        spans=[*_spans(record)],
        opening=[*_opening(record)],
        steps=[_step(record, step, _next_reply(record, step)) for step in record.steps],
        tests=[_test(number, test) for number, test in enumerate(record.test_results)],
        diff=_text(row.get("final_diff"), "diff", "diff"),
        plugins=plugins,
        parent_trajectory_id=record.parent_trajectory_id,
        fork_step=record.fork_step,
        segments=len(segments(record)),
        prompt_tokens=totals.prompt_tokens,
        completion_tokens=totals.completion_tokens,
        cost_usd=totals.cost_usd,
        documents=_documents(record),
    )


def whole_text(row: Row, at: str) -> str | None:
    """The whole text in a place that a `Text` names, null if there is none."""
    name, *rest = at.split(".")
    try:
        return _found(row, name, [int(number) for number in rest])
    except (IndexError, ValueError, TypeError, KeyError):
        return None


def _found(row: Row, name: str, place: list[int]) -> str | None:
    found: Any = None
    match name, place:
        case (("content" | "reasoning"), [message]):
            found = row["messages"][message]["content" if name == "content" else "reasoning_content"]
        case "arguments", [message, call]:
            found = row["messages"][message]["tool_calls"][call]["function"]["arguments"]
        case "argument", [message, call, number]:
            arguments = row["messages"][message]["tool_calls"][call]["function"]["arguments"]
            found = _argument([*json.loads(arguments).values()][number])
        case (("output" | "stderr"), [step, call]):
            found = row["steps"][step]["tool_results"][call][name]
        case (("test_command" | "test_output" | "test_stderr"), [test]):
            found = row["test_results"][test][name]
        case (("environment" | "plugin_data" | "metadata" | "sampling_params" | "tools"), []):
            found = _pretty(row[name])
        case "diff", []:
            found = row["final_diff"]
        case "error", []:
            found = row["error_message"]
    return found if isinstance(found, str) else None


def _text(content: str | None, at: str, language: str = "") -> Text | None:
    return Text(**Excerpt._asdict(excerpt(content)), at=at, language=language) if content else None


def _outcome(record: Trajectory) -> str:
    if not record.graded:
        return "ungraded"
    return "passed" if record.success else "failed"


def _facts(record: Trajectory) -> list[tuple[str, str]]:
    versions = sorted({step.policy_version for step in record.own_steps if step.policy_version})
    facts = {
        "Model": record.model,
        "Policy version": ", ".join(versions),
        "Endpoint": record.base_url_host,
        "Image": record.docker_image,
        "Network": record.network,
        "Node": record.node_id,
        "Seed": str(record.spec.seed),
        "Grading": record.grading_mode or "",
        "Started": f"{record.started_at:%Y-%m-%d %H:%M:%S} UTC",
    }
    return [(name, value) for name, value in facts.items() if value]


def _opening(record: Trajectory) -> Iterator[Said]:
    """The messages before the first reply."""
    first = min((step.message_index for step in record.steps), default=len(record.messages))
    return _said_between(record, 0, first)


def _said_between(record: Trajectory, begin: int, end: int) -> Iterator[Said]:
    for number in range(begin, end):
        message = record.messages[number]
        if message.role != "tool" and (text := _text(message.content, f"content.{number}")):
            yield Said(role=message.role, text=text)


def _next_reply(record: Trajectory, step: Step) -> int:
    later = (other.message_index for other in record.steps if other.message_index > step.message_index)
    return min(later, default=len(record.messages))


def _step(record: Trajectory, step: Step, end: int) -> StepView:
    there = step.message_index < len(record.messages)
    message = record.messages[step.message_index] if there else Message(role="assistant")
    calls = [*_calls(step, message)]
    return StepView(
        index=step.index,
        began_s=_since(record, step.started_at),
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
        content=_text(message.content, f"content.{step.message_index}"),
        reasoning=_text(message.reasoning_content, f"reasoning.{step.message_index}"),
        calls=calls,
        followed=[*_said_between(record, step.message_index + 1, end)],
        tokens=_tokens(step),
        has_problem=step.error is not None or any(call.result and call.result.status != "ok" for call in calls),
    )


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
        if text := _text(raw, f"arguments.{message}.{number}"):
            yield "arguments", text
        return
    for place, (name, value) in enumerate(parsed.items()):
        language = {"command": "bash", "content": str(parsed.get("filepath", ""))}.get(name, "")
        if text := _text(_argument(value), f"argument.{message}.{number}.{place}", language):
            yield excerpt(name, 80).head, text


def _argument(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


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
        output=_text(observation.output, f"output.{step}.{number}"),
        error=_text(observation.error, f"stderr.{step}.{number}"),
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


def _test(number: int, test: TestResult) -> TestView:
    return TestView(
        number=number,
        name=excerpt(test.name, 400).head,
        kind=test.kind,
        command=_text(test.command, f"test_command.{number}", "bash") or Text(head="", at=""),
        status=test.status,
        duration_s=test.duration_s,
        exit_code=test.exit_code,
        output=_text(test.output, f"test_output.{number}"),
        error=_text(test.error, f"test_stderr.{number}"),
    )


def _since(record: Trajectory, moment: datetime) -> float:
    return max(0.0, (moment - record.started_at).total_seconds())


def _spans(record: Trajectory) -> Iterator[Span]:
    """What took the time of the attempt, from its start to its end."""
    whole_s = max((record.ended_at - record.started_at) / timedelta(seconds=1), 1e-6)

    def span(kind: Any, began_s: float, took_s: float, label: str, anchor: str) -> Span:
        left = min(1000.0, 1000 * began_s / whole_s)
        width = max(1.0, min(1000.0 - left, 1000 * took_s / whole_s))
        return Span(kind=kind, left=round(left, 2), width=round(width, 2), label=label, anchor=anchor)

    timing = record.timing
    first_s = _since(record, record.own_steps[0].started_at) if record.own_steps else whole_s
    if timing.boot_s:
        yield span("boot", max(0.0, first_s - timing.boot_s), timing.boot_s, f"boot {timing.boot_s:.1f} s", "outcome")
    for step in record.own_steps:
        began_s = _since(record, step.started_at)
        name, anchor = f"step {step.index}", f"step-{step.index}"
        yield span("llm", began_s, step.llm_s, f"{name}: model {step.llm_s:.1f} s", anchor)
        if step.env_s:
            label = f"{name}: environment {step.env_s:.1f} s"
            yield span("env", began_s + step.llm_s, step.env_s, label, anchor)
    if timing.grade_s:
        label = f"grading {timing.grade_s:.1f} s"
        yield span("grade", max(0.0, whole_s - timing.grade_s), timing.grade_s, label, "tests")


def _plugins(record: Trajectory) -> list[PluginView]:
    views = []
    for name, said in said_by_plugins(record).items():
        lines = [*_findings(name, said)] if isinstance(said, dict) else []
        raw = _text(json.dumps(said, ensure_ascii=False, indent=2), "plugin_data", "json")
        views.append(PluginView(name=excerpt(name, 80).head, lines=lines, raw=raw or Text(head="", at="plugin_data")))
    return views


def _findings(name: str, said: dict[str, Any]) -> Iterator[str]:
    """What is of note in what a plugin said."""
    if "replaced_reward" in said:
        yield f"replaced the reward of the tests, {said['replaced_reward']}"
    changed = said.get("changed")
    for field, value in changed.items() if isinstance(changed, dict) else ():
        yield excerpt(f"changed {field}: {_argument(value)}", 400).head
    if said.get("analysis") and name != _QUIET_ANALYZER:
        yield excerpt(f"found {_argument(said['analysis'])}", 400).head
    suggestions = said.get("suggestions")
    for suggestion in suggestions if isinstance(suggestions, list) else ():
        yield excerpt(f"suggests: {_argument(suggestion)}", 400).head
    if said.get("error"):
        yield excerpt(f"failed: {said['error']}", 400).head


def _documents(record: Trajectory) -> list[tuple[str, Text]]:
    documents = {
        "Environment": ("environment", record.environment),
        "Sampling": ("sampling_params", record.sampling_params),
        "Tools": ("tools", record.tools),
        "Metadata": ("metadata", record.metadata),
    }
    texts = ((name, _text(_pretty(content), at, "json")) for name, (at, content) in documents.items())
    return [(name, text) for name, text in texts if text is not None and text.head not in ("{}", "[]")]


def _pretty(content: str) -> str:
    try:
        return json.dumps(json.loads(content), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return content

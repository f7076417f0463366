"""One trajectory, for people: messages, tool calls and their results, tests, and how it ended."""

import json
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from realwork.analysis.plugins_said import replaced_by
from realwork.analysis.trainable import cautions, obstacles, tests_said
from realwork.cli.console import number, seconds
from realwork.cli.folding import folded, language_of
from realwork.cli.plugin_notes import decisions, plugin_notes
from realwork.text import visible
from realwork.types import Message, Observation, Snapshot, Step, TestResult, ToolCall, Trajectory

INDENT = "   "
_GOOD, _BAD = "green", "red"
_TIMES = {
    "queue": "queue_s",
    "image": "image_s",
    "boot": "boot_s",
    "model": "llm_s",
    "commands": "env_s",
    "CPU slots": "slot_s",
    "grading": "grade_s",
}


class Renderer:
    """Prints trajectories on `console`; folded, unless `full`."""

    def __init__(self, console: Console, *, full: bool = False) -> None:
        self._console = console
        self._full = full

    def trajectory(self, trajectory: Trajectory) -> None:
        """Print all of `trajectory`."""
        self._rule(trajectory.spec.trajectory_id)
        for line in _head(trajectory):
            self._print(Text(visible(line)))
        self._print()
        decided = decisions(trajectory)
        steps = {step.message_index: step for step in trajectory.steps}
        answers = {each.call_id: each for step in trajectory.steps for each in step.observations}
        for index, message in enumerate(trajectory.messages):
            self.message(message, decided, step=steps.get(index), answer=answers.get(message.tool_call_id or ""))
        for step in trajectory.steps:
            if step.state_snapshot is not None:
                self._print(Text(_taken(step.index, step.state_snapshot)))
        self._rule("tests")
        for test in trajectory.test_results:
            self._test(test)
        if trajectory.final_diff:
            self._rule("diff")
            self._fold(trajectory.final_diff, language="diff")
        if notes := plugin_notes(trajectory):
            self._rule("plugins")
            self._print(Text(visible("\n".join(notes))))
        self._rule("outcome")
        for line in _outcome(trajectory):
            self._print(Text(visible(line)))

    def _print(self, *texts: Text) -> None:
        self._console.print(*texts)

    def _rule(self, title: str) -> None:
        self._console.print(Rule(Text(visible(title))))

    def message(
        self,
        message: Message,
        decided: Mapping[str, str],
        *,
        step: Step | None = None,
        answer: Observation | None = None,
    ) -> None:
        """Print a message: who says it, the text, the tool calls; below each of those what plugins `decided` of it.

        `step` is what the message began, if that is known, and `answer` what it tells the model of.
        """
        name = "" if message.name is None else f" {message.name}"
        head = Text(visible(f"{message.role}{name}"), style="bold")
        if step is not None:
            head.append(f"  {_of_step(step)}", style="dim not bold")
        if answer is not None:
            head.append("  ")
            head.append_text(_status(answer))
        self._print(head)
        if answer is not None:
            self._answer(answer)
        else:
            if message.reasoning_content:
                self._fold(message.reasoning_content, style="dim italic")
            if message.content:
                self._fold(message.content)
        for call in message.tool_calls:
            self._call(call, decided.get(call.id))
        self._print()

    def _fold(self, text: str, *, language: str = "", style: str = "", indent: str = "") -> None:
        self._print(folded(text, language=language, style=style, indent=indent, full=self._full))

    def _call(self, call: ToolCall, decided: str | None) -> None:
        self._print(Text(visible(f"-> {call.function.name}"), style="bold cyan"))
        if decided is not None:
            self._print(Text(visible(f"{INDENT}{decided}"), style="yellow"))
        for text, language in _arguments(call):
            self._fold(text, language=language, indent=INDENT)

    def _answer(self, answer: Observation) -> None:
        if answer.output:
            self._fold(answer.output, indent=INDENT)
        if answer.error:
            self._fold(answer.error, style="red", indent=INDENT)
        if answer.truncated:
            note = f"{INDENT}[kept of {answer.output_bytes} bytes in all]"
            self._print(Text(note, style="dim"))

    def _test(self, test: TestResult) -> None:
        """A command with what it said; the names of its cases that have not passed: why stands in that output."""
        style = _GOOD if test.status == "passed" else _BAD
        if test.kind == "case":
            if test.status != "passed" or self._full:
                line = f"  {test.status:8} {seconds(test.duration_s):>8}  {test.name}"
                self._print(Text(visible(line), style=style))
            return
        line = f"{test.status:8} exit {test.exit_code}  {seconds(test.duration_s):>8}  "
        command = folded(test.command, language="bash", full=self._full)
        self._print(Text.assemble((line, style), command))
        if said := "\n".join(part.strip("\n") for part in (test.output, test.error) if part.strip()):
            self._fold(said, style="dim", indent=INDENT)


def _head(trajectory: Trajectory) -> Iterator[str]:
    spec, totals = trajectory.spec, trajectory.totals
    attempt = f", attempt {spec.attempt}" if spec.attempt else ""
    yield f"environment {spec.environment_id}, sample {spec.sample_index}{attempt}, group {spec.group_id}"
    cost = f", {totals.cost_usd:.4f} USD" if totals.cost_usd is not None else ""
    host = f" at {trajectory.base_url_host}" if trajectory.base_url_host else ""
    tokens = f"{totals.prompt_tokens} prompt and {totals.completion_tokens} completion tokens"
    yield f"model {trajectory.model}{host}, {tokens}{cost}"
    node = f" on {trajectory.node_id}" if trajectory.node_id else ""
    lasted = seconds((trajectory.ended_at - trajectory.started_at).total_seconds())
    yield f"began {trajectory.started_at:%Y-%m-%d %H:%M:%S} UTC{node}, image {trajectory.docker_image}, took {lasted}"
    spent = {name: getattr(trajectory.timing, field) for name, field in _TIMES.items()}
    if any(spent.values()):
        yield "time: " + ", ".join(f"{name} {seconds(value)}" for name, value in spent.items() if value)
    if trajectory.fork_step is not None:
        yield f"goes on after {trajectory.fork_step} steps of {trajectory.parent_trajectory_id}"
    reward = "no reward" if trajectory.reward is None else f"reward {trajectory.reward:.2f}"
    yield f"{_ending(trajectory)}, {reward}, {totals.n_steps} steps"


def _of_step(step: Step) -> str:
    usage = step.usage
    said = [f"step {step.index}", f"model {seconds(step.llm_s)}"]
    said += [f"commands {seconds(step.env_s)}"] if step.observations else []
    if usage.prompt_tokens is not None or usage.completion_tokens is not None:
        said.append(f"{usage.prompt_tokens or 0}+{usage.completion_tokens or 0} tokens")
    said += [f"{step.retries} retries"] if step.retries else []
    said += [f"{step.window.dropped} messages not shown to it"] if step.window.dropped else []
    said += [f"{len(step.tokens.completion)} token ids"] if step.tokens is not None else []
    return ", ".join(said)


def _status(answer: Observation) -> Text:
    style = _GOOD if answer.status == "ok" else _BAD
    exit_code = f", exit {answer.exit_code}" if answer.exit_code is not None else ""
    waited = f", waited {seconds(answer.slot_wait_s)} for a CPU slot" if answer.slot_wait_s >= 0.1 else ""
    return Text(f"{answer.status}{exit_code}, {answer.duration_s:.2f} s{waited}", style=f"{style} not bold")


def _arguments(call: ToolCall) -> Iterator[tuple[str, str]]:
    """What a call says, each text with its language: commands and contents as they are, the rest as JSON."""
    try:
        given = json.loads(call.function.arguments)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        if call.function.arguments:
            yield call.function.arguments, ""
        return
    rest = dict(given)
    command, content, path = (rest.get(name) for name in ("command", "content", "filepath"))
    if isinstance(command, str):
        del rest["command"]
        yield command, "bash"
    if isinstance(content, str) and isinstance(path, str):
        del rest["content"], rest["filepath"]
        yield path, ""
        yield content, language_of(path, content)
    if rest:
        yield json.dumps(rest, ensure_ascii=False), "json"


def _taken(index: int, snapshot: Snapshot) -> str:
    return f"snapshot after step {index}: {snapshot.id}, {snapshot.size_bytes} bytes, {snapshot.taken_at:%H:%M:%S} UTC"


def _outcome(trajectory: Trajectory) -> Iterator[str]:
    """How it ended, how the reward came about, and what keeps a trainer from it."""
    if trajectory.reward is None:
        why = f"{trajectory.failure_cause}: {trajectory.error_message}"
        yield f"{_ending(trajectory)}, no reward. {why}"
    else:
        yield f"{_ending(trajectory)}, {_reward(trajectory)}"
    for each in (*obstacles(trajectory), *cautions(trajectory)):
        yield f"for a trainer: {each}"


def _ending(trajectory: Trajectory) -> str:
    status, reason = trajectory.status, trajectory.terminated_reason
    return status if status == reason else f"{status} ({reason})"


def _reward(trajectory: Trajectory) -> str:
    reward = number(trajectory.reward)
    if (by := replaced_by(trajectory)) is not None:
        reward += f" (by {by.name}; the tests' own {number(by.tests_reward)})"
    return f"reward {reward}: {tests_said(trajectory)}"

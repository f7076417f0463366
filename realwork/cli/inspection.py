"""`stats` and `show`: what stands in the dataset."""

from pathlib import Path
from typing import Annotated

import typer
from rich.rule import Rule
from rich.text import Text

from realwork.cli.console import number, results, seconds, table
from realwork.errors import InputError
from realwork.text import shorten
from realwork.types import Message, Snapshot, TestResult, Trajectory

Directory = Annotated[
    Path, typer.Argument(help="A run's directory, or one that holds several runs.", metavar="DIR", show_default=False)
]
SHOWN_CHARACTERS = 4000


def show(
    directory: Directory,
    trajectory_id: Annotated[
        str | None, typer.Argument(help="A trajectory's id, or how it begins.", metavar="[ID]")
    ] = None,
) -> None:
    """List the trajectories of a run, or show one: its messages, tool calls, results and tests."""
    from realwork.trajectories.read import find

    if trajectory_id is None:
        _list(directory)
        return
    found = next(find(directory, trajectory_id), None)
    if found is None:
        raise InputError(f"no trajectory in {directory} has an id that begins with '{trajectory_id}'")
    _render(found)


def _list(directory: Path) -> None:
    from realwork.trajectories.read import trajectories

    rows = table("Trajectory", "Status", "Ended by", "Reward", "Tests", "Steps", "Seconds")
    for each in trajectories(directory):
        tests = f"{each.tests_passed}/{each.tests_total}" if each.graded else "-"
        rows.add_row(
            Text(each.spec.trajectory_id),
            each.status,
            each.terminated_reason,
            number(each.reward),
            tests,
            str(len(each.steps)),
            f"{(each.ended_at - each.started_at).total_seconds():.1f}",
        )
    results.print(rows)


def _render(trajectory: Trajectory) -> None:
    results.print(Rule(Text(trajectory.spec.trajectory_id)))
    if trajectory.fork_step is not None:
        results.print(Text(f"goes on after {trajectory.fork_step} steps of {trajectory.parent_trajectory_id}"))
        results.print()
    for message in trajectory.messages:
        _render_message(message)
    for step in trajectory.steps:
        if step.state_snapshot is not None:
            results.print(Text(_taken(step.index, step.state_snapshot)))
    results.print(Rule("tests"))
    for test in trajectory.test_results:
        _render_test(test)
    results.print(Rule("outcome"))
    results.print(Text(_outcome(trajectory)))


def _render_message(message: Message) -> None:
    results.print(Text(message.role if message.name is None else f"{message.role} {message.name}", style="bold"))
    if message.content:
        results.print(Text(shorten(message.content, SHOWN_CHARACTERS)))
    for call in message.tool_calls:
        results.print(
            Text(f"-> {call.function.name} {shorten(call.function.arguments, SHOWN_CHARACTERS)}", style="cyan")
        )
    results.print()


def _render_test(test: TestResult) -> None:
    """A command in full, then the names of its cases that have not passed: why stands in its output."""
    if test.kind == "command":
        results.print(Text(f"{test.status:8} exit {test.exit_code}  {seconds(test.duration_s):>8}  {test.command}"))
        if test.status != "passed":
            results.print(Text(shorten((test.output + test.error).strip(), SHOWN_CHARACTERS), style="dim"))
    elif test.status != "passed":
        results.print(Text(f"  {test.status:8} {seconds(test.duration_s):>8}  {test.name}"))


def _taken(index: int, snapshot: Snapshot) -> str:
    return f"snapshot after step {index}: {snapshot.id}, {snapshot.size_bytes} bytes, {snapshot.taken_at:%H:%M:%S} UTC"


def _outcome(trajectory: Trajectory) -> str:
    if trajectory.reward is None:
        why = f"{trajectory.failure_cause}: {trajectory.error_message}"
        return f"{trajectory.status} ({trajectory.terminated_reason}), no reward. {why}"
    tests = f"{trajectory.tests_passed} of {trajectory.tests_total} test commands passed"
    return f"{trajectory.status} ({trajectory.terminated_reason}), reward {trajectory.reward:.2f}: {tests}"


def stats(
    directory: Directory,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Success rate, rewards, pass@k, durations, tokens, cost, and failures by cause."""
    from realwork.analysis.stats import stats as compute_stats

    numbers = compute_stats(directory)
    if as_json:
        typer.echo(numbers.model_dump_json(indent=2))
        return
    rows = table("", "Rollouts", "Graded", "Successful", "Rate", "Mean reward", "pass@k", "Steps", "Seconds", "Tokens")
    for name, each in [*numbers.environments.items(), ("all", numbers.total)]:
        rows.add_row(
            Text(name),
            str(each.rollouts),
            str(each.graded),
            str(each.successful),
            number(each.success_rate, ".0%"),
            number(each.mean_reward),
            " ".join(f"{k}:{value:.2f}" for k, value in each.pass_at_k.items()) or "-",
            number(each.mean_steps, ".1f"),
            number(each.mean_duration_s, ".1f"),
            str(each.prompt_tokens + each.completion_tokens),
        )
    results.print(rows)
    _print_counts("Without a grade", numbers.total.failures)
    _print_counts("Failed attempts", numbers.total.attempt_failures)
    _print_counts("Ended by", numbers.total.terminated_reasons)
    spent = numbers.total.timing
    results.print(
        f"Where the time went: queue {seconds(spent.queue_s)}, image {seconds(spent.image_s)}, "
        f"boot {seconds(spent.boot_s)}, model {seconds(spent.llm_s)}, environment {seconds(spent.env_s)}, "
        f"grading {seconds(spent.grade_s)}, store {seconds(spent.store_s)}"
    )


def _print_counts(title: str, counts: dict[str, int]) -> None:
    if counts:
        results.print(f"{title}: " + ", ".join(f"{count} {name}" for name, count in counts.items()), markup=False)

"""`show`: the trajectories of the dataset."""

from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.rule import Rule
from rich.text import Text

from realwork.cli.console import errors, number, results, seconds, table
from realwork.cli.plugin_notes import decisions, plugin_notes, reward_by
from realwork.config import is_url
from realwork.errors import InputError
from realwork.text import shorten
from realwork.types import Message, Snapshot, TestResult, Trajectory


def _here(location: str) -> Path:
    """The directory that is meant; what is in object storage is brought here."""
    if not is_url(location):
        return Path(location)
    from realwork.dataset.fetched import fetched

    return fetched(location, partial(errors.print, markup=False))


Directory = Annotated[
    Path,
    typer.Argument(
        parser=_here,
        help="A run's directory, or one that holds several runs; s3:// or gs:// is fetched first.",
        metavar="DIR",
        show_default=False,
    ),
]
SHOWN_CHARACTERS = 4000
LISTED = 100
MATCHES = 10


def show(
    directory: Directory,
    trajectory_id: Annotated[
        str | None, typer.Argument(help="A trajectory's id, or how it begins.", metavar="[ID]")
    ] = None,
    environment: Annotated[str | None, typer.Option(help="List those of this environment only.", metavar="ID")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="List those without a grade only.")] = False,
    everything: Annotated[bool, typer.Option("--all", help=f"List all, not only the first {LISTED}.")] = False,
) -> None:
    """List the trajectories of a run, or show one: its messages, tool calls, results and tests."""
    from realwork.dataset.read import find

    if trajectory_id is None:
        _list(directory, environment=environment, failed=failed, limit=None if everything else LISTED)
        return
    found = [*islice(find(directory, trajectory_id), 2)]
    if not found:
        raise InputError(f"no trajectory in {directory} has an id that begins with '{trajectory_id}'")
    if len(found) == 1:
        _render(found[0])
        return
    names = [each.spec.trajectory_id for each in islice(find(directory, trajectory_id), MATCHES)]
    raise InputError(f"several trajectories have an id that begins with '{trajectory_id}'", problems=names)


def _list(directory: Path, *, environment: str | None, failed: bool, limit: int | None) -> None:
    from realwork.analysis.attempts import attempts

    rows = table("Trajectory", "Ended by", "Reward", "Tests", "Steps", "Seconds")
    more = 0
    for each, _ in attempts(directory):
        if (environment is not None and each.rollout.environment_id != environment) or (failed and each.graded):
            continue
        if limit is not None and rows.row_count >= limit:
            more += 1
            continue
        rows.add_row(
            Text(each.trajectory_id),
            each.terminated_reason if each.graded else f"{each.terminated_reason} ({each.failure_cause})",
            number(each.reward),
            f"{each.tests_passed}/{each.tests_total}" if each.graded else "-",
            str(each.n_steps),
            f"{each.duration_s:.1f}",
        )
    results.print(rows)
    if more:
        results.print(f"{more} more; --all lists them, --environment ID and --failed choose", markup=False)


def _render(trajectory: Trajectory) -> None:
    results.print(Rule(Text(trajectory.spec.trajectory_id)))
    if trajectory.fork_step is not None:
        results.print(Text(f"goes on after {trajectory.fork_step} steps of {trajectory.parent_trajectory_id}"))
        results.print()
    decided = decisions(trajectory)
    for message in trajectory.messages:
        render_message(message, decided)
    for step in trajectory.steps:
        if step.state_snapshot is not None:
            results.print(Text(_taken(step.index, step.state_snapshot)))
    results.print(Rule("tests"))
    for test in trajectory.test_results:
        _render_test(test)
    if notes := plugin_notes(trajectory):
        results.print(Rule("plugins"))
        results.print(Text("\n".join(notes)))
    results.print(Rule("outcome"))
    results.print(Text(_outcome(trajectory)))


def render_message(message: Message, decided: Mapping[str, str]) -> None:
    """Print a message: who says it, the text, the tool calls; below each of those what plugins `decided` of it."""
    results.print(Text(message.role if message.name is None else f"{message.role} {message.name}", style="bold"))
    if message.content:
        results.print(Text(shorten(message.content, SHOWN_CHARACTERS)))
    for call in message.tool_calls:
        results.print(
            Text(f"-> {call.function.name} {shorten(call.function.arguments, SHOWN_CHARACTERS)}", style="cyan")
        )
        if call.id in decided:
            results.print(Text(f"   {decided[call.id]}", style="yellow"))
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
    outside = trajectory.changed_outside
    lost = f"; {outside} files changed outside the working directory, which no test saw" if outside else ""
    by = reward_by(trajectory)
    reward = f"{trajectory.reward:.2f}" if by is None else f"{trajectory.reward:.2f} ({by})"
    return f"{trajectory.status} ({trajectory.terminated_reason}), reward {reward}: {tests}{lost}"

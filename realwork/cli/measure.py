"""`bench`: how fast realwork is on this machine, as ratios within one run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from realwork.cli import bench_parts
from realwork.cli.console import results
from realwork.errors import InputError

if TYPE_CHECKING:
    from realwork.types import Record

STDOUT = Path("-")

app = typer.Typer(
    help="How fast realwork is on this machine, beside what the engine, Ray and the libraries alone can do in the same "
    "run.\n\nWithout a command: all parts, one after the other, which takes about half an hour.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
Json = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Write the numbers there as JSON; '-': to standard output, without tables."
    ),
]


@app.callback()
def every(context: typer.Context, to: Json = None) -> None:
    if context.invoked_subcommand is not None:
        return
    _check_writable(to)
    measured: dict[str, Any] = {}
    for name, (about, measure) in _parts().items():
        bench_parts.say(f"{name}: {about}")
        found, text = measure()
        measured[name] = found.model_dump(mode="json")
        if to != STDOUT:
            results.print(f"{name}\n{text}\n", markup=False)
            _write(to, json.dumps(measured, indent=2))
    if to == STDOUT:
        _write(to, json.dumps(measured, indent=2))


def _parts() -> dict[str, tuple[str, Callable[[], tuple["Record", str]]]]:
    return {
        "episodes": ("episodes per second, about ten minutes", bench_parts.episodes),
        "start": ("seconds to the first tool call, about five minutes", bench_parts.start),
        "flight": ("many rollouts in flight, about five minutes", bench_parts.flight),
        "scale": ("what grows with a run, about five minutes", bench_parts.scale),
        "sandbox": ("commands and containers, about two minutes", bench_parts.sandbox),
        "model": ("the model client, about a minute", bench_parts.model),
        "store": ("the trajectory store, about two minutes", bench_parts.store),
        "plugins": ("plugins, about two minutes", bench_parts.plugins),
    }


@app.command()
def episodes(
    rounds: Annotated[int, typer.Option(min=1, help="Runs in each mode of grading.")] = 5,
    episodes: Annotated[int, typer.Option(min=1, help="Rollouts of a run.")] = 64,
    commands: Annotated[int, typer.Option(min=1, help="Commands in each.")] = 10,
    parallel: Annotated[int, typer.Option(min=1, help="Rollouts at once.")] = 8,
    to: Json = None,
) -> None:
    """Episodes per second with everything on, beside the containers that the engine alone makes in the same run."""
    _deliver(to, lambda: bench_parts.episodes(rounds, episodes, commands, parallel))


@app.command()
def start(
    rounds: Annotated[int, typer.Option(min=1, help="Launches of each kind.")] = 5,
    to: Json = None,
) -> None:
    """Seconds from `realwork run` to the first tool call, beside what Ray alone takes to start."""
    _deliver(to, lambda: bench_parts.start(rounds))


@app.command()
def flight(
    rollouts: Annotated[int, typer.Option(min=1, help="Rollouts in flight.")] = 100,
    reply_s: Annotated[float, typer.Option(min=0, help="Seconds that the model takes for a reply.")] = 2.0,
    seconds: Annotated[float, typer.Option(min=1, help="For how long they are measured.")] = 60.0,
    to: Json = None,
) -> None:
    """CPU and memory of many rollouts in flight on one node, whose model takes its time."""
    _deliver(to, lambda: bench_parts.flight(rollouts, reply_s, seconds))


@app.command()
def sandbox(
    commands: Annotated[int, typer.Option(min=1, help="Commands of each kind.")] = 200,
    lives: Annotated[int, typer.Option(min=1, help="Containers of each kind to create, start and remove.")] = 20,
    sandboxes: Annotated[int, typer.Option(min=1, help="Sandboxes of one environment with an init command.")] = 32,
    to: Json = None,
) -> None:
    """Commands, containers and files of the sandbox, beside the engine's and the host's own."""
    _deliver(to, lambda: bench_parts.sandbox(commands, lives, sandboxes))


@app.command()
def model(
    requests: Annotated[int, typer.Option(min=1, help="Requests in each round.")] = 200,
    to: Json = None,
) -> None:
    """Requests of the model client, beside the bare client that it is built on."""
    _deliver(to, lambda: bench_parts.model(requests))


@app.command()
def store(
    rows: Annotated[int, typer.Option(min=1, help="Rows of 1 KiB in the long run.")] = 100_000,
    mib: Annotated[int, typer.Option(min=1, help="MiB of trajectories of each size in each round.")] = 64,
    to: Json = None,
) -> None:
    """Commits of the trajectory store, beside bare pyarrow that writes the same table."""
    _deliver(to, lambda: bench_parts.store(rows, mib))


@app.command()
def plugins(
    steps: Annotated[int, typer.Option(min=1, help="Steps with each number of plugins, in each round.")] = 100,
    to: Json = None,
) -> None:
    """What plugins that do nothing add to a step, beside a bare call of a Ray task."""
    _deliver(to, lambda: bench_parts.plugins(steps))


def _check_writable(to: Path | None) -> None:
    """Find out before minutes are spent.

    Raises:
        InputError: there cannot be such a file.
    """
    if to is None or to == STDOUT:
        return
    try:
        with to.open("a"):
            pass
    except OSError as error:
        raise InputError(f"--json {to}: {error.strerror}") from error


def _deliver(to: Path | None, measure: Callable[[], tuple["Record", str]]) -> None:
    _check_writable(to)
    measured, text = measure()
    if to != STDOUT:
        results.print(text, markup=False)
    _write(to, measured.model_dump_json(indent=2))


def _write(to: Path | None, numbers: str) -> None:
    if to == STDOUT:
        typer.echo(numbers)
    elif to is not None:
        to.write_text(numbers + "\n", encoding="utf-8")


@app.command()
def scale(
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each length.")] = 5,
    rollouts: Annotated[
        int, typer.Option(min=8, help="Rollouts of the longest runs; others have a quarter and a 16th of them.")
    ] = 1600,
    in_flight: Annotated[int, typer.Option(min=1, help="Simulated rollouts in flight at once.")] = 10_000,
    nodes: Annotated[int, typer.Option(min=1, help="Simulated nodes.")] = 200,
    to: Json = None,
) -> None:
    """What a rollout costs driver and store, and how long the scheduler takes when very many are in flight."""
    _deliver(to, lambda: bench_parts.scale(rounds, rollouts, in_flight, nodes))

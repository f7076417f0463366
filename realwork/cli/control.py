"""`ctl`: looks at a running run and steers it, from any node of its cluster."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from realwork.cli.console import results, seconds, set_up_logging, shown, table
from realwork.cli.progress import said
from realwork.errors import InputError, RealworkError
from realwork.text import visible

if TYPE_CHECKING:
    from realwork.distributed.control import Asked, RunStatus, Told

LOOK_EVERY_S = 1.0
MAX_NODES = 50
LISTED_DOING = 50
app = typer.Typer(
    help="Look at a running run and steer it, from any node of its cluster.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
RunId = Annotated[
    str | None, typer.Option("--run-id", help="The run; may be left out when only one goes on.", metavar="ID")
]
Address = Annotated[str, typer.Option(help="The Ray cluster; 'auto' is the one on this machine.", envvar="RAY_ADDRESS")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
Target = Annotated[
    str,
    typer.Argument(help="A trajectory's id, or ENVIRONMENT:SAMPLE, or how either begins.", metavar="ID"),
]


@app.command()
def status(run_id: RunId = None, address: Address = "auto", as_json: AsJson = False) -> None:
    """How a run stands: its environments, its nodes, what failed."""
    found = _status(run_id, address)
    if as_json:
        typer.echo(found.model_dump_json(indent=2, exclude={"in_flight"}))
        return
    state = "paused" if found.is_paused else "running"
    results.print(
        f"{found.run_id}: {state} for {seconds(found.elapsed_s)}, {len(found.in_flight)} in flight of at most "
        f"{found.limit}. Trajectories go to {shown(found.directory)}",
        markup=False,
    )
    rows = table("Environment", "Done", "In flight", "Waiting", "Successful", "Failed")
    for each in found.environments:
        counts = (each.in_flight, each.waiting, each.successful, each.failed)
        rows.add_row(Text(each.environment_id), f"{each.done}/{each.planned}", *map(str, counts))
    results.print(rows)
    nodes = table("Node", "In flight", "Room", "State")
    for place in found.nodes[:MAX_NODES]:
        failing = f"{place.failures} failed in a row" if place.failures else "ok"
        state = f"rests for {seconds(place.rests_s)}" if place.rests_s else failing
        nodes.add_row(Text(place.name), str(place.used), str(place.room), state)
    results.print(nodes)
    if len(found.nodes) > MAX_NODES:
        results.print(f"and {len(found.nodes) - MAX_NODES} more nodes", markup=False)
    for cause, count in found.failures.items():
        results.print(f"{count} without a grade: {cause}", markup=False)


@app.command("list")
def list_(run_id: RunId = None, address: Address = "auto", as_json: AsJson = False) -> None:
    """The rollouts in flight, those that take longest first, and what the first of them are doing."""
    found = _status(run_id, address, asked=LISTED_DOING).in_flight
    if as_json:
        typer.echo("[" + ",\n ".join(each.model_dump_json() for each in found) + "]")
        return
    rows = table("Rollout", "Node", "Since", "Step", "Is doing", "For")
    for each in found[:LISTED_DOING]:
        step, for_s = (each.doing.step or "", seconds(each.doing.seconds)) if each.doing else ("", "")
        doing = Text(said(each.doing))
        rows.add_row(Text(visible(each.trajectory_id)), Text(each.node), seconds(each.seconds), str(step), doing, for_s)
    for each in found[LISTED_DOING:]:
        rows.add_row(Text(visible(each.trajectory_id)), Text(each.node), seconds(each.seconds), "", "", "")
    results.print(rows)


@app.command()
def tail(target: Target, run_id: RunId = None, address: Address = "auto") -> None:
    """Show what a rollout in flight says and does, and follow it until it ends. Ctrl-C leaves it running."""
    from realwork.cli.trajectories import Renderer
    from realwork.distributed.control import Asked

    renderer = Renderer(results)
    seen, trajectory_id, why = 0, target, ""
    with _run(run_id, address) as run:
        try:
            while True:
                told = _told(run, Asked(verb="look", target=trajectory_id, number=seen), ends=seen > 0)
                if told.is_over:
                    why = told.message
                    break
                trajectory_id, seen = told.message, seen + len(told.messages)
                for message in told.messages:
                    renderer.message(message, {})
                time.sleep(LOOK_EVERY_S)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    if not seen:
        raise InputError(why)
    results.print(f"{trajectory_id} is no longer in flight; 'realwork show DIR {trajectory_id}' has all", markup=False)


def _told(run: str, asked: "Asked", *, ends: bool) -> "Told":
    """What the run answers; that it is over, if it `ends` with its run."""
    from realwork.distributed.control import Told

    try:
        return _ask(run, asked)
    except RealworkError as error:
        if not ends:
            raise
        return Told(message=str(error), is_over=True)


@app.command()
def cancel(target: Target, run_id: RunId = None, address: Address = "auto") -> None:
    """End a rollout, also one that has not begun: its row says cancelled, it has no reward and no new attempt."""
    _order("cancel", run_id, address, target=target)


@app.command()
def pause(run_id: RunId = None, address: Address = "auto") -> None:
    """Start no further rollout until 'resume'; those in flight go on."""
    _order("pause", run_id, address)


@app.command()
def resume(run_id: RunId = None, address: Address = "auto") -> None:
    """Go on after 'pause'."""
    _order("resume", run_id, address)


@app.command()
def parallel(
    number: Annotated[int, typer.Argument(min=1, help="Rollouts in flight at once.", metavar="N")],
    run_id: RunId = None,
    address: Address = "auto",
) -> None:
    """Let at most N rollouts be in flight from now on; what is in flight beyond that ends by itself."""
    _order("parallel", run_id, address, number=number)


def _ask(run_id: str, asked: "Asked") -> "Told":
    from realwork.distributed.control import ask

    return ask(run_id, asked)


@contextmanager
def _run(run_id: str | None, address: str) -> Iterator[str]:
    """The id of the run that is meant, in the cluster at `address`.

    Raises:
        InputError: there is no cluster, or no such run, or there are several.
    """
    from realwork.distributed.cluster import connected
    from realwork.distributed.control import running

    set_up_logging("WARNING")
    with connected(address):
        found = running()
        if run_id is None and len(found) != 1:
            which = f"several runs go on; name one with --run-id: {', '.join(found)}" if found else "no run goes on"
            raise InputError(f"{which} in the Ray cluster at '{address}'" if not found else which)
        if run_id is not None and run_id not in found:
            others = f"; those that do: {', '.join(found)}" if found else ", and no other run"
            raise InputError(f"no run {run_id} goes on in this cluster{others}")
        yield run_id or found[0]


def _status(run_id: str | None, address: str, *, asked: int = 0) -> "RunStatus":
    from realwork.distributed.control import Asked

    with _run(run_id, address) as run:
        found = _ask(run, Asked(verb="status", number=asked)).status
    assert found is not None, "a status was asked for"
    return found


def _order(verb: str, run_id: str | None, address: str, *, target: str = "", number: int = 0) -> None:
    from realwork.distributed.control import Asked

    with _run(run_id, address) as run:
        told = _ask(run, Asked.model_validate({"verb": verb, "target": target, "number": number}))
    results.print(told.message, markup=False)

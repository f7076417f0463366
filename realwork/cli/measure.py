"""`bench`: how fast realwork is on this machine, as ratios within one run."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from realwork.cli.console import errors, results
from realwork.cli.machine import BASE_IMAGE

if TYPE_CHECKING:
    from realwork.bench.sandbox import SandboxBench, Seconds

app = typer.Typer(
    help="How fast realwork is on this machine, beside what the engine alone can do in the same run.\n\n"
    "Without a command: episodes per second.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def episodes(
    context: typer.Context,
    episodes: Annotated[int, typer.Option(min=1, help="Rollouts to play.")] = 64,
    commands: Annotated[int, typer.Option(min=1, help="Commands in each.")] = 10,
    parallel: Annotated[int, typer.Option(min=1, help="Rollouts at once.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    from realwork.bench.episodes import bench_episodes
    from realwork.cli.progress import Progress

    with Progress(quiet=as_json) as progress:
        measured = bench_episodes(
            BASE_IMAGE, episodes=episodes, commands=commands, parallel=parallel, observer=progress
        )
    if as_json:
        typer.echo(measured.model_dump_json(indent=2))
        return
    results.print(
        f"{measured.episodes} episodes of {measured.commands} commands, {measured.parallel} at a time: "
        f"{measured.seconds:.1f} s, {measured.rows} graded successful\n"
        f"episodes                              {measured.episodes_per_s:6.2f}/s\n"
        f"engine alone (create, start, remove)  {measured.engine_containers_per_s:6.2f}/s\n"
        f"ratio                                 {measured.ratio:6.2f}",
        markup=False,
    )


@app.command()
def sandbox(
    commands: Annotated[int, typer.Option(min=1, help="Commands of each kind.")] = 200,
    lives: Annotated[int, typer.Option(min=1, help="Containers of each kind to create, start and remove.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Commands, containers and files of the sandbox, beside the engine's and the host's own."""
    from realwork.bench.sandbox import bench_sandbox

    measured = asyncio.run(bench_sandbox(BASE_IMAGE, commands=commands, lives=lives, on_progress=_say))
    if as_json:
        typer.echo(measured.model_dump_json(indent=2))
        return
    results.print(_table(measured), markup=False)


def _say(line: str) -> None:
    errors.print(line, markup=False)


def _table(measured: "SandboxBench") -> str:
    from realwork.bench.sandbox import INIT_S, INIT_SANDBOXES

    rates = measured.commands_per_s
    return "\n".join(
        [
            "                                     median       p95",
            _line("command through the channel", measured.channel),
            _line("command as an exec, guarded alike", measured.exec_guarded),
            _line("command as a plain docker exec", measured.exec_raw),
            _line("sh -c on the host", measured.host_shell),
            f"the channel against docker exec   {measured.faster_than_exec:6.1f} times faster",
            "",
            f"commands in 8 containers at once  {rates['channel']:6.0f}/s by channel, {rates['exec']:.0f}/s by exec",
            "",
            _line("create, start, remove: sandbox", measured.life),
            _line("create, start, remove: engine", measured.life_raw),
            f"ratio                             {measured.life_ratio:6.2f}",
            "",
            *(
                f"file of {name:7}  write {each.write_s * 1000:8.1f} ms   read {each.read_s * 1000:8.1f} ms"
                for name, each in measured.files.items()
            ),
            "",
            (
                f"{INIT_SANDBOXES} sandboxes with an init command of {INIT_S} s: "
                f"first {measured.init.first_s:.1f} s, again {measured.init.second_s:.1f} s"
            ),
        ]
    )


def _line(name: str, seconds: "Seconds") -> str:
    return f"{name:33} {seconds.median_s * 1000:7.1f} ms {seconds.p95_s * 1000:7.1f} ms"

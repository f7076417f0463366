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
    from realwork.cli.progress import TextProgress

    with TextProgress(quiet=as_json) as progress:
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
    sandboxes: Annotated[int, typer.Option(min=1, help="Sandboxes of one environment with an init command.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Commands, containers and files of the sandbox, beside the engine's and the host's own."""
    from realwork.bench.sandbox import bench_sandbox

    bench = bench_sandbox(BASE_IMAGE, commands=commands, lives=lives, sandboxes=sandboxes, on_progress=_say)
    measured = asyncio.run(bench)
    if as_json:
        typer.echo(measured.model_dump_json(indent=2))
        return
    results.print(_table(measured), markup=False)


@app.command()
def model(
    requests: Annotated[int, typer.Option(min=1, help="Requests in each round.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Requests of the model client, beside the bare client that it is built on."""
    from realwork.bench.model import LONG_MESSAGES, bench_model

    measured = bench_model(requests=requests)
    if as_json:
        typer.echo(measured.model_dump_json(indent=2))
        return
    results.print(
        "                       requests/s   CPU ms each\n"
        f"realwork's client      {measured.ours.requests_per_s:10.0f}   {measured.ours.cpu_ms:11.2f}\n"
        f"bare openai client     {measured.bare.requests_per_s:10.0f}   {measured.bare.cpu_ms:11.2f}\n"
        f"ratio of CPU           {measured.ratio:10.2f}\n"
        f"a conversation of {LONG_MESSAGES:,} messages takes {measured.long_conversation_mib:.1f} MiB",
        markup=False,
    )


@app.command()
def store(
    rows: Annotated[int, typer.Option(min=1, help="Rows of 1 KiB in the long run.")] = 100_000,
    mib: Annotated[int, typer.Option(min=1, help="MiB of trajectories of each size in each round.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Commits of the trajectory store, beside bare pyarrow that writes the same table."""
    from realwork.bench.store import bench_store

    measured = bench_store(rows=rows, mib=mib)
    if as_json:
        typer.echo(measured.model_dump_json(indent=2))
        return
    lines = ["trajectory   acked/s    MiB/s   in parts/s   bare pyarrow/s   ratio"]
    lines += [
        f"{kib:6} KiB {each.acked_per_s:10.0f} {each.acked_mib_per_s:8.1f} {each.sealed_per_s:12.0f} "
        f"{each.bare_per_s:16.0f} {each.ratio:7.2f}"
        for kib, each in measured.rates.items()
    ]
    memory = ", ".join(f"{mib:.0f} MiB after {count:,} rows" for count, mib in measured.memory_mib.items())
    lines += [f"memory of the store: {memory}", f"a run of {rows:,} rows is taken up in {measured.resume_s:.1f} s"]
    results.print("\n".join(lines), markup=False)


@app.command()
def plugins(
    steps: Annotated[int, typer.Option(min=1, help="Steps with each number of plugins, in each round.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """What plugins that do nothing add to a step, beside a bare call of a Ray task."""
    from realwork.bench.plugins import bench_plugins

    measured = bench_plugins(steps=steps)
    if as_json:
        typer.echo(measured.model_dump_json(indent=2))
        return
    lines = ["plugins   watching   at the end   filtering     (ms a step)"]
    lines += [
        f"{count:7} {measured.watching_ms[count]:10.2f} {measured.settling_ms[count]:12.2f} "
        f"{measured.filtering_ms[count]:11.2f}"
        for count in measured.watching_ms
    ]
    bare = measured.bare_call_ms
    each = measured.filtering_ms[1] / bare
    lines.append(f"a bare call of a Ray task takes {bare:.2f} ms; one filtering plugin {each:.2f} times that")
    results.print("\n".join(lines), markup=False)


def _say(line: str) -> None:
    errors.print(line, markup=False)


def _table(measured: "SandboxBench") -> str:
    from realwork.bench.sandbox import INIT_S

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
                f"{measured.init.sandboxes} sandboxes with an init command of {INIT_S} s: "
                f"first {measured.init.first_s:.1f} s, again {measured.init.second_s:.1f} s"
            ),
        ]
    )


def _line(name: str, seconds: "Seconds") -> str:
    return f"{name:33} {seconds.median_s * 1000:7.1f} ms {seconds.p95_s * 1000:7.1f} ms"


@app.command()
def scale(
    rollouts: Annotated[int, typer.Option(min=8, help="Rollouts on a real Ray of three nodes.")] = 2000,
    in_flight: Annotated[int, typer.Option(min=1, help="Simulated rollouts in flight at once.")] = 10_000,
    nodes: Annotated[int, typer.Option(min=1, help="Simulated nodes.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """What a rollout costs driver and store, and how long the scheduler takes when very many are in flight."""
    from realwork.bench.scale import bench_scale

    measured = bench_scale(rollouts=rollouts, in_flight=in_flight, nodes=nodes)
    if as_json:
        typer.echo(measured.model_dump_json(indent=2))
        return
    played, simulated = measured.played, measured.simulated
    results.print(
        f"{played.rollouts:,} rollouts of a sandbox that runs nothing, on {played.nodes} nodes of a real Ray: "
        f"{played.seconds:.1f} s, {played.graded:,} graded\n"
        "          CPU ms a rollout   most MiB, first half   second half\n"
        f"driver  {played.driver_ms:18.2f} {played.driver_mib[0]:22.0f} {played.driver_mib[1]:13.0f}\n"
        f"store   {played.store_ms:18.2f} {played.store_mib[0]:22.0f} {played.store_mib[1]:13.0f}\n"
        f"{simulated.rollouts:,} simulated rollouts, {simulated.in_flight:,} in flight on {simulated.nodes} nodes: "
        f"{simulated.seconds:.1f} s\n"
        f"a decision of the scheduler takes {simulated.decision_ms:.2f} ms, 99.9% of them less than "
        f"{simulated.most_decision_ms:.2f} ms; driver and simulation {simulated.driver_ms:.2f} CPU ms a rollout",
        markup=False,
    )

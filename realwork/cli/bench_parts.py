"""The parts of `bench`: each measures, and gives its numbers with the table that is printed of them."""

import asyncio
from typing import TYPE_CHECKING

from realwork.cli.console import errors
from realwork.cli.machine import BASE_IMAGE

if TYPE_CHECKING:
    from realwork.bench.sandbox import SandboxBench, Seconds
    from realwork.bench.spread import Spread
    from realwork.types import Record


def episodes(rounds: int = 5, episodes: int = 64, commands: int = 10, parallel: int = 8) -> tuple["Record", str]:
    """Of `realwork.bench.episodes`."""
    from realwork.bench.episodes import bench_episodes

    measured = bench_episodes(BASE_IMAGE, rounds=rounds, episodes=episodes, commands=commands, parallel=parallel)
    modes = measured.modes
    rows = {
        "episodes a second": [_of(each.episodes_per_s, 2) for each in modes.values()],
        "the whole run, start included": [_of(each.whole_per_s, 2) for each in modes.values()],
        "engine alone: containers a second": [_of(each.engine_per_s, 2) for each in modes.values()],
        "ratio to the engine alone": [_of(each.ratio, 2) for each in modes.values()],
        "CPU ms of an episode": ["" for _ in modes],
    }
    for part in next(iter(modes.values())).cpu_ms:
        rows[f"  {part}"] = [_of(each.cpu_ms[part], 0) for each in modes.values()]
    graded = ", ".join(f"{each.successful} {mode}" for mode, each in modes.items())
    return measured, "\n".join(
        [
            f"{rounds} runs of {episodes} episodes of {commands} commands, {parallel} at a time, in each mode",
            _row("median (lowest-highest)", *modes),
            *(_row(name, *values) for name, values in rows.items()),
            f"graded successful, of {rounds * episodes} each: {graded}",
        ]
    )


def start(rounds: int = 5) -> tuple["Record", str]:
    """Of `realwork.bench.start`."""
    from realwork.bench.start import bench_start

    measured = bench_start(BASE_IMAGE, rounds=rounds)
    lines = [_row(f"seconds, {rounds} launches each", "first tool call", "Ray alone")]
    for name, each in (("cold: a local Ray is started", measured.cold), ("warm: a cluster is up", measured.warm)):
        lines.append(_row(name, _of(each.first_call_s, 1), _of(each.ray_alone_s, 1)))
    return measured, "\n".join(lines)


def flight(rollouts: int = 100, reply_s: float = 2.0, seconds: float = 60.0) -> tuple["Record", str]:
    """Of `realwork.bench.flight`."""
    from realwork.bench.flight import bench_flight

    measured = bench_flight(BASE_IMAGE, rollouts=rollouts, reply_s=reply_s, seconds=seconds)
    return measured, "\n".join(
        [
            (
                f"{rollouts} rollouts in flight for {measured.seconds:.0f} s, {reply_s:g} s a reply: "
                f"{measured.commands_per_s:.1f} commands a second, {measured.successful} graded successful"
            ),
            _row("seconds until all of them played", f"{measured.started_s:.0f}"),
            _row("MiB a rollout: its actor", _of(measured.actor_mib, 0)),
            _row("MiB a rollout: all that the machine lacks", _of(measured.rollout_mib, 0)),
            _row(f"% CPU of {measured.cores} cores", _of(measured.cpu_share, 1, by=100)),
            *(_row(f"  {part}", f"{share:.1%}") for part, share in measured.part_share.items()),
        ]
    )


def scale(rounds: int = 5, rollouts: int = 1600, in_flight: int = 10_000, nodes: int = 200) -> tuple["Record", str]:
    """Of `realwork.bench.scale`."""
    from realwork.bench.scale import bench_scale

    measured = bench_scale(rounds=rounds, rollouts=rollouts, in_flight=in_flight, nodes=nodes)
    first, simulated = measured.played[0], measured.simulated
    rows: dict[str, list[str]] = {
        "seconds": [_of(each.seconds, 1) for each in measured.played],
        "CPU ms of a rollout: driver": [_of(each.driver_ms, 2) for each in measured.played],
        "CPU ms of a rollout: store": [_of(each.store_ms, 2) for each in measured.played],
        "CPU ms of a rollout: both": [_of(each.both_ms, 2) for each in measured.played],
        "most MiB of the driver in either half": [_halves(each.driver_mib) for each in measured.played],
        "most MiB of the store in either half": [_halves(each.store_mib) for each in measured.played],
    }
    return measured, "\n".join(
        [
            f"{rounds} runs of rollouts of a sandbox that runs nothing, on {first.nodes} nodes of a real Ray",
            _row("median (lowest-highest)", *(f"{each.rollouts:,} rollouts" for each in measured.played)),
            *(_row(name, *values) for name, values in rows.items()),
            _row("both, of the longest over the shortest", _of(measured.growth, 2)),
            (
                f"{simulated.rollouts:,} simulated rollouts, {simulated.in_flight:,} in flight on {simulated.nodes} "
                f"nodes: {simulated.seconds:.1f} s"
            ),
            (
                f"a decision of the scheduler takes {simulated.decision_ms:.2f} ms, 99.9% of them less than "
                f"{simulated.most_decision_ms:.2f} ms; driver and simulation {simulated.driver_ms:.2f} CPU ms a rollout"
            ),
        ]
    )


def sandbox(commands: int = 200, lives: int = 20, sandboxes: int = 32) -> tuple["Record", str]:
    """Of `realwork.bench.sandbox`."""
    from realwork.bench.sandbox import bench_sandbox

    bench = bench_sandbox(BASE_IMAGE, commands=commands, lives=lives, sandboxes=sandboxes, on_progress=say)
    measured = asyncio.run(bench)
    return measured, _table(measured)


def model(requests: int = 200) -> tuple["Record", str]:
    """Of `realwork.bench.model`."""
    from realwork.bench.model import LONG_MESSAGES, bench_model

    measured = bench_model(requests=requests)
    return measured, "\n".join(
        [
            _row("median (lowest-highest)", "requests/s", "CPU ms each"),
            _row("realwork's client", _of(measured.ours.requests_per_s, 0), _of(measured.ours.cpu_ms, 2)),
            _row("bare openai client", _of(measured.bare.requests_per_s, 0), _of(measured.bare.cpu_ms, 2)),
            _row("ratio of CPU", "", _of(measured.ratio, 2)),
            f"a conversation of {LONG_MESSAGES:,} messages takes {measured.long_conversation_mib:.1f} MiB",
        ]
    )


def store(rows: int = 100_000, mib: int = 64) -> tuple["Record", str]:
    """Of `realwork.bench.store`."""
    from realwork.bench.store import bench_store

    measured = bench_store(rows=rows, mib=mib)
    rates = measured.rates.values()
    lines = [
        _row("median (lowest-highest), of trajectories of", *(f"{kib} KiB" for kib in measured.rates)),
        _row("acknowledged a second", *(_of(each.acked_per_s, 0) for each in rates)),
        _row("  MiB", *(f"{each.acked_mib_per_s:.0f}" for each in rates)),
        _row("in parts a second", *(_of(each.sealed_per_s, 0) for each in rates)),
        _row("bare pyarrow writes a second", *(_of(each.bare_per_s, 0) for each in rates)),
        _row("ratio of acknowledged to that", *(_of(each.ratio, 2) for each in rates)),
    ]
    memory = ", ".join(f"{mib:.0f} MiB after {count:,} rows" for count, mib in measured.memory_mib.items())
    lines += [f"memory of the store: {memory}", f"a run of {rows:,} rows is taken up in {measured.resume_s:.1f} s"]
    return measured, "\n".join(lines)


def plugins(steps: int = 100) -> tuple["Record", str]:
    """Of `realwork.bench.plugins`."""
    from realwork.bench.plugins import bench_plugins

    measured = bench_plugins(steps=steps)
    counts = measured.watching_ms
    bare = measured.bare_call_ms
    each = measured.filtering_ms[1].median / bare.median
    return measured, "\n".join(
        [
            _row("ms a step, median (lowest-highest)", *(f"{count} plugins" for count in counts)),
            _row("watching, on the way", *(_of(measured.watching_ms[count], 2) for count in counts)),
            _row("watching, waited for at the end", *(_of(measured.settling_ms[count], 2) for count in counts)),
            _row("filtering", *(_of(measured.filtering_ms[count], 2) for count in counts)),
            _row("a bare call of a Ray task", _of(bare, 2)),
            f"one filtering plugin takes {each:.2f} times a bare call",
        ]
    )


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
            _line("sandbox with one command", measured.life_command),
            _line("the same, its channel an exec", measured.life_exec),
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


def _row(name: str, *values: str) -> str:
    return f"{name:43}" + "".join(f"{value:>23}" for value in values)


def _of(figure: "Spread", digits: int, *, by: float = 1.0) -> str:
    """Median and spread of a figure, multiplied `by`."""
    median, lowest, highest = (f"{by * value:.{digits}f}" for value in (figure.median, figure.lowest, figure.highest))
    return f"{median} ({lowest}-{highest})"


def _halves(mib: tuple[float, float]) -> str:
    return f"{mib[0]:.0f}, {mib[1]:.0f}"


def say(line: str) -> None:
    """Tell of what goes on."""
    errors.print(line, markup=False)

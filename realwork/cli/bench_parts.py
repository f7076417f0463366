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

    image = BASE_IMAGE
    measured = bench_episodes(image, rounds=rounds, episodes=episodes, commands=commands, parallel=parallel)
    lines = [
        f"{rounds} runs of {episodes} episodes of {commands} commands, {parallel} at a time, in each mode",
        _columns("", "median", "lowest", "highest"),
    ]
    for mode, each in measured.modes.items():
        lines += [
            _columns(f"{mode}: episodes a second", *_spread(each.episodes_per_s, 2)),
            _columns(f"{mode}: the whole run, start included", *_spread(each.whole_per_s, 2)),
            _columns("engine alone: containers a second", *_spread(each.engine_per_s, 2)),
            _columns(f"{mode}: ratio to the engine alone", *_spread(each.ratio, 2)),
        ]
    lines += ["", _columns("CPU ms of an episode", *measured.modes)]
    parts = next(iter(measured.modes.values())).cpu_ms
    lines += [_columns(part, *(f"{each.cpu_ms[part]:.1f}" for each in measured.modes.values())) for part in parts]
    graded = ", ".join(f"{each.successful} {mode}" for mode, each in measured.modes.items())
    return measured, "\n".join([*lines, f"graded successful, of {rounds * episodes} each: {graded}"])


def start(rounds: int = 5) -> tuple["Record", str]:
    """Of `realwork.bench.start`."""
    from realwork.bench.start import bench_start

    measured = bench_start(BASE_IMAGE, rounds=rounds)
    lines = [_columns("seconds", "median", "lowest", "highest")]
    for name, each in (("cold: a local Ray is started", measured.cold), ("warm: a cluster is up", measured.warm)):
        lines += [
            _columns(name, *_spread(each.first_call_s, 1)),
            _columns("  of which Ray alone, first answer", *_spread(each.ray_alone_s, 1)),
        ]
    return measured, "\n".join(lines)


def flight(rollouts: int = 100, reply_s: float = 2.0, seconds: float = 60.0) -> tuple["Record", str]:
    """Of `realwork.bench.flight`."""
    from realwork.bench.flight import bench_flight

    measured = bench_flight(BASE_IMAGE, rollouts=rollouts, reply_s=reply_s, seconds=seconds)
    lines = [
        (
            f"{rollouts} rollouts in flight for {measured.seconds:.0f} s, {reply_s:g} s a reply: "
            f"{measured.commands_per_s:.1f} commands a second, {measured.successful} graded successful"
        ),
        _columns("MiB a rollout: its actor", f"{measured.actor_mib:.0f}"),
        _columns("MiB a rollout: all that the machine lacks", f"{measured.rollout_mib:.0f}"),
        _columns(f"CPU of {measured.cores} cores", f"{sum(measured.cpu_share.values()):.1%}"),
    ]
    lines += [_columns(f"  {part}", f"{share:.1%}") for part, share in measured.cpu_share.items()]
    return measured, "\n".join(lines)


def scale(rollouts: int = 4000, in_flight: int = 10_000, nodes: int = 200) -> tuple["Record", str]:
    """Of `realwork.bench.scale`."""
    from realwork.bench.scale import bench_scale

    measured = bench_scale(rollouts=rollouts, in_flight=in_flight, nodes=nodes)
    simulated = measured.simulated
    lines = [
        f"rollouts of a sandbox that runs nothing, on {measured.played[0].nodes} nodes of a real Ray; CPU ms of each",
        "rollouts  seconds   driver    store   both   most MiB: driver, store (first half, second half)",
    ]
    lines += [
        f"{each.rollouts:8,} {each.seconds:8.1f} {each.driver_ms:8.2f} {each.store_ms:8.2f} {each.both_ms:6.2f}   "
        f"{each.driver_mib[0]:.0f}, {each.store_mib[0]:.0f}; {each.driver_mib[1]:.0f}, {each.store_mib[1]:.0f}"
        for each in measured.played
    ]
    lines += [
        (
            f"{simulated.rollouts:,} simulated rollouts, {simulated.in_flight:,} in flight on {simulated.nodes} nodes: "
            f"{simulated.seconds:.1f} s"
        ),
        (
            f"a decision of the scheduler takes {simulated.decision_ms:.2f} ms, 99.9% of them less than "
            f"{simulated.most_decision_ms:.2f} ms; driver and simulation {simulated.driver_ms:.2f} CPU ms a rollout"
        ),
    ]
    return measured, "\n".join(lines)


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
    return measured, (
        "                       requests/s   CPU ms each\n"
        f"realwork's client      {measured.ours.requests_per_s:10.0f}   {measured.ours.cpu_ms:11.2f}\n"
        f"bare openai client     {measured.bare.requests_per_s:10.0f}   {measured.bare.cpu_ms:11.2f}\n"
        f"ratio of CPU           {measured.ratio:10.2f}\n"
        f"a conversation of {LONG_MESSAGES:,} messages takes {measured.long_conversation_mib:.1f} MiB"
    )


def store(rows: int = 100_000, mib: int = 64) -> tuple["Record", str]:
    """Of `realwork.bench.store`."""
    from realwork.bench.store import bench_store

    measured = bench_store(rows=rows, mib=mib)
    lines = ["trajectory   acked/s    MiB/s   in parts/s   bare pyarrow/s   ratio"]
    lines += [
        f"{kib:6} KiB {each.acked_per_s:10.0f} {each.acked_mib_per_s:8.1f} {each.sealed_per_s:12.0f} "
        f"{each.bare_per_s:16.0f} {each.ratio:7.2f}"
        for kib, each in measured.rates.items()
    ]
    memory = ", ".join(f"{mib:.0f} MiB after {count:,} rows" for count, mib in measured.memory_mib.items())
    lines += [f"memory of the store: {memory}", f"a run of {rows:,} rows is taken up in {measured.resume_s:.1f} s"]
    return measured, "\n".join(lines)


def plugins(steps: int = 100) -> tuple["Record", str]:
    """Of `realwork.bench.plugins`."""
    from realwork.bench.plugins import bench_plugins

    measured = bench_plugins(steps=steps)
    lines = ["plugins   watching   at the end   filtering     (ms a step)"]
    lines += [
        f"{count:7} {measured.watching_ms[count]:10.2f} {measured.settling_ms[count]:12.2f} "
        f"{measured.filtering_ms[count]:11.2f}"
        for count in measured.watching_ms
    ]
    bare = measured.bare_call_ms
    each = measured.filtering_ms[1] / bare
    lines.append(f"a bare call of a Ray task takes {bare:.2f} ms; one filtering plugin {each:.2f} times that")
    return measured, "\n".join(lines)


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


def _columns(name: str, *values: str) -> str:
    return f"{name:42}" + "".join(f"{value:>10}" for value in values)


def _spread(figure: "Spread", digits: int) -> list[str]:
    return [f"{value:.{digits}f}" for value in (figure.median, figure.lowest, figure.highest)]


def say(line: str) -> None:
    """Tell of what goes on."""
    errors.print(line, markup=False)

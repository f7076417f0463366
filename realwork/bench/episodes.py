"""Episodes per second, end to end, beside what the engine alone can do in the same run.

The model is a process of its own on loopback that answers at once, so that what is measured is realwork: its actors,
sandboxes, client, grading and store, all as a user has them.
"""

import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

from realwork.bench.playing import play, run_document
from realwork.bench.processes import CpuWatch
from realwork.bench.served import Served, served_model
from realwork.bench.spread import Spread, spread
from realwork.dataset.read import trajectories
from realwork.distributed.result import Observer
from realwork.errors import InputError
from realwork.sandbox.engine import open_engine
from realwork.sandbox.yardstick import raw_containers_per_s
from realwork.types import Record

MODES = ("same", "fresh")
FEWEST = 4
"""Episodes for each at once: the first quarter of a run, and its last ones, are not in its steady rate."""


class ModeBench(Record):
    """What was measured in one mode of grading.

    Attributes:
        episodes_per_s: while all actors play: from the end of the first quarter of the episodes until as many are left
            as play at once.
        whole_per_s: of a whole run, the start of its actors included.
        engine_per_s: containers that the engine alone creates, starts and removes, at the same parallelism; of each
            round the mean of one measurement before its run and one after it.
        ratio: `episodes_per_s` over `engine_per_s`, round by round.
        cpu_ms: CPU milliseconds of an episode by part; see `processes.cpu_by_part`.
        successful: rows that are graded successful, of all rounds.
    """

    episodes_per_s: Spread
    whole_per_s: Spread
    engine_per_s: Spread
    ratio: Spread
    cpu_ms: dict[str, Spread]
    successful: int


class EpisodesBench(Record):
    """What was measured, by the mode of grading."""

    rounds: int
    episodes: int
    commands: int
    parallel: int
    modes: dict[str, ModeBench]


class _Round(NamedTuple):
    steady: float
    whole: float
    engine: float
    cpu_ms: dict[str, float]
    successful: int


def bench_episodes(
    image: str, *, rounds: int, episodes: int, commands: int, parallel: int, observer: Observer | None = None
) -> EpisodesBench:
    """Play `episodes` rollouts of `commands` commands each, `parallel` at a time, `rounds` times in each mode.

    Raises:
        InputError: there is no engine, or not the image; or the episodes are too few for their parallelism.
        RunAborted: a run could not go on.
    """
    if episodes < FEWEST * parallel:
        raise InputError(f"{parallel} rollouts at once need at least {FEWEST * parallel} episodes, not {episodes}")
    measured: dict[str, list[_Round]] = {mode: [] for mode in MODES}
    with served_model(commands) as model:
        for _ in range(rounds):
            for mode in MODES:
                measured[mode].append(_round(image, model, mode, episodes, parallel, observer))
    modes = {mode: _together(each) for mode, each in measured.items()}
    return EpisodesBench(rounds=rounds, episodes=episodes, commands=commands, parallel=parallel, modes=modes)


def _round(image: str, model: Served, mode: str, episodes: int, parallel: int, observer: Observer | None) -> _Round:
    engine = [asyncio.run(_engine_rate(image, episodes, parallel))]
    with tempfile.TemporaryDirectory(prefix="realwork-bench-") as folder:
        document = run_document(image, model.base_url, {"max_parallel_rollouts": parallel}, episodes)
        with CpuWatch(model.pid) as watch:
            result = play(document | {"grading_config": {"mode": mode}}, folder, observer=observer)
        ends = sorted(each.ended_at for each in trajectories(result.directory))
    engine.append(asyncio.run(_engine_rate(image, episodes, parallel)))
    begin, end = episodes // 4, episodes - parallel
    first, last, cpu_s = watch.between(ends[begin].timestamp(), ends[end].timestamp())
    played = sum(first < each.timestamp() <= last for each in ends)
    return _Round(
        steady=(end - begin) / (ends[end] - ends[begin]).total_seconds(),
        whole=episodes / result.duration_s,
        engine=statistics.mean(engine),
        cpu_ms={part: 1000 * seconds / max(1, played) for part, seconds in cpu_s.items()},
        successful=sum(each.successful for each in result.environments),
    )


async def _engine_rate(image: str, count: int, parallel: int) -> float:
    async with open_engine() as engine:
        return await raw_containers_per_s(engine, image, count=count, parallel=parallel)


def _together(rounds: Sequence[_Round]) -> ModeBench:
    parts = rounds[0].cpu_ms
    return ModeBench(
        episodes_per_s=spread([each.steady for each in rounds]),
        whole_per_s=spread([each.whole for each in rounds]),
        engine_per_s=spread([each.engine for each in rounds]),
        ratio=spread([each.steady / each.engine for each in rounds]),
        cpu_ms={part: spread([each.cpu_ms[part] for each in rounds]) for part in parts},
        successful=sum(each.successful for each in rounds),
    )

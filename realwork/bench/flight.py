"""What rollouts cost that wait for their model: CPU and memory of many in flight on one node.

They run one command after the other until they have been measured; then each marks its task as done.
"""

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from realwork.bench.playing import play, run_document
from realwork.bench.processes import CpuWatch, available_mib, named
from realwork.bench.served import Served, served_model
from realwork.bench.spread import Spread, spread
from realwork.dataset.read import trajectories
from realwork.distributed.control import InFlight
from realwork.distributed.slot import ACTOR_MIB
from realwork.distributed.yardstick import several_local_nodes
from realwork.errors import RunAborted
from realwork.opening import SilentObserver
from realwork.schedule import EnvironmentProgress
from realwork.types import Record, RolloutSummary

SANDBOX_MIB = 64
SETTLE_S = 10.0
LOOKS = 5
LONGEST_STEPS = 100_000
PLAYS = ("asking", "acting")


class FlightBench(Record):
    """What was measured in `LOOKS` looks, one after the other, while all rollouts were playing.

    Attributes:
        reply_s: what the model takes for each reply.
        started_s: seconds until all of them played, from the start of the run.
        seconds: of all looks.
        commands_per_s: that were run, of all rollouts.
        cpu_share: CPU time over that of all cores.
        part_share: the same by part, the medians; see `processes.cpu_by_part`.
        actor_mib: of an actor's process, pages that it shares with others counted in part; the mean.
        rollout_mib: what the machine has less for each rollout: its actor, its container and the engine's for it.
    """

    rollouts: int
    reply_s: float
    cores: int
    started_s: float
    seconds: float
    commands_per_s: float
    cpu_share: Spread
    part_share: dict[str, float]
    actor_mib: Spread
    rollout_mib: Spread
    successful: int


class _Look(NamedTuple):
    cpu_s: dict[str, float]
    seconds: float
    actor_mib: float
    rollout_mib: float


class _Watcher(SilentObserver):
    """Measures, in a thread, once all rollouts have been playing for a while, and then lets them end."""

    def __init__(self, rollouts: int, seconds: float, model: Served) -> None:
        self.looks_at = rollouts
        self._rollouts = rollouts
        self._seconds = seconds
        self._model = model
        self._began = time.monotonic()
        self._before_mib = available_mib()
        self._played: set[str] = set()
        self.started_s = 0.0
        self.looks: list[_Look] = []
        self.from_to = (0.0, 0.0)

    def rollout_finished(self, summary: RolloutSummary, progress: EnvironmentProgress) -> None:
        """See `Observer`; one that ends before all play keeps them from it."""
        if self.looks_at:
            self._model.end.set()

    def looked(self, in_flight: Sequence[InFlight]) -> None:
        """See `Observer`; a busy process does not always answer."""
        self._played |= {each.trajectory_id for each in in_flight if each.doing and each.doing.phase in PLAYS}
        if self.looks_at and len(self._played) >= self._rollouts:
            self.looks_at = 0  # nobody is asked any more
            self.started_s = time.monotonic() - self._began
            threading.Thread(target=self._measure, daemon=True).start()

    def _measure(self) -> None:
        try:
            time.sleep(SETTLE_S)
            began = time.time()
            for _ in range(LOOKS):
                self.looks.append(self._look())
            self.from_to = (began, time.time())
        finally:
            self._model.end.set()

    def _look(self) -> _Look:
        with CpuWatch(self._model.pid) as watch:
            time.sleep(self._seconds / LOOKS)
        first, last, cpu_s = watch.between(0.0, time.time())
        actors = named("ray::RolloutActor")
        return _Look(
            cpu_s,
            last - first,
            sum(each.own_mib for each in actors) / len(actors),
            (self._before_mib - available_mib()) / self._rollouts,
        )


def bench_flight(image: str, *, rollouts: int, reply_s: float, seconds: float) -> FlightBench:
    """Hold `rollouts` in flight on one node, whose model takes `reply_s` a reply, and measure for `seconds`.

    Raises:
        InputError: there is no engine, or not the image, or no Ray can be started.
        RunAborted: not all of them came to play.
    """
    memory_mib = (rollouts + 1) * (SANDBOX_MIB + ACTOR_MIB)
    with (
        tempfile.TemporaryDirectory(prefix="realwork-bench-") as folder,
        served_model(None, reply_s=reply_s) as model,
        several_local_nodes(1, memory_mib=memory_mib) as address,
    ):
        limits = {"max_parallel_rollouts": rollouts, "max_steps": LONGEST_STEPS}
        document = run_document(image, model.base_url, limits, rollouts)
        document["sandbox_config"] = {"memory_mib": SANDBOX_MIB, "cpus": 0.5}
        watcher = _Watcher(rollouts, seconds, model)
        result = play(document, folder, address=address, observer=watcher)
        if len(watcher.looks) < LOOKS:
            raise RunAborted(f"{rollouts} rollouts did not play at once for {seconds:g} s; try --rollouts with fewer")
        commands = _commands_between(result.directory, *watcher.from_to)
    return _measured(watcher, rollouts, reply_s, commands, sum(each.successful for each in result.environments))


def _measured(watcher: _Watcher, rollouts: int, reply_s: float, commands: int, successful: int) -> FlightBench:
    cores, looks = os.cpu_count() or 1, watcher.looks
    shares = [{part: spent / each.seconds / cores for part, spent in each.cpu_s.items()} for each in looks]
    begin, end = watcher.from_to
    return FlightBench(
        rollouts=rollouts,
        reply_s=reply_s,
        cores=cores,
        started_s=watcher.started_s,
        seconds=end - begin,
        commands_per_s=commands / (end - begin),
        cpu_share=spread([sum(each.values()) for each in shares]),
        part_share={part: statistics.median(each[part] for each in shares) for part in shares[0]},
        actor_mib=spread([each.actor_mib for each in looks]),
        rollout_mib=spread([each.rollout_mib for each in looks]),
        successful=successful,
    )


def _commands_between(directory: str, begin: float, end: float) -> int:
    records = trajectories(directory)
    return sum(begin <= step.started_at.timestamp() < end for record in records for step in record.steps)

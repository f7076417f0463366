"""What rollouts cost that wait for their model: CPU and memory of many in flight on one node.

They run one command after the other until they have been measured; then each marks its task as done.
"""

import json
import os
import tempfile
import threading
import time
from pathlib import Path

from realwork.api import run
from realwork.bench.episodes import run_document
from realwork.bench.processes import CpuWatch, available_mib, named
from realwork.bench.served import Served, served_model
from realwork.dataset.read import trajectories
from realwork.distributed.slot import ACTOR_MIB
from realwork.distributed.yardstick import several_local_nodes
from realwork.opening import SilentObserver
from realwork.runfile import load_run_file
from realwork.types import Record, RolloutSpec

SANDBOX_MIB = 64
SETTLE_S = 10.0
LONGEST_STEPS = 100_000


class FlightBench(Record):
    """What was measured.

    Attributes:
        reply_s: what the model takes for each reply.
        commands_per_s: that were run, of all rollouts.
        cpu_share: CPU time over that of all cores, by part; see `processes.cpu_by_part`.
        actor_mib: of an actor's process, pages that it shares with others counted in part; the mean.
        rollout_mib: what the machine has less for each rollout: its actor, its container and the engine's for it.
    """

    rollouts: int
    reply_s: float
    cores: int
    seconds: float
    commands_per_s: float
    cpu_share: dict[str, float]
    actor_mib: float
    rollout_mib: float
    successful: int


class _Watcher(SilentObserver):
    """Measures, in a thread, once all rollouts have been in flight for a while, and then lets them end."""

    def __init__(self, rollouts: int, seconds: float, model: Served) -> None:
        self._rollouts = rollouts
        self._seconds = seconds
        self._model = model
        self._started = 0
        self.before_mib = available_mib()
        self.rollout_mib = self.actor_mib = 0.0
        self.cpu_s: dict[str, float] = {}
        self.measured_s = 1.0
        self.from_to = (0.0, 0.0)

    def rollout_started(self, spec: RolloutSpec) -> None:
        """See `Observer`."""
        self._started += 1
        if self._started == self._rollouts:
            threading.Thread(target=self._measure, daemon=True).start()

    def _measure(self) -> None:
        try:
            time.sleep(SETTLE_S)
            with CpuWatch(self._model.pid) as watch:
                time.sleep(self._seconds)
            first, last, self.cpu_s = watch.between(0.0, time.time())
            self.from_to, self.measured_s = (first, last), last - first
            self.rollout_mib = (self.before_mib - available_mib()) / self._rollouts
            actors = named("ray::RolloutActor")
            self.actor_mib = sum(each.own_mib for each in actors) / len(actors)
        finally:
            self._model.end.set()


def bench_flight(image: str, *, rollouts: int, reply_s: float, seconds: float) -> FlightBench:
    """Hold `rollouts` in flight on one node, whose model takes `reply_s` a reply, and measure for `seconds`.

    Raises:
        InputError: there is no engine, or not the image, or no Ray can be started.
    """
    memory_mib = (rollouts + 1) * (SANDBOX_MIB + ACTOR_MIB)
    with (
        tempfile.TemporaryDirectory(prefix="realwork-bench-") as folder,
        served_model(None, reply_s=reply_s) as model,
        several_local_nodes(1, memory_mib=memory_mib) as address,
    ):
        watcher = _Watcher(rollouts, seconds, model)
        file = Path(folder) / "run.json"
        limits = {
            "max_parallel_rollouts": rollouts,
            "trajectory_output_path": f"{folder}/trajectories",
            "max_steps": LONGEST_STEPS,
        }
        document = run_document(image, model.base_url, limits, rollouts)
        document["sandbox_config"] = {"memory_mib": SANDBOX_MIB, "cpus": 0.5}
        file.write_text(json.dumps(document))
        result = run(load_run_file(file), address=address, observer=watcher)
        commands = _commands_between(result.directory, *watcher.from_to)
    cores = os.cpu_count() or 1
    return FlightBench(
        rollouts=rollouts,
        reply_s=reply_s,
        cores=cores,
        seconds=watcher.measured_s,
        commands_per_s=commands / watcher.measured_s,
        cpu_share={part: spent / watcher.measured_s / cores for part, spent in watcher.cpu_s.items()},
        actor_mib=watcher.actor_mib,
        rollout_mib=watcher.rollout_mib,
        successful=sum(each.successful for each in result.environments),
    )


def _commands_between(directory: str, begin: float, end: float) -> int:
    records = trajectories(directory)
    return sum(begin <= step.started_at.timestamp() < end for record in records for step in record.steps)

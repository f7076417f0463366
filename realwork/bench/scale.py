"""What grows with a run: the driver's and the store's share of a rollout, and the time of a decision of the scheduler.

Two measurements. Rollouts of a sandbox that runs nothing, on a real Ray of several nodes on this machine: what is left
is what realwork itself takes. And the real driver with its scheduler over nodes and actors that are simulated in this
process, with as many rollouts in flight as no single machine could hold.
"""

import asyncio
import contextlib
import json
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from realwork.bench.playing import play
from realwork.bench.processes import Process, named
from realwork.bench.spread import Spread, spread
from realwork.config import RunConfig
from realwork.distributed.cluster import Node
from realwork.distributed.driver import Driver
from realwork.distributed.hooks import LocalCalls
from realwork.distributed.hosts import LocalHost
from realwork.distributed.nodes import Examined, Nodes
from realwork.distributed.rollout_actor import RolloutActor
from realwork.distributed.store_actor import StoreActor
from realwork.distributed.yardstick import several_local_nodes
from realwork.model.budget import Used
from realwork.opening import SilentObserver
from realwork.plugins.managing import RunPlugins
from realwork.preflight import MachineFacts, Question
from realwork.record import RolloutSettings
from realwork.schedule import EnvironmentProgress, Schedule
from realwork.types import Record, RolloutSpec, RolloutSummary

SHARES = (16, 4, 1)
NODES = 3
PARALLEL = 6
GROUP = 8
STEPS = 3
MEMORY_MIB = 64
NODE_MIB = 1024
SHORTEST_S, LONGEST_S = 4.0, 8.0
LOOK_S = 0.05
LOOKS = 100
"""So many times is memory looked at; a part that is being written is in the store's."""
_COMMAND = {"tool_calls": [{"name": "execute_command", "arguments": {"command": "true"}}]}


class PlayedBench(Record):
    """Rollouts that were played on a real Ray, in several runs.

    Attributes:
        rollouts: of each run.
        driver_ms, store_ms, both_ms: CPU milliseconds of each rollout.
        driver_mib, store_mib: most resident memory in the first and in the second half of the rollouts, of all runs.
        graded: rollouts of all runs that have a grade.
    """

    rollouts: int
    nodes: int
    seconds: Spread
    driver_ms: Spread
    store_ms: Spread
    both_ms: Spread
    driver_mib: tuple[float, float]
    store_mib: tuple[float, float]
    graded: int


class SimulatedBench(Record):
    """Rollouts whose actors were simulated.

    Attributes:
        in_flight: rollouts in flight at once.
        decision_ms: CPU milliseconds of choosing a rollout and its node, the median.
        most_decision_ms: what 99.9% of them stay below; one into which a garbage collection falls takes longer.
        driver_ms: CPU milliseconds of each rollout, of driver and simulation together.
    """

    rollouts: int
    in_flight: int
    nodes: int
    seconds: float
    decision_ms: float
    most_decision_ms: float
    driver_ms: float


class ScaleBench(Record):
    """Both measurements; `played` at a 16th, a quarter and all of the rollouts.

    Attributes:
        growth: CPU of a rollout in the longest run over that in the shortest, round by round.
    """

    rounds: int
    played: list[PlayedBench]
    growth: Spread
    simulated: SimulatedBench


class _Played(NamedTuple):
    """One run, named as in `PlayedBench`."""

    seconds: float
    driver_ms: float
    store_ms: float
    driver_mib: tuple[float, float]
    store_mib: tuple[float, float]
    graded: int

    @property
    def both_ms(self) -> float:
        return self.driver_ms + self.store_ms


def bench_scale(*, rounds: int, rollouts: int, in_flight: int, nodes: int) -> ScaleBench:
    """Play shares of `rollouts` on a real Ray; then twice `in_flight`, that many at once, over simulated `nodes`.

    Whole groups are played, so it may be a few more.

    Raises:
        InputError: no Ray can be started.
        RunAborted: a run could not go on.
    """
    sizes = [_whole_groups(rollouts // share) for share in SHARES]
    with several_local_nodes(NODES, memory_mib=NODE_MIB) as address:
        found = [[_play(size, address) for size in sizes] for _ in range(rounds)]
    return ScaleBench(
        rounds=rounds,
        played=[_together(size, runs) for size, runs in zip(sizes, zip(*found, strict=True), strict=True)],
        growth=spread([runs[-1].both_ms / runs[0].both_ms for runs in found]),
        simulated=asyncio.run(_simulate(in_flight, nodes)),
    )


def _together(rollouts: int, runs: Sequence[_Played]) -> PlayedBench:
    return PlayedBench(
        rollouts=rollouts,
        nodes=NODES,
        seconds=spread([each.seconds for each in runs]),
        driver_ms=spread([each.driver_ms for each in runs]),
        store_ms=spread([each.store_ms for each in runs]),
        both_ms=spread([each.both_ms for each in runs]),
        driver_mib=(max(each.driver_mib[0] for each in runs), max(each.driver_mib[1] for each in runs)),
        store_mib=(max(each.store_mib[0] for each in runs), max(each.store_mib[1] for each in runs)),
        graded=sum(each.graded for each in runs),
    )


class _Measuring(SilentObserver):
    """Looks at driver and store from the first rollout's end to theirs, which is that of the last part, too."""

    def __init__(self, rollouts: int) -> None:
        self._rollouts = rollouts
        self._finished = 0
        self.graded = 0
        self.driver, self.store = Process(os.getpid()), Process(os.getpid())
        self.cpu_s: list[tuple[float, float]] = []
        self._last = threading.Thread(target=self._look_on, daemon=True)
        self.memory_mib: list[tuple[float, float]] = []

    def rollout_finished(self, summary: RolloutSummary, progress: EnvironmentProgress) -> None:
        """See `Observer`."""
        self._finished += 1
        self.graded += summary.success is not None
        if self._finished == 1:
            self.store = named("ray::StoreActor")[-1]
            self.cpu_s.append((self.driver.cpu_s, self.store.cpu_s))
            self._last.start()
        if self._finished % max(1, self._rollouts // LOOKS) == 0:
            self.memory_mib.append((self.driver.memory_mib, self.store.memory_mib))

    def _look_on(self) -> None:
        """Look until the store is gone."""
        with contextlib.suppress(OSError):
            while True:
                self.cpu_s[1:] = [(self.driver.cpu_s, self.store.cpu_s)]
                time.sleep(LOOK_S)


def _play(rollouts: int, address: str) -> _Played:
    with tempfile.TemporaryDirectory(prefix="realwork-bench-") as folder:
        (Path(folder) / "script.json").write_text(json.dumps([_COMMAND] * STEPS))
        measuring = _Measuring(rollouts)
        idle = {"sandbox_config": {"kind": "memory"}}
        result = play(_run_file(folder, rollouts), folder, overrides=idle, address=address, observer=measuring)
    (driver_before, store_before), (driver_after, store_after) = measuring.cpu_s
    counted = rollouts - 1
    driver_mib, store_mib = (_most_by_half(each) for each in zip(*measuring.memory_mib, strict=True))
    return _Played(
        seconds=result.duration_s,
        driver_ms=1000 * (driver_after - driver_before) / counted,
        store_ms=1000 * (store_after - store_before) / counted,
        driver_mib=driver_mib,
        store_mib=store_mib,
        graded=measuring.graded,
    )


def _most_by_half(values: Sequence[float]) -> tuple[float, float]:
    half = len(values) // 2
    return max(values[:half]), max(values[half:])


def _whole_groups(rollouts: int) -> int:
    return max(1, -(-rollouts // GROUP)) * GROUP


def _run_file(folder: str, rollouts: int) -> dict[str, Any]:
    environments = [
        {"id": f"e{number}", "docker_image": "none", "prompt": "bench", "unit_tests": ["true"]}
        for number in range(rollouts // GROUP)
    ]
    return {
        "environments": environments,
        "template_prompt": "bench",
        "llm_config": {"model": f"scripted:{folder}/script.json"},
        "rollout_config": {"max_parallel_rollouts": PARALLEL, "trajectory_output_path": f"{folder}/trajectories"},
        "episode_control_config": {"max_episodes": GROUP},
        "sandbox_config": {"memory_mib": MEMORY_MIB, "cpus": 0.1},
    }


class _SimulatedRollouts:
    """Takes the place of `RolloutActor`: each rollout takes a while and succeeds."""

    async def setup(self, *_shared: Any) -> None:
        return

    async def run(self, spec: RolloutSpec, _queue_s: float, _timeout_multiplier: float) -> RolloutSummary:
        await asyncio.sleep(random.uniform(SHORTEST_S, LONGEST_S))
        return RolloutSummary(spec=spec, status="completed", terminated_reason="completed", success=True, reward=1.0)


class _SimulatedStore:
    """Takes the place of `StoreActor`."""

    def __init__(self, *_arguments: Any) -> None:
        self._asked = asyncio.Event()

    async def plan(self, _rollout_ids: list[str]) -> None:
        return

    async def next_asked(self) -> None:
        await self._asked.wait()

    async def close(self) -> None:
        return


class _SimulatedHost(LocalHost):
    """Actors of this process that stand for real ones."""

    def start(self, kind: type, *arguments: Any, node_id: str | None = None, **options: Any) -> Any:
        """See `Host`."""
        simulated = {RolloutActor: _SimulatedRollouts, StoreActor: _SimulatedStore}
        return super().start(simulated[kind], *arguments, node_id=node_id, **options)


async def _simulate(in_flight: int, nodes: int) -> SimulatedBench:
    rollouts = _whole_groups(2 * in_flight)
    with tempfile.TemporaryDirectory(prefix="realwork-bench-") as folder:
        document = _run_file(folder, rollouts)
        document["rollout_config"] |= {"max_parallel_rollouts": in_flight, "store_shards": 1}
        config = RunConfig.model_validate(document)
        driver = Driver(
            _SimulatedHost(),
            _simulated_nodes(in_flight, nodes),
            RolloutSettings(config=config, script=()),
            Schedule(config, "bench"),
            Used(),
            RunPlugins((), config, LocalCalls()),
            given_key=None,
            run_id="bench",
            directory=Path(folder),
            url=None,
            observer=SilentObserver(),
        )
        dispatcher, cpu_s = driver.dispatcher, time.process_time()
        dispatcher.decision_s = []
        result = await driver.run()
    decision_s = sorted(dispatcher.decision_s)
    return SimulatedBench(
        rollouts=sum(each.graded for each in result.environments),
        in_flight=dispatcher.most_in_flight,
        nodes=nodes,
        seconds=result.duration_s,
        decision_ms=1000 * statistics.median(decision_s),
        most_decision_ms=1000 * decision_s[int(0.999 * len(decision_s))],
        driver_ms=1000 * (time.process_time() - cpu_s) / rollouts,
    )


def _simulated_nodes(in_flight: int, count: int) -> Nodes:
    room = -(-in_flight // count)
    nodes = Nodes(Question(needs=None), MEMORY_MIB, None)
    for number in range(count):
        node = Node(node_id=f"node-{number}", name=f"node-{number}", memory_mib=room * MEMORY_MIB, cpus=room)
        nodes.found.append(Examined(node=node, facts=MachineFacts(), room=room))
    return nodes

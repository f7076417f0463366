"""Seconds from the launch of `realwork run` to the first tool call, without a Ray and with a cluster that is up.

Beside it stands what Ray alone takes: a Python that starts a local Ray, or joins the cluster, and has the first answer
of an actor that does nothing.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from realwork.bench.playing import run_document
from realwork.bench.served import served_model
from realwork.bench.spread import Spread, spread
from realwork.dataset.read import trajectories
from realwork.distributed.yardstick import BARE_START, several_local_nodes
from realwork.errors import RunAborted
from realwork.types import Record

NODE_MIB = 4096
LONGEST_S = 300.0
COMMANDS = 1


class Start(Record):
    """Seconds from the launch of the command to the first tool call, and what Ray alone took."""

    first_call_s: Spread
    ray_alone_s: Spread


class StartBench(Record):
    """`cold`: the run starts a local Ray; `warm`: it joins a cluster that is up."""

    rounds: int
    cold: Start
    warm: Start


def bench_start(image: str, *, rounds: int) -> StartBench:
    """Launch each `rounds` times.

    Raises:
        InputError: no Ray can be started.
        RunAborted: a run did not get as far as its first tool call.
    """
    with served_model(COMMANDS) as model:
        cold = _launched(image, model.base_url, rounds, address=None)
        with several_local_nodes(1, memory_mib=NODE_MIB) as address:
            warm = _launched(image, model.base_url, rounds, address=address)
    return StartBench(rounds=rounds, cold=cold, warm=warm)


def _launched(image: str, base_url: str, rounds: int, *, address: str | None) -> Start:
    pairs = [(_first_call_s(image, base_url, address), _ray_alone_s(address)) for _ in range(rounds)]
    return Start(first_call_s=spread([each for each, _ in pairs]), ray_alone_s=spread([each for _, each in pairs]))


def _first_call_s(image: str, base_url: str, address: str | None) -> float:
    with tempfile.TemporaryDirectory(prefix="realwork-bench-") as folder:
        file = Path(folder) / "run.json"
        limits = {"max_parallel_rollouts": 1, "trajectory_output_path": f"{folder}/trajectories"}
        file.write_text(json.dumps(run_document(image, base_url, limits, 1)))
        joined = ["--address", address] if address else []
        began = time.time()
        argv = [sys.executable, "-c", "from realwork.cli import main; main()", "run", str(file), *joined]
        ended = _run(argv)
        records = [*trajectories(folder + "/trajectories")] if ended.returncode == 0 else []
    if not records or not records[0].steps:
        raise RunAborted(f"a run did not get as far as its first tool call:\n{ended.stderr[-2000:]}")
    step = records[0].steps[0]
    return (step.started_at + timedelta(seconds=step.llm_s)).timestamp() - began


def _ray_alone_s(address: str | None) -> float:
    began = time.monotonic()
    ended = _run([sys.executable, "-c", BARE_START, address or "local"])
    if ended.returncode != 0:
        raise RunAborted(f"Ray alone does not start:\n{ended.stderr[-2000:]}")
    return float(ended.stdout.split()[-1]) - began


def _run(argv: list[str]) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(argv, capture_output=True, text=True, timeout=LONGEST_S, env=environment, check=False)

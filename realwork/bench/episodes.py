"""Episodes per second, end to end, beside what the engine alone can do in the same run.

The model is an HTTP server on loopback that answers at once, so that what is measured is realwork: its actors,
sandboxes, client, grading and store, all as a user has them.
"""

import asyncio
import json
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from realwork.api import run
from realwork.bench.endpoint import endpoint
from realwork.distributed.result import Observer
from realwork.runfile import load_run_file
from realwork.sandbox.engine import open_engine
from realwork.sandbox.yardstick import raw_containers_per_s
from realwork.types import Record

MEMORY_MIB = 256


class EpisodesBench(Record):
    """What was measured.

    Attributes:
        engine_containers_per_s: the engine alone (create, start, remove), the median of one measurement before the run
            and one after it, at the same parallelism.
        episodes_per_s: over the seconds from the driver's start to the last row, the start of the actors included.
        ratio: episodes_per_s over engine_containers_per_s.
        rows: rows that are graded successful.
    """

    episodes: int
    commands: int
    parallel: int
    seconds: float
    episodes_per_s: float
    engine_containers_per_s: float
    ratio: float
    rows: int


def bench_episodes(
    image: str, *, episodes: int, commands: int, parallel: int, observer: Observer | None = None
) -> EpisodesBench:
    """Play `episodes` rollouts of `commands` commands each, `parallel` at a time, and measure the engine around it.

    Raises:
        InputError: there is no engine, or not the image.
    """
    with tempfile.TemporaryDirectory(prefix="realwork-bench-") as folder, _model_server(commands) as base_url:
        file = Path(folder) / "run.json"
        file.write_text(json.dumps(_run_file(image, base_url, folder, episodes, commands, parallel)))
        run_file = load_run_file(file)
        before = asyncio.run(_engine_rate(image, episodes, parallel))
        result = run(run_file, observer=observer)
        after = asyncio.run(_engine_rate(image, episodes, parallel))
    engine = statistics.median([before, after])
    rate = episodes / result.duration_s
    return EpisodesBench(
        episodes=episodes,
        commands=commands,
        parallel=parallel,
        seconds=result.duration_s,
        episodes_per_s=rate,
        engine_containers_per_s=engine,
        ratio=rate / engine,
        rows=sum(each.successful for each in result.environments),
    )


async def _engine_rate(image: str, count: int, parallel: int) -> float:
    async with open_engine() as engine:
        return await raw_containers_per_s(engine, image, count=count, parallel=parallel)


def _run_file(image: str, base_url: str, folder: str, episodes: int, commands: int, parallel: int) -> dict[str, Any]:
    environment = {
        "id": "bench",
        "docker_image": image,
        "prompt": "bench",
        "unit_tests": [f"test -f file-{commands - 1}"],
    }
    return {
        "environments": [environment],
        "template_prompt": "bench",
        "llm_config": {"model": "bench", "base_url": base_url},
        "rollout_config": {"max_parallel_rollouts": parallel, "trajectory_output_path": f"{folder}/trajectories"},
        "episode_control_config": {"max_episodes": episodes, "safety_limit": episodes},
        "sandbox_config": {"memory_mib": MEMORY_MIB},
    }


@contextmanager
def _model_server(commands: int) -> Iterator[str]:
    """The base URL of an endpoint that runs `commands` commands and then marks the task as done."""

    def answer(body: bytes) -> bytes:
        turn = sum(message["role"] == "assistant" for message in json.loads(body)["messages"])
        return json.dumps(_completion(turn, commands)).encode()

    server = endpoint(answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def _completion(turn: int, commands: int) -> dict[str, Any]:
    name, arguments = ("mark_done", "{}")
    if turn < commands:
        name, arguments = "execute_command", json.dumps({"command": f"echo {turn} > file-{turn}; ls"})
    call = {"id": f"call_{turn}", "type": "function", "function": {"name": name, "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"model": "bench", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}

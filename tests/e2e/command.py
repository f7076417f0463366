"""The command line as a user runs it: a process of its own, in a folder of its own."""

import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from realwork.sandbox import labels
from realwork.sandbox.engine import connect

REALWORK = Path(sys.executable).with_name("realwork")
REPOSITORY = Path(__file__).parents[2]
SMALL = {"memory_mib": 256}
EVERYWHERE: dict[str, str] = {}
"""Variables of every command."""
WITHOUT_PANDAS = {"PYTHONPATH": str(Path(__file__).parent / "without_pandas")}
"""Variables of every process of realwork."""


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what would reach a real model or another cluster."""
    left_out = ("OPENROUTER_API_KEY", "OPENAI_API_KEY", "RAY_ADDRESS")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return kept | {"PATH": f"{REALWORK.parent}:{os.environ['PATH']}", "COLUMNS": "200"} | EVERYWHERE | more


def realwork(
    *arguments: object, cwd: Path, timeout_s: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [REALWORK, *map(str, arguments)],
        cwd=cwd,
        env=clean_environment(**WITHOUT_PANDAS, **environment),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@contextmanager
def running(*arguments: object, cwd: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command beside the block, in a process group of its own; it is killed at the end if it still runs."""
    process = subprocess.Popen(
        [REALWORK, *map(str, arguments)],
        cwd=cwd,
        env=clean_environment(**WITHOUT_PANDAS, **environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run_file(folder: Path, base_url: str = "http://127.0.0.1:9/v1", **sections: Any) -> Path:
    """A run file in `folder` with one environment `e` that passes, changed by `sections`; null leaves one out."""
    environment = {
        "id": "e",
        "docker_image": "realwork/base:bookworm",
        "prompt": "Make a file called done.",
        "unit_tests": ["test -f done"],
    }
    document = {
        "environments": [environment],
        "template_prompt": "You are an engineer.",
        "rollout_config": {"trajectory_output_path": str(folder / "out"), "max_parallel_rollouts": 2},
        "llm_config": {"model": "test-model", "base_url": base_url},
        "sandbox_config": SMALL,
    }
    for name, value in sections.items():
        document[name] = document[name] | value if isinstance(document.get(name), dict) else value
    file = folder / "run.json"
    file.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))
    return file


def environment(environment_id: str, **fields: Any) -> dict[str, Any]:
    """An environment of a run file."""
    return {
        "id": environment_id,
        "docker_image": "realwork/base:bookworm",
        "prompt": "p",
        "unit_tests": ["test -f done"],
    } | fields


def rows(directory: Path) -> list[dict[str, Any]]:
    """Every row of the run in `directory`, read with nothing but pyarrow, sorted by trajectory id."""
    parts = sorted((directory / "trajectories").glob("part-*.parquet"))
    found = [row for part in parts for row in pq.read_table(part).to_pylist()]
    return sorted(found, key=lambda row: row["trajectory_id"])


def own_containers(run_id: str) -> list[str]:
    """Names of the containers of the run, in any state."""
    client = connect()
    try:
        found = client.containers(all=True, filters={"label": f"{labels.RUN}={run_id}"})
        return [container["Names"][0] for container in found]
    finally:
        client.close()


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Return as soon as `condition` holds.

    Raises:
        AssertionError: it did not within `seconds`.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def plain(text: str) -> str:
    """`text` with every run of white space as one blank."""
    return re.sub(r"\s+", " ", text)


def on_terminal(*arguments: object, cwd: Path, **environment: str) -> tuple[int, str]:
    """Run the command on a terminal of its own, to its end: exit code, and all that it showed."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [REALWORK, *map(str, arguments)],
        cwd=cwd,
        env=clean_environment(**WITHOUT_PANDAS, **{"TERM": "xterm"} | environment),
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    shown = bytearray()
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # the terminal is gone when the last process that had it is
        pass
    finally:
        os.close(ours)
    return process.wait(), shown.decode(errors="replace")

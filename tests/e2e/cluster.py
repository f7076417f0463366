"""A Ray cluster of one node, apart from every other."""

import os
import secrets
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.command import EVERYWHERE, REALWORK, WITHOUT_PANDAS, clean_environment, wait_until

TOKEN = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": os.environ.setdefault("REALWORK_TESTS_RAY_TOKEN", secrets.token_hex(32)),
}
"""What everybody who joins has to set; the processes among which tests are divided inherit it."""


class Head(NamedTuple):
    """Where runs and jobs reach it; without a dashboard it takes no jobs."""

    address: str
    dashboard: str
    pid: int


@contextmanager
def ray_head(
    folder: Path, *, has_dashboard: bool = False, options: Sequence[str] = (), **environment: str
) -> Iterator[Head]:
    """`ray start --head` for the length of the block, with its output in `folder`; its processes have `environment`."""
    port, dashboard, agent = free_port(), free_port(), free_port()
    command = [REALWORK.with_name("ray"), "start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1"]
    command += [f"--include-dashboard={str(has_dashboard).lower()}", f"--dashboard-port={dashboard}"]
    command += ["--dashboard-host=127.0.0.1", "--object-store-memory=200000000", "--include-log-monitor=false"]
    command.append(f"--dashboard-agent-listen-port={agent}")  # the default is that of every Ray of this machine
    command += options
    everywhere = TOKEN | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0"}
    with (folder / "ray.log").open("w") as log:
        head = subprocess.Popen(
            command,
            cwd=folder,
            env=clean_environment(**WITHOUT_PANDAS, **everywhere, **environment),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        if has_dashboard:
            wait_until(lambda: answers(f"http://127.0.0.1:{dashboard}/"), seconds=90, what="the dashboard")
        else:
            wait_until(lambda: "Ray runtime started" in (folder / "ray.log").read_text(), seconds=90, what="Ray")
        yield Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", head.pid)
    finally:
        os.killpg(head.pid, signal.SIGKILL)  # asked to end, it would drain for half a minute
        head.wait()


@contextmanager
def joined(address: str) -> Iterator[None]:
    """Whatever is run inside the block joins the Ray at `address`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (TOKEN | {"RAY_ADDRESS": address}).items():
            patch.setitem(EVERYWHERE, name, value)
        yield


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def answers(url: str) -> bool:
    """Whether anything speaks HTTP there."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False

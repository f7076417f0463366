"""A Ray cluster of several nodes on this machine, each with an engine of its own or with none."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.cluster import TOKEN, Head, free_port, ray_head
from tests.e2e.command import REALWORK, WITHOUT_PANDAS, clean_environment, wait_until

NO_ENGINE = "unix:///nowhere/docker.sock"
SOON_MISSED = {
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "2",
}
"""A node that does not answer is given up after some ten seconds, not half a minute."""


class Nodes:
    """A head without an engine, and what joins it."""

    def __init__(self, folder: Path, head: Head) -> None:
        self._folder = folder
        self.address = head.address
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def join(self, name: str, engine: str, *, memory_mib: int) -> None:
        """Let a node join whose rollouts use the engine at that address; waits until it has."""
        log = self._folder / f"{name}.log"
        command = [REALWORK.with_name("ray"), "start", "--block", f"--address={self.address}", f"--node-name={name}"]
        command += ["--node-ip-address=127.0.0.1", "--object-store-memory=150000000", f"--memory={memory_mib << 20}"]
        command += ["--num-cpus=2", "--include-log-monitor=false", f"--dashboard-agent-listen-port={free_port()}"]
        options = TOKEN | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0", "DOCKER_HOST": engine}
        with log.open("w") as said:
            self._nodes[name] = subprocess.Popen(
                command,
                cwd=self._folder,
                env=clean_environment(**WITHOUT_PANDAS, **options),
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(lambda: "Ray runtime started" in log.read_text(), seconds=90, what=f"node {name}")

    def kill(self, name: str) -> None:
        """End a node with all that runs on it, without a word."""
        process = self._nodes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    @contextmanager
    def hanging(self, name: str) -> Iterator[None]:
        """Let Ray's own process of a node stand still for the length of the block; its actors go on."""
        raylets = [pid for pid in _children(self._nodes[name].pid) if "raylet" in _command(pid)]
        for pid in raylets:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in raylets:
                os.kill(pid, signal.SIGCONT)

    def end(self) -> None:
        for name in [*self._nodes]:
            self.kill(name)


@contextmanager
def several_nodes(folder: Path) -> Iterator[Nodes]:
    """A cluster whose head has no engine, for the length of the block."""
    with ray_head(folder, DOCKER_HOST=NO_ENGINE, **SOON_MISSED) as head:
        nodes = Nodes(folder, head)
        try:
            yield nodes
        finally:
            nodes.end()


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()

"""A Docker engine of the tests' own, which they may stop, freeze and kill.

Guarantees: it shares nothing with the engine of this machine but the kernel; it is ended by its process id, and its
files and mounts are gone afterwards. It has a network of its own, since an engine without a bridge deletes `docker0`,
whosever that is.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from realwork.errors import SandboxError
from realwork.sandbox.engine import EngineClient, connect

START_S = 60.0
END_S = 30.0


class PrivateEngine:
    """A `dockerd` with its data below `folder`, reached through `url`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"unix://{folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        folder = self._folder
        (folder / "docker.pid").unlink(missing_ok=True)
        argv = [
            *(
                "unshare",
                "--net",
                "dockerd",
                "-H",
                self.url,
                "--data-root",
                f"{folder}/data",
                "--exec-root",
                f"{folder}/exec",
            ),
            *("--pidfile", f"{folder}/docker.pid", "--bridge=none", "--iptables=false", "--ip6tables=false"),
            *("--exec-opt", "native.cgroupdriver=cgroupfs", "--log-level", "error", "--shutdown-timeout", "2"),
        ]
        with (folder / "log").open("ab") as said:
            self._process = subprocess.Popen(argv, stdout=said, stderr=said, start_new_session=True)
        deadline = time.monotonic() + START_S
        while True:
            try:
                connect(self.url).close()
            except SandboxError:
                assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
                assert self._process.poll() is None, (folder / "log").read_text()[-2000:]
                time.sleep(0.2)
            else:
                return

    def load(self, image: str) -> None:
        """Copy `image` from the engine of this machine."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
            subprocess.run(
                ["docker", "-H", self.url, "load", "-q"], stdin=saving.stdout, check=True, capture_output=True
            )

    @contextmanager
    def client(self) -> Iterator[EngineClient]:
        client = connect(self.url)
        try:
            yield client
        finally:
            client.close()

    def containers(self, *wanted: str) -> list[str]:
        """Names of its containers in any state, of those that bear the labels `wanted` if there are any."""
        with self.client() as client:
            found = client.containers(all=True, filters={"label": list(wanted)} if wanted else {})
        return sorted(name.lstrip("/") for one in found for name in one["Names"])

    def images(self, *wanted: str) -> list[str]:
        """Names of its images that bear the labels `wanted`."""
        with self.client() as client:
            found = client.images(filters={"label": list(wanted)})
        return sorted(name for one in found for name in one["RepoTags"] or [])

    def freeze(self) -> None:
        """Let it answer nobody, until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; its containers may go on without it until it is started again."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def end(self) -> None:
        """End it with all its containers, and remove what it has written."""
        if self._process is not None:
            self.thaw()
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
        with contextlib.suppress(OSError, ValueError):  # what a killed engine has left
            os.kill(int((self._folder / "exec" / "containerd" / "containerd.pid").read_text()), signal.SIGKILL)
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            target = line.split()[1]
            if target.startswith(f"{self._folder}/"):
                subprocess.run(["umount", "-l", target], check=False, capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)

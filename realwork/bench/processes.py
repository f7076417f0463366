"""CPU time and memory of the processes of this machine, as its kernel tells them."""

import contextlib
import os
import threading
import time
from pathlib import Path

CLOCK = os.sysconf("SC_CLK_TCK")
EVERY_S = 1.0
ENGINE = "engine and containers"
_PROC = Path("/proc")
_PARTS = ("driver", "actors", "store", "tasks", "Ray", "model server")
_BY_START = {
    b"ray::RolloutActor": "actors",
    b"ray::StoreActor": "store",
    b"ray::GateActor": "driver",
    b"ray::": "tasks",
}
_STEAL = 8
"""Of the first line of `/proc/stat`, the columns from here on are contained in others."""
_IDLE = (3, 4)


class Process:
    """What a process has used."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._folder = _PROC / str(pid)

    @property
    def cpu_s(self) -> float:
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK

    @property
    def memory_mib(self) -> float:
        """Resident, what it shares with others included."""
        return _kib(self._folder / "status", "VmRSS:") / 1024

    @property
    def own_mib(self) -> float:
        """Resident, each page that is shared with others as its part of it."""
        return _kib(self._folder / "smaps_rollup", "Pss:") / 1024


def named(start: str) -> list[Process]:
    """The processes whose command line begins so, the one that was started last at the end; Ray names its actors so."""
    found = []
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(start.encode()):
                started = (folder / "stat").read_text().rpartition(")")[2].split()[19]
                found.append((int(started), int(folder.name)))
    return [Process(pid) for _, pid in sorted(found)]


def available_mib() -> float:
    """Memory of this machine that can be had."""
    return _kib(_PROC / "meminfo", "MemAvailable:") / 1024


def cpu_by_part(model_server: int) -> dict[str, float]:
    """CPU seconds since the start of each part.

    The driver is this process and the gate; tasks are the processes that Ray keeps for tasks, such as calls of plugins,
    idle ones included. What else this machine has done is `ENGINE`: engine, shims, runtimes, what runs inside and the
    kernel's work for them.
    """
    parts = dict.fromkeys((*_PARTS, ENGINE), 0.0)
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            part = _part(int(folder.name), (folder / "cmdline").read_bytes(), model_server)
            if part is not None:
                parts[part] += Process(int(folder.name)).cpu_s
    parts[ENGINE] = _busy_s() - sum(parts.values())
    return parts


def _part(pid: int, command: bytes, model_server: int) -> str | None:
    if pid in (os.getpid(), model_server):
        return "driver" if pid == os.getpid() else "model server"
    for start, part in _BY_START.items():
        if command.startswith(start):
            return part
    return "Ray" if b"/ray/" in command else None


def _busy_s() -> float:
    """CPU seconds that all cores have worked since the machine's start."""
    columns = [int(each) for each in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1 : 1 + _STEAL]]
    return (sum(columns) - sum(columns[at] for at in _IDLE)) / CLOCK


def _kib(file: Path, field: str) -> int:
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(field))


class CpuWatch:
    """Looks at the CPU time by part every second, in a thread, for the length of its block."""

    def __init__(self, model_server: int) -> None:
        self._model_server = model_server
        self._looks: list[tuple[float, dict[str, float]]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "CpuWatch":
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def between(self, begin: float, end: float) -> tuple[float, float, dict[str, float]]:
        """Of the looks between two moments (of `time.time`), the first and the last: when, and CPU seconds by part.

        Where there are fewer than two, all looks count.
        """
        within = [look for look in self._looks if begin <= look[0] <= end]
        first, *_, last = within if len(within) > 1 else self._looks
        return first[0], last[0], {part: last[1][part] - first[1][part] for part in last[1]}

    def _watch(self) -> None:
        self._look()
        while not self._ended.wait(EVERY_S):
            self._look()
        self._look()

    def _look(self) -> None:
        parts = cpu_by_part(self._model_server)
        parts["driver"] -= time.thread_time()  # what the looking itself takes
        self._looks.append((time.time(), parts))

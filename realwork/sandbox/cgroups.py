"""The processes of a container as this machine sees them.

Guarantees: nothing inside the container is asked or believed; where this process may not look, or the engine is on
another machine, there is nothing to be seen.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def processes(container_id: str, pid: int) -> Iterator[int]:
    """Those of the container whose first one is `pid`, as this machine numbers them. Blocks."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            controller, path = line.split(":", 2)[1:]
            if container_id in path and controller in ("pids", ""):
                for file in (_CGROUPS / controller / path.lstrip("/")).rglob("cgroup.procs"):
                    yield from map(int, file.read_text().split())


def is_alone(container_id: str, pid: int) -> bool:
    """Whether nothing but its first process, `pid`, is seen to run in the container. Blocks."""
    return list(processes(container_id, pid)) == [pid]

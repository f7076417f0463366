"""What a container holds of this machine's disk beyond what its engine counts: files that are deleted but still open,
and volumes.

Guarantees: nothing inside the container is asked or believed, and none of its links is followed. Where this process may
not look, or the engine is on another machine, there is nothing to be seen; nor is a file seen that is on its way from
one process to another, or one of more than `MOST_OPEN`.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from realwork.sandbox.cgroups import processes

BLOCK_BYTES = 512
"""The unit of `st_blocks`."""
MOST_OPEN = 50_000
"""Open and mapped files of a container that are looked at."""


def hidden_bytes(found: Mapping[str, Any], *, with_volumes: bool = True) -> int:
    """Bytes on the disk, 0 where they cannot be seen; `found` is what the engine says of the container. Blocks."""
    pid = found["State"]["Pid"]
    volumes = [str(mount.get("Source") or "") for mount in found.get("Mounts") or [] if mount.get("Type") == "volume"]
    total = _deleted_bytes(processes(found["Id"], pid), _devices_in_memory(pid))
    return total + sum(map(_folder_bytes, filter(None, volumes if with_volumes else [])))


def _devices_in_memory(pid: int) -> set[int]:
    """Of the file systems in memory that the process sees, and of that of files which were never on one."""
    file = os.memfd_create("any")
    try:
        devices = {os.fstat(file).st_dev}
    finally:
        os.close(file)
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
            mount, _, kind = line.partition(" - ")
            if kind.startswith("tmpfs "):
                major, minor = mount.split()[2].split(":")
                devices.add(os.makedev(int(major), int(minor)))
    return devices


def _deleted_bytes(pids: Iterator[int], in_memory: set[int]) -> int:
    """Of files that a process has open or mapped and that have no name any more."""
    sizes: dict[tuple[int, int], int] = {}
    for path in islice(_open_files(pids), MOST_OPEN):
        with suppress(OSError):
            if os.readlink(path).endswith(" (deleted)"):  # noqa: PTH115 - one of very many
                file = os.stat(path)  # noqa: PTH116
                if stat.S_ISREG(file.st_mode) and file.st_nlink == 0 and file.st_dev not in in_memory:
                    sizes[file.st_dev, file.st_ino] = file.st_blocks * BLOCK_BYTES
    return sum(sizes.values())


def _open_files(pids: Iterator[int]) -> Iterator[str]:
    for pid in set(pids):
        for folder in ("fd", "map_files"):
            with suppress(OSError), os.scandir(f"/proc/{pid}/{folder}") as entries:
                for entry in entries:
                    yield entry.path


def _folder_bytes(path: str) -> int:
    """Of what stands below a folder of this machine."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += os.lstat(f"{folder}/{name}").st_blocks * BLOCK_BYTES
    return total

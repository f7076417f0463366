"""The labels every container of ours bears, and what they say about the life of its owner.

Guarantees: a container without the owner label or our name is not ours. An owner counts as dead only when that is
certain: its process id belongs to nobody or to a younger process, in the very pid namespace and host it was started in.
Nothing but the standard library is loaded, for the sake of `reaper`.
"""

import json
import math
import os
import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

RUN = "realwork.run"
ROLLOUT = "realwork.rollout"
ATTEMPT = "realwork.attempt"
NODE = "realwork.node"
OWNER = "realwork.owner"
DRIVER = "realwork.driver"
DEADLINE = "realwork.deadline"
LEASE = "realwork.lease"
PREFIX = "/realwork-"
"""How the names of our containers begin, as the engine lists them."""


class Owner(NamedTuple):
    """The process that opened a container, told apart from every other on every host and boot.

    Attributes:
        started: when it was started, in clock ticks since boot.
        pid_namespace: the kernel's name of the namespace in which `pid` means something.
    """

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    started: int

    def as_label(self) -> str:
        """The value of a label; see `_owner`."""
        return json.dumps(self._asdict())


def this_process() -> Owner:
    """The owner that this process is."""
    return Owner(
        host=socket.gethostname(),
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
        pid=os.getpid(),
        started=_started(os.getpid()) or 0,
    )


def own_labels(deadline_s: float) -> dict[str, str]:
    """Owner, deadline (seconds since the epoch) and a lease that no other container bears."""
    return {
        OWNER: this_process().as_label(),
        DEADLINE: str(math.ceil(time.time() + deadline_s)),
        LEASE: uuid.uuid4().hex,
    }


def is_own(container: Mapping[str, Any]) -> bool:
    """Whether a listed container is ours, not made by somebody of an image that has our labels."""
    return bool(container["Labels"].get(OWNER)) and any(name.startswith(PREFIX) for name in container["Names"] or ())


def is_abandoned(labels: Mapping[str, str], *, grace_s: float = 0.0) -> bool:
    """Whether owner or driver is dead, or the deadline past by `grace_s`; labels nobody can read count as neither."""
    try:
        if float(labels[DEADLINE]) + grace_s < time.time():
            return True
        return any(_is_dead(_owner(labels[name])) for name in (OWNER, DRIVER) if labels.get(name))
    except (KeyError, ValueError):
        return False


def _owner(label: str) -> Owner:
    fields = json.loads(label)
    try:
        host, boot_id, pid_namespace = (str(fields[name]) for name in ("host", "boot_id", "pid_namespace"))
        return Owner(host, boot_id, pid_namespace, int(fields["pid"]), int(fields["started"]))
    except TypeError as error:
        raise ValueError(f"{label!r} names no owner") from error


def _is_dead(owner: Owner) -> bool:
    here = this_process()
    if owner.host != here.host:
        return False
    if owner.boot_id != here.boot_id:
        return True
    if owner.pid_namespace != here.pid_namespace:
        return False
    started = _started(owner.pid)
    return started != owner.started if started is not None else not _exists(owner.pid)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def _started(pid: int) -> int | None:
    """Start time of a process, -1 of a zombie; null when it cannot be read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return -1 if fields[0] in "ZX" else int(fields[19])


def _exists(pid: int) -> bool:
    """Whether there is such a process, also where `/proc` hides those of others."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""What a sandbox may use and do: secure by default, settable for the run and for each environment.

Guarantees: limits that exist can be asked of an engine; whether it can enforce them is said by `sandbox.abilities`.
"""

import difflib
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from realwork.fields import LARGEST_COUNT, Count, Line, Section

MOST_PIDS = 1 << 22
"""No kernel has more processes."""
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID")
"""What dpkg, apt and pip need as root, and KILL to end processes of other users inside. Not among them: NET_RAW
(forged packets), MKNOD (devices), SYS_CHROOT, SETPCAP, SETFCAP, AUDIT_WRITE, NET_BIND_SERVICE."""
NAMES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)
"""Every capability of Linux, in the order of their bits."""


def _capability(value: str) -> str:
    if value in NAMES:
        return value
    near = difflib.get_close_matches(value.upper().removeprefix("CAP_"), NAMES, n=1)
    example = f"did you mean '{near[0]}'?" if near else "such as 'NET_RAW'"
    raise ValueError(f"must be a capability of Linux, in capitals and without CAP_; {example}")


def _user(value: str) -> str:
    if not re.fullmatch(r"([A-Za-z_][\w.-]*|\d+)(:([A-Za-z_][\w.-]*|\d+))?", value):
        raise ValueError("must be a user of the image, by name or number, with or without a group, such as 1000:1000")
    return value


def _network(value: str) -> str:
    if value in ("host", "default") or value.startswith("container:"):
        raise ValueError(
            f"cannot be '{value}', by which an agent would share a network with what is not its own; "
            "take none, bridge or the name of a network of the engine"
        )
    return value


Network = Annotated[Line, AfterValidator(_network)]


class SandboxLimits(Section):
    """What one sandbox may use and do."""

    network: Network = "none"
    """Network while the agent works and the tests run: none, bridge or the name of a network of the engine."""
    memory_mib: Annotated[int, Field(ge=16, le=LARGEST_COUNT)] = 2048
    """Memory of a sandbox, swap included."""
    cpus: Annotated[float, Field(gt=0, le=4096)] = 1.0
    """Cores a sandbox may use."""
    pids: Annotated[int, Field(ge=8, le=MOST_PIDS)] = 512
    """Most processes of a sandbox."""
    disk_mib: Annotated[int, Field(ge=16, le=LARGEST_COUNT)] | None = 10240
    """What a sandbox may write to disk beyond its image, of which init commands are a part; past it the episode ends
    with `disk_limit` and is graded. Null: no bound."""
    shm_mib: Count = 64
    """Size of `/dev/shm`."""
    output_limit_kib: Count = 64
    """Kept of each stream of a command: head and tail."""
    capabilities: list[Annotated[str, AfterValidator(_capability)]] = list(CAPABILITIES)
    """Linux capabilities of root in a sandbox, without `CAP_`; all others are dropped."""
    user: Annotated[Line, AfterValidator(_user)] | None = None
    """Who the agent and the tests are: a user of the image (`name`, `1000` or `1000:1000`), to whom the working
    directory is given once root has set everything up. Null: root, with `capabilities`."""
    read_only: bool = False
    """Whether only the working directory, `/tmp` (in memory, at most half of it) and `/dev/shm` can be written."""
    runtime: Line | None = None
    """Another OCI runtime of the engine, such as runsc or kata."""

    @property
    def output_limit_bytes(self) -> int:
        return self.output_limit_kib << 10

    @property
    def needed_capabilities(self) -> tuple[str, ...]:
        """`capabilities`, and what our own root needs to set up for another user and to end its processes."""
        ours: tuple[str, ...] = ()
        if self.user is not None:
            ours = ("CHOWN", "DAC_OVERRIDE", "KILL")
        elif "SETUID" in self.capabilities:
            ours = ("KILL",)
        return tuple(dict.fromkeys((*self.capabilities, *ours)))

"""What an engine can enforce, and what it cannot, from what it says of itself.

Guarantees: whether it bounds the disk use of a container is tried once for an engine, on a container that never starts;
nothing else is changed or started.
"""

import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from realwork.errors import ImageError, SandboxError
from realwork.sandbox import labels
from realwork.sandbox.engine import Engine
from realwork.types import Record

DISK_QUOTA = "disk_quota"
QUOTA_DRIVERS = ("btrfs", "zfs", "devicemapper")
OWN_KERNELS = ("runsc", "kata")
TRY_S = 30.0
_BY_KEY = (
    ("MemoryLimit", "memory", "limits of memory"),
    ("SwapLimit", "swap", "limits of swap: a sandbox may swap beyond its memory"),
    ("CpuCfsQuota", "cpu", "limits of CPU"),
    ("PidsLimit", "pids", "limits of processes"),
)


class Shortcoming(Record):
    """Something that an engine cannot enforce.

    Attributes:
        name: short, for rows.
        sentence: for people; it completes "the engine does not enforce".
    """

    name: str
    sentence: str


class Abilities(Record):
    """What an engine said of itself.

    Attributes:
        engine_id: what tells this engine from every other.
        version: of the engine, with storage driver and cgroup version.
        runtimes: its OCI runtimes by name.
    """

    engine_id: str
    version: str
    runtimes: tuple[str, ...]
    has_disk_quota: bool
    shortcomings: tuple[Shortcoming, ...]

    @property
    def not_enforced(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.shortcomings)

    @property
    def own_kernel_runtimes(self) -> tuple[str, ...]:
        """The runtimes in which a sandbox does not share the kernel of its host."""
        return tuple(name for name in self.runtimes if any(part in name for part in OWN_KERNELS))


async def abilities(engine: Engine, image: str | None) -> Abilities:
    """What `engine` can enforce; asked once for a connection.

    Args:
        image: one that the engine has, to try its disk quota with; without one it counts as having none.

    Raises:
        ImageError: the engine does not have `image`, which was needed.
        SandboxError: the engine does not answer.
    """
    async with engine.lock("abilities"):
        if engine.abilities is None:
            info: dict[str, Any] = await engine.call("asking the engine", engine.client.info)
            may_have_quota = _may_have_disk_quota(info)
            has_quota = may_have_quota and image is not None and await _takes_disk_size(engine, image)
            found = read_abilities(info, has_disk_quota=has_quota)
            if may_have_quota and image is None:
                return found
            engine.abilities = found
    assert isinstance(engine.abilities, Abilities)
    return engine.abilities


def read_abilities(info: Mapping[str, Any], *, has_disk_quota: bool) -> Abilities:
    """The abilities of an engine from its `info`."""
    missing = [Shortcoming(name=name, sentence=sentence) for key, name, sentence in _BY_KEY if not info.get(key)]
    if not has_disk_quota:
        sentence = "a quota on disk use: it is measured every few seconds instead, and may be passed for that long"
        missing.append(Shortcoming(name=DISK_QUOTA, sentence=sentence))
    security: Sequence[str] = info.get("SecurityOptions") or ()
    if not any("name=seccomp" in option and "unconfined" not in option for option in security):
        missing.append(Shortcoming(name="seccomp", sentence="a filter of system calls (seccomp)"))
    if not any("name=userns" in option or "name=rootless" in option for option in security):
        sentence = "user namespaces: root in a sandbox has root's number on this machine, without root's capabilities"
        missing.append(Shortcoming(name="user_namespaces", sentence=sentence))
    return Abilities(
        engine_id=str(info.get("ID") or ""),
        version=f"{info['ServerVersion']}, {info['Driver']}, cgroup v{info.get('CgroupVersion', '1')}",
        runtimes=tuple(info.get("Runtimes") or ()),
        has_disk_quota=has_disk_quota,
        shortcomings=tuple(missing),
    )


def _may_have_disk_quota(info: Mapping[str, Any]) -> bool:
    status = dict(each for each in info.get("DriverStatus") or () if len(each) == 2)
    return info["Driver"] in QUOTA_DRIVERS or status.get("Backing Filesystem") == "xfs"


async def _takes_disk_size(engine: Engine, image: str) -> bool:
    """Whether a container with a disk size can be made; on xfs that depends on how it is mounted."""
    try:
        await engine.call_within(TRY_S, f"trying a disk quota with {image}", partial(_create_sized, engine, image))
    except ImageError:
        raise
    except SandboxError:
        return False
    return True


def _create_sized(engine: Engine, image: str) -> None:
    client = engine.client
    container_id = client.create_container(
        image,
        name=f"realwork-check-{uuid.uuid4().hex[:12]}",
        entrypoint=["/bin/sh"],
        labels=labels.own_labels(TRY_S),
        host_config=client.create_host_config(network_mode="none", storage_opt={"size": "1G"}),
    )["Id"]
    client.remove_container(container_id, force=True, v=True)

"""What Ray alone costs, and a Ray of several nodes on this machine, for benchmarks."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray.cluster_utils import Cluster

from realwork.errors import InputError

OBJECT_STORE_MIB = 128
BARE_START = """\
import logging, sys, time, ray
settings = {"include_dashboard": False} if sys.argv[1] == "local" else {}
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR, **settings)
class Idle:
    def answer(self):
        return True
ray.get(ray.remote(Idle).options(num_cpus=0).remote().answer.remote())
print(time.monotonic(), flush=True)
"""
"""A program that prints when an actor has given its first answer, on a Ray at the given address, or `local`."""


def bare_task() -> Callable[[], Awaitable[None]]:
    """A call of a Ray task that does nothing."""
    task = ray.remote(_nothing).options(num_cpus=0.25)
    return task.remote


def _nothing() -> None:
    return


@contextmanager
def several_local_nodes(count: int, *, memory_mib: int) -> Iterator[str]:
    """The address of a Ray of `count` nodes on this machine, each with that much to give, for the length of the block.

    Its files are its own, so that `auto` goes on to mean the Ray that it meant.

    Raises:
        InputError: it cannot be started.
    """
    options: dict[str, Any] = {"num_cpus": 2, "memory": memory_mib << 20, "object_store_memory": OBJECT_STORE_MIB << 20}
    with TemporaryDirectory(prefix="rw-ray-", ignore_cleanup_errors=True) as folder:
        try:
            cluster = Cluster(
                initialize_head=True, head_node_args=options | {"include_dashboard": False, "temp_dir": folder}
            )
            for _ in range(count - 1):
                cluster.add_node(**options)
        except (RuntimeError, OSError, TimeoutError) as error:
            raise InputError(f"a Ray of {count} nodes cannot be started: {error}") from error
        try:
            yield str(cluster.address)
        finally:
            cluster.shutdown()  # type: ignore[no-untyped-call]

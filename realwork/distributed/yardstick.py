"""What Ray alone costs, for benchmarks."""

from collections.abc import Awaitable, Callable

import ray


def bare_task() -> Callable[[], Awaitable[None]]:
    """A call of a Ray task that does nothing."""
    task = ray.remote(_nothing).options(num_cpus=0.25)
    return task.remote


def _nothing() -> None:
    return

"""Work that is carried to its end although the task that waits for it is cancelled.

Guarantees: when `uncancelled` returns or raises, the work has ended, or was given up because it took too long after
the cancellation. A cancellation that came meanwhile is raised then.
"""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uncancelled(work: Coroutine[Any, Any, T], *, patience_s: float = 10.0) -> T:
    """What `work` returns or raises; after a cancellation, or several, it has `patience_s` to come to its end."""
    task = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    give_up_at = float("inf")
    while not task.done():
        left = give_up_at - time.monotonic()
        if left <= 0:
            task.cancel()
        try:
            await asyncio.wait({task}, timeout=left if 0 < left < float("inf") else None)
        except asyncio.CancelledError as error:
            if cancellation is None:
                give_up_at = time.monotonic() + patience_s
            cancellation = error
    if cancellation is not None:
        if not task.cancelled():
            task.exception()
        raise cancellation
    return task.result()

"""Work that is carried to its end although the task that waits for it is cancelled.

Guarantees: when `uncancelled` returns or raises, the work has ended. A cancellation that came meanwhile is raised then.
The work must bound its own time.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uncancelled(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns or raises; it runs to its end even if the caller is cancelled, once or several times."""
    task = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        if not task.cancelled():
            task.exception()
        raise cancellation
    return task.result()

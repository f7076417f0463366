"""The snapshots of one attempt: when one is due, and which of them stay.

Guarantees: a snapshot never fails an attempt; it begins when a step has ended, and the next action waits for it; none
is taken when nothing can have changed since the last one; when the block is left, none is being taken or removed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

from realwork.errors import SandboxError
from realwork.sandbox.base import Sandbox
from realwork.types import Snapshot, Step

log = logging.getLogger(__name__)

WORTH_S = 60.0
"""So much of an episode is worth more than a snapshot costs."""
_CARRIED_OUT = ("ok", "error", "timeout")
OnSnapshot = Callable[[int, Snapshot], Awaitable[None]]


class Snapshots:
    """Takes snapshots of `sandbox` every `interval` steps, or, if that is null, when much would be lost without.

    Args:
        is_wanted: whether any is taken.
        keep: whether every one stays; else the newest alone.
        begun: steps that were taken before, in another sandbox.
        on_snapshot: told of each, with the index of the step after which it was taken.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        interval: int | None,
        is_wanted: bool = True,
        keep: bool,
        begun: int = 0,
        on_snapshot: OnSnapshot,
    ) -> None:
        self._sandbox = sandbox
        self._interval = interval
        self._is_wanted = is_wanted
        self._keep = keep
        self._on_snapshot = on_snapshot
        self._looked_at = begun
        self._newest: Snapshot | None = None
        self._taking: asyncio.Task[None] | None = None
        self._removing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        tasks = {*self._removing, *([self._taking] if self._taking else [])}
        if kind is not None:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def after_step(self, steps: Sequence[Step]) -> None:
        """Begin a snapshot if one is due after the last of `steps`."""
        new = steps[self._looked_at :]
        if not self._is_wanted or not self._is_due(len(steps), new):
            return
        if any(each.status in _CARRIED_OUT for step in new for each in step.observations):
            self._looked_at = len(steps)
            self._taking = asyncio.create_task(self._take(len(steps) - 1))

    def _is_due(self, taken: int, new: Sequence[Step]) -> bool:
        if self._interval is not None:
            return taken % self._interval == 0
        return sum(step.llm_s + step.env_s for step in new) >= WORTH_S

    async def settled(self) -> None:
        """Return when the sandbox may be used again."""
        if self._taking is not None:
            await self._taking

    async def _take(self, index: int) -> None:
        try:
            snapshot = await self._sandbox.snapshot(keep=self._keep)
        except SandboxError as error:
            log.warning("No snapshot after step %d, nor later in this attempt: %s", index, error)
            snapshot = None
        if snapshot is None:
            self._is_wanted = False
            return
        await self._on_snapshot(index, snapshot)
        older, self._newest = self._newest, snapshot
        if older is not None and not self._keep:
            task = asyncio.create_task(self._remove(older))
            self._removing.add(task)
            task.add_done_callback(self._removing.discard)

    async def _remove(self, snapshot: Snapshot) -> None:
        try:
            await self._sandbox.remove_snapshot(snapshot.id)
        except SandboxError as error:
            log.warning("A snapshot is left for the end of the rollout: %s", error)

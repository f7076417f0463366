"""How a run is stopped before its end: nothing more is started, what is in flight is cut, and what is stuck killed."""

import asyncio

from realwork.distributed.dispatcher import Dispatcher
from realwork.distributed.fleet import Fleet

GRACE_S = 15.0


class Stopping:
    """The end of one run.

    Attributes:
        grace_s: for what is in flight to end by itself.
        event: set as soon as the run is to end.
        why: why it cannot go on, null if it can, or was interrupted.
        is_interrupted: whether somebody wanted it to end.
    """

    def __init__(self, dispatcher: Dispatcher, fleet: Fleet) -> None:
        self._dispatcher = dispatcher
        self._fleet = fleet
        self._cutting: asyncio.Task[None] | None = None
        self.grace_s = GRACE_S
        self.event = asyncio.Event()
        self.why: str | None = None
        self.is_interrupted = False

    @property
    def is_set(self) -> bool:
        """Whether the run is to end."""
        return self.event.is_set()

    def interrupt(self) -> None:
        """Stop it because somebody wants so."""
        self.is_interrupted = True
        self.stop()

    def stop(self, why: str | None = None) -> None:
        """Start nothing more and cut what is in flight; what does not end by itself is killed after `grace_s`."""
        self.why = self.why or why
        self.event.set()
        self._fleet.stop()
        self._dispatcher.stop()
        if self._cutting is None:
            self._cutting = asyncio.create_task(self._cut())

    async def _cut(self) -> None:
        await asyncio.sleep(self.grace_s)
        self._fleet.cut()

    def end(self) -> None:
        """Nothing is in flight any more."""
        if self._cutting is not None:
            self._cutting.cancel()

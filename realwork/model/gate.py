"""When a rollout may ask its endpoint: not while the endpoint wants a pause, nor faster than the run may."""

import asyncio
import random
import time
from typing import Protocol

from realwork.types import Usage

SPREAD_S = 0.5
"""Those who waited do not all ask in the same moment."""


class Gate(Protocol):
    """What all conversations of a run pass before each request."""

    async def ready(self, within_s: float) -> None:
        """Wait until a request may be sent.

        Raises:
            TimeoutError: that takes longer than `within_s`; raised as soon as it is known.
        """

    def pause(self, seconds: float) -> None:
        """Let nobody send a request for that long: the endpoint has asked for it."""

    def used(self, usage: Usage) -> None:
        """Count what an accepted reply has used."""


class LocalGate:
    """The pauses of one process; no budgets."""

    def __init__(self) -> None:
        self._open_at = 0.0

    async def ready(self, within_s: float) -> None:
        """See `Gate.ready`."""
        end = time.monotonic() + within_s
        while (left_s := self._open_at - time.monotonic()) > 0:
            await sleep(left_s + random.uniform(0.0, min(SPREAD_S, left_s)), end - time.monotonic())

    def pause(self, seconds: float) -> None:
        """See `Gate.pause`."""
        self._open_at = max(self._open_at, time.monotonic() + seconds)

    def used(self, usage: Usage) -> None:
        """See `Gate.used`."""


async def sleep(wait_s: float, within_s: float) -> None:
    """Sleep for `wait_s`.

    Raises:
        TimeoutError: at once, if that is longer than `within_s`.
    """
    if wait_s >= within_s:
        raise TimeoutError
    await asyncio.sleep(wait_s)

"""What a rollout in flight is doing, for whoever wants to look while it goes on.

Guarantees: looking changes nothing; what is noted costs a microsecond.
"""

import time
from collections.abc import Callable

from realwork.types import Doing, Phase, Step

LONGEST_DETAIL = 200


class Activity:
    """What one rollout is doing; `on_step` is told of each step that it has taken."""

    def __init__(self, on_step: Callable[[Step], None] | None = None) -> None:
        self._on_step = on_step
        self.begin("waiting")

    def begin(self, phase: Phase, *, step: int = 0, detail: str = "") -> None:
        """Note that another phase begins."""
        self._phase: Phase = phase
        self._step, self._detail, self._began = step, detail, time.monotonic()

    def took(self, step: Step) -> None:
        """Tell of a step that is over."""
        if self._on_step is not None:
            self._on_step(step)

    @property
    def now(self) -> Doing:
        return Doing(
            phase=self._phase,
            step=self._step,
            detail=self._detail[:LONGEST_DETAIL],
            seconds=time.monotonic() - self._began,
        )

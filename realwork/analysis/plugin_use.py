"""How often plugins were called and how long that took, from what rows and runs say of it. Memory is flat."""

import math
from collections import Counter
from typing import Any

from realwork.types import Record

_WIDTH = 1.02
"""Seconds of a call are counted in classes, each so much wider than the one before."""
_SHORTEST_S = 1e-5


class PluginStats(Record):
    """The calls of one plugin.

    Attributes:
        errors: calls that gave no usable answer.
        mean_s, p95_s: seconds of a call as the rollout saw it, null where there was none; the second within 2%.
        replaced_rewards: attempts whose reward is the plugin's, not the tests' own.
        stopped: environments that it stopped, after so many episodes.
        strategy: what it set for the next rollouts of an environment, by that.
    """

    calls: int
    errors: int
    mean_s: float | None
    p95_s: float | None
    replaced_rewards: int = 0
    stopped: dict[str, int] = {}
    strategy: dict[str, dict[str, float]] = {}


class PluginUse:
    """Sums over the calls of one plugin."""

    def __init__(self) -> None:
        self._calls = self._errors = 0
        self._seconds = 0.0
        self._classes: Counter[int] = Counter()
        self._replaced_rewards = 0
        self._stopped: dict[str, int] = {}
        self._strategy: dict[str, dict[str, float]] = {}

    def add(self, said: dict[str, Any]) -> None:
        """Take note of what a row, or a run, says of the plugin's calls."""
        self._calls += int(said.get("calls", 0))
        self._errors += int(said.get("errors", 1 if said.get("error") else 0))
        self._seconds += float(said.get("seconds", 0.0))
        self._classes.update(_class(float(seconds)) for seconds in said.get("call_s", ()))
        self._replaced_rewards += "replaced_reward" in said
        self._stopped |= said.get("stopped", {})
        self._strategy |= said.get("strategy", {})

    def merge(self, other: "PluginUse") -> None:
        """Take those of `other` into the sums."""
        self._calls += other._calls
        self._errors += other._errors
        self._seconds += other._seconds
        self._classes += other._classes
        self._replaced_rewards += other._replaced_rewards
        self._stopped |= other._stopped
        self._strategy |= other._strategy

    def stats(self) -> PluginStats:
        mean_s = self._seconds / self._calls if self._calls else None
        return PluginStats(
            calls=self._calls,
            errors=self._errors,
            mean_s=mean_s,
            p95_s=self._quantile(0.95),
            replaced_rewards=self._replaced_rewards,
            stopped=self._stopped,
            strategy=self._strategy,
        )

    def _quantile(self, share: float) -> float | None:
        left = math.ceil(share * self._classes.total())
        for number in sorted(self._classes):
            left -= self._classes[number]
            if left <= 0:
                return float(_SHORTEST_S * _WIDTH**number)
        return None


def _class(seconds: float) -> int:
    return max(0, math.ceil(math.log(max(seconds, _SHORTEST_S) / _SHORTEST_S, _WIDTH)))

"""The course of a run: what had come of it at some points in time. Pure."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from realwork.types import Record

POINTS = 160
"""Most points of a curve."""
_WINDOW_SHARE = 20
_SMALLEST_WINDOW = 8


class Curves(Record):
    """The course of a run; each list has one value per point.

    Attributes:
        time_s: since the run began.
        passed, failed, ungraded: rollouts until then.
        success_rate, mean_reward: over the graded rollouts of a window that ends there; null while there is none.
        window: graded rollouts in it.
        tokens, cost_usd: spent until then, all attempts; no cost where none is known.
    """

    time_s: list[float]
    passed: list[int]
    failed: list[int]
    ungraded: list[int]
    success_rate: list[float | None]
    mean_reward: list[float | None]
    window: int
    tokens: list[int]
    cost_usd: list[float] | None


def curves(every: pa.Table) -> Curves:
    """The course of the run whose attempts are these, from its beginning on; nothing before the first of them."""
    every = every.sort_by("ended_at")
    began = pc.min(every.column("started_at")).as_py()
    names = ("ended_at", "outcome", "reward", "counts", "total_tokens", "total_cost_usd")
    ended, outcomes, rewards, counts, tokens, costs = (every.column(name).to_pylist() for name in names)
    outcomes = [outcome if count else "" for outcome, count in zip(outcomes, counts, strict=True)]
    totals = {name: _sums(outcome == name for outcome in outcomes) for name in ("passed", "failed", "ungraded")}
    graded = [place for place, outcome in enumerate(outcomes) if outcome in ("passed", "failed")]
    window = max(_SMALLEST_WINDOW, len(graded) // _WINDOW_SHARE)
    rates = _moving([float(outcomes[place] == "passed") for place in graded], window)
    means = _moving([rewards[place] or 0.0 for place in graded], window)
    seen = _sums(outcome in ("passed", "failed") for outcome in outcomes)
    spent, paid = _sums(tokens), _sums(cost or 0.0 for cost in costs)
    points = _points(len(ended))
    return Curves(
        time_s=[(ended[point - 1] - began).total_seconds() if point else 0.0 for point in points],
        passed=[totals["passed"][point] for point in points],
        failed=[totals["failed"][point] for point in points],
        ungraded=[totals["ungraded"][point] for point in points],
        success_rate=[rates[seen[point] - 1] if seen[point] else None for point in points],
        mean_reward=[means[seen[point] - 1] if seen[point] else None for point in points],
        window=min(window, len(graded)),
        tokens=[spent[point] for point in points],
        cost_usd=[paid[point] for point in points] if any(cost is not None for cost in costs) else None,
    )


def _sums(values: Iterable[Any]) -> list[Any]:
    """What the first 0, 1, 2 and more of them come to."""
    return [*accumulate(values, initial=0)]


def _moving(values: Sequence[float], window: int) -> list[float]:
    """The mean of the last `window` values at each of them."""
    sums = [0.0, *accumulate(values)]
    return [
        (sums[end] - sums[max(0, end - window)]) / (end - max(0, end - window)) for end in range(1, len(values) + 1)
    ]


def _points(count: int) -> list[int]:
    """How many of `count` attempts each point of a curve has behind it: evenly spread, from none to all."""
    if not count:
        return []
    points = min(count, POINTS)
    return [number * count // points for number in range(points + 1)]

"""The course of a run: what had come of it at some points in time. Pure."""

from collections.abc import Sequence
from itertools import accumulate

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
        hours: since the run began.
        passed, failed, ungraded: rollouts until then.
        success_rate, mean_reward: over the graded rollouts of a window that ends there; null while there is none.
        window: graded rollouts in it.
        tokens, cost_usd: spent until then, all attempts; no cost where none is known.
    """

    hours: list[float]
    passed: list[int]
    failed: list[int]
    ungraded: list[int]
    success_rate: list[float | None]
    mean_reward: list[float | None]
    window: int
    tokens: list[int]
    cost_usd: list[float] | None


def curves(every: pa.Table) -> Curves:
    """The course of the run whose attempts are these."""
    every = every.sort_by("ended_at")
    began = pc.min(every.column("started_at")).as_py()
    names = ("ended_at", "outcome", "reward", "counts", "total_tokens", "total_cost_usd")
    ended, outcomes, rewards, counts, tokens, costs = (every.column(name).to_pylist() for name in names)
    outcomes = [outcome if count else "" for outcome, count in zip(outcomes, counts, strict=True)]
    totals = {name: [*accumulate(outcome == name for outcome in outcomes)] for name in ("passed", "failed", "ungraded")}
    graded = [place for place, outcome in enumerate(outcomes) if outcome in ("passed", "failed")]
    window = max(_SMALLEST_WINDOW, len(graded) // _WINDOW_SHARE)
    rates = _moving([float(outcomes[place] == "passed") for place in graded], window)
    means = _moving([rewards[place] or 0.0 for place in graded], window)
    seen = [*accumulate(outcome in ("passed", "failed") for outcome in outcomes)]
    points = _points(len(ended))
    spent = [*accumulate(tokens)]
    paid = [*accumulate(cost or 0.0 for cost in costs)]
    return Curves(
        hours=[(ended[place] - began).total_seconds() / 3600 for place in points],
        passed=[totals["passed"][place] for place in points],
        failed=[totals["failed"][place] for place in points],
        ungraded=[totals["ungraded"][place] for place in points],
        success_rate=[rates[seen[place] - 1] if seen[place] else None for place in points],
        mean_reward=[means[seen[place] - 1] if seen[place] else None for place in points],
        window=window,
        tokens=[spent[place] for place in points],
        cost_usd=[paid[place] for place in points] if any(cost is not None for cost in costs) else None,
    )


def _moving(values: Sequence[float], window: int) -> list[float]:
    """The mean of the last `window` values at each of them."""
    sums = [0.0, *accumulate(values)]
    return [
        (sums[end] - sums[max(0, end - window)]) / (end - max(0, end - window)) for end in range(1, len(values) + 1)
    ]


def _points(count: int) -> list[int]:
    """At most `POINTS` places of `count`, evenly spread, the last among them."""
    if count <= POINTS:
        return [*range(count)]
    return [(number + 1) * count // POINTS - 1 for number in range(POINTS)]

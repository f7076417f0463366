"""Where the time of an attempt went, as stretches of a line. Pure."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from realwork.types import Trajectory
from realwork.web.rollout_views import Span


def spans(record: Trajectory) -> Iterator[Span]:
    """What took the time of the attempt, from its start to its end."""
    whole_s = max((record.ended_at - record.started_at) / timedelta(seconds=1), 1e-6)

    def span(kind: Any, began_s: float, took_s: float, label: str, anchor: str) -> Span:
        left = min(1000.0, 1000 * began_s / whole_s)
        width = max(1.0, min(1000.0 - left, 1000 * took_s / whole_s))
        return Span(kind=kind, left=round(left, 2), width=round(width, 2), label=label, anchor=anchor)

    timing = record.timing
    first_s = since(record, record.own_steps[0].started_at) if record.own_steps else whole_s
    if timing.boot_s:
        yield span("boot", max(0.0, first_s - timing.boot_s), timing.boot_s, f"boot {timing.boot_s:.1f} s", "outcome")
    for step in record.own_steps:
        began_s = since(record, step.started_at)
        name, anchor = f"step {step.index}", f"step-{step.index}"
        yield span("llm", began_s, step.llm_s, f"{name}: model {step.llm_s:.1f} s", anchor)
        if step.env_s:
            label = f"{name}: environment {step.env_s:.1f} s"
            yield span("env", began_s + step.llm_s, step.env_s, label, anchor)
    if timing.grade_s:
        label = f"grading {timing.grade_s:.1f} s"
        yield span("grade", max(0.0, whole_s - timing.grade_s), timing.grade_s, label, "tests")


def since(record: Trajectory, moment: datetime) -> float:
    """Seconds from the start of the attempt to `moment`."""
    return max(0.0, (moment - record.started_at).total_seconds())

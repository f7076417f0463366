"""A figure that was measured several times."""

import statistics
from collections.abc import Sequence

from realwork.types import Record


class Spread(Record):
    """The median of several measurements, and how far they lie apart."""

    median: float
    lowest: float
    highest: float


def spread(values: Sequence[float]) -> Spread:
    """Of at least one measurement."""
    return Spread(median=statistics.median(values), lowest=min(values), highest=max(values))

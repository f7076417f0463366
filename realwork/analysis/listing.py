"""The attempts that were asked for, in the order that was asked for, a page at a time."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from realwork.analysis.filters import filtered, ordered
from realwork.analysis.index import RunIndex
from realwork.types import Record


class Asked(Record):
    """What is looked for.

    Attributes:
        filter: terms such as `outcome:failed reward<0.5`.
        text: stands in messages, calls, outputs, tests or the diff.
        sort: a field, downwards after `-`; empty: in the order of the commits.
    """

    filter: str = ""
    text: str = ""
    sort: str = ""


class Line(Record):
    """One attempt in a list."""

    trajectory_id: str
    environment_id: str
    sample_index: int
    attempt: int
    outcome: str
    status: str
    terminated_reason: str
    failure_cause: str | None
    reward: float | None
    tests_passed: int | None
    tests_total: int | None
    n_steps: int
    n_tool_calls: int
    total_tokens: int
    total_cost_usd: float | None
    duration_s: float
    llm_s: float
    env_s: float
    ended_at: datetime
    counts: bool


class Listing:
    """The attempts of a run that `asked` names.

    Args:
        with_text: those in which the text stands, null if none is looked for.

    Raises:
        InputError: what was asked for cannot be understood.
    """

    def __init__(self, index: RunIndex, asked: Asked, with_text: Sequence[str] | None = None) -> None:
        rows = index.table
        if with_text is not None:
            rows = rows.filter(pc.is_in(rows.column("trajectory_id"), pa.array(with_text, pa.string())))
        self._rows = ordered(filtered(rows, asked.filter), asked.sort)

    def __len__(self) -> int:
        size: int = self._rows.num_rows
        return size

    def lines(self, begin: int, count: int) -> list[Line]:
        """So many attempts from the place `begin` on."""
        chosen = self._rows.slice(min(begin, len(self)), count).select([*Line.model_fields])
        return [Line(**row) for row in chosen.to_pylist()]

    def neighbours(self, trajectory_id: str) -> tuple[int | None, str | None, str | None]:
        """The place of an attempt, and the ids before and after it; null where there is none."""
        names = self._rows.column("trajectory_id")
        place: Any = pc.index(names, trajectory_id).as_py()
        if place < 0:
            return None, None, None
        before = names[place - 1].as_py() if place else None
        after = names[place + 1].as_py() if place + 1 < len(names) else None
        return place, before, after


def values(index: RunIndex, column: str) -> list[str]:
    """What stands in a column of short texts, the most frequent first."""
    counted = pc.value_counts(index.table.column(column)).to_pylist()
    there = [(each["counts"], each["values"]) for each in counted if each["values"]]
    return [name for _, name in sorted(there, key=lambda each: (-each[0], each[1]))]

"""Finds a text in what rollouts said, did and got back.

Guarantees: one batch of rows is in memory; of the columns only those with text are read.
"""

from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from realwork.analysis.index import RunIndex

_MESSAGE = "messages.list.element"
_RESULT = "steps.list.element.tool_results.list.element"
_TEST = "test_results.list.element"
_COLUMNS = (
    *(f"{_MESSAGE}.content", f"{_MESSAGE}.reasoning_content"),
    f"{_MESSAGE}.tool_calls.list.element.function.arguments",
    *(f"{_RESULT}.output", f"{_RESULT}.stderr"),
    *(f"{_TEST}.test_output", f"{_TEST}.test_stderr"),
    "final_diff",
)
_LEAVES = (
    ("messages", "content"),
    ("messages", "reasoning_content"),
    ("messages", "tool_calls", "function", "arguments"),
    ("steps", "tool_results", "output"),
    ("steps", "tool_results", "stderr"),
    ("test_results", "test_output"),
    ("test_results", "test_stderr"),
    ("final_diff",),
)
_KEPT = 8


class TextSearch:
    """Searches in the texts of a run, and remembers the last few answers."""

    def __init__(self, index: RunIndex) -> None:
        self._index = index
        self._answers: dict[str, dict[tuple[Path, int], list[str]]] = {}
        self._access = Lock()

    def ids(self, text: str) -> list[str]:
        """The attempts in whose messages, calls, outputs, tests or diff `text` stands, in any case of letters.

        Raises:
            StoreError: a part or a ledger cannot be read.
        """
        with self._access:
            known = self._answers.pop(text, {})
            found = {}
            for place, batch in self._index.texts(_COLUMNS):
                in_part = place[0] != self._index.directory
                found[place] = known[place] if in_part and place in known else _ids(batch, text)
            self._answers[text] = found
            while len(self._answers) > _KEPT:
                del self._answers[next(iter(self._answers))]
        return [name for names in found.values() for name in names]


def _ids(batch: pa.RecordBatch, text: str) -> list[str]:
    hits: set[int] = set()
    for leaf in _LEAVES:
        hits.update(_rows_with(batch.column(leaf[0]), leaf[1:], text))
    names: list[str] = batch.column("trajectory_id").take(pa.array(sorted(hits), pa.int64())).to_pylist()
    return names


def _rows_with(column: Any, path: Iterable[str], text: str) -> list[int]:
    """The rows of a nested column in whose leaf `text` stands."""
    rows = pa.array(range(len(column)), pa.int64())
    for name in (None, *path):
        if name is not None:
            column = column.field(name)
        if pa.types.is_list(column.type):
            rows = rows.take(pc.list_parent_indices(column))
            column = column.flatten()
    has_text = pc.match_substring(column, text, ignore_case=True)
    found: list[int] = rows.filter(pc.fill_null(has_text, fill_value=False)).to_pylist()
    return found

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
_Part = tuple[Path, tuple[int, int]]
"""A part, and what changes when it does."""


class TextSearch:
    """Searches in the texts of a run, and remembers what the last few searches found in its parts."""

    def __init__(self, index: RunIndex) -> None:
        self._index = index
        self._found: dict[str, dict[_Part, list[str]]] = {}
        self._access = Lock()

    def ids(self, text: str) -> list[str]:
        """The attempts in whose messages, calls, outputs, tests or diff `text` stands, in any case of letters.

        Raises:
            StoreError: a part or a ledger cannot be read.
        """
        with self._access:
            known = self._found.pop(text, {})
            found = {part: known[part] if part in known else self._in(part[0], text) for part in self._parts()}
            self._found[text] = found
            while len(self._found) > _KEPT:
                del self._found[next(iter(self._found))]
        names = [name for part in found.values() for name in part]
        return names + self._in(None, text)

    def _parts(self) -> list[_Part]:
        return sorted(self._index.parts().items())

    def _in(self, part: Path | None, text: str) -> list[str]:
        return [name for batch in self._index.texts(part, _COLUMNS) for name in _ids(batch, text)]


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

"""Every row of the dataset as a line of JSON, with all columns. Pure functions over the Parquet.

Times are ISO 8601 in UTC; the columns that hold JSON stay text; a number that JSON cannot say is null.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from realwork.analysis.export.files import Exported, Json, exported, write_json_lines
from realwork.dataset.read import rows


def export_jsonl(directory: Path, output: Path) -> Exported:
    """Write every row of `directory` to `output`, in the order of the commits, failed attempts included.

    Raises:
        InputError: there is no run, it has no rows, or `output` is no place for a file.
        StoreError: a part cannot be read, or the file cannot be written.
    """
    nothing = f"{directory} has no rows yet, so there is nothing to export."
    entries: Iterator[Json] = (_plain(row) for row in rows(directory))
    return exported(write_json_lines(output, entries, nothing=nothing), {})


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case list() if value and isinstance(value[0], dict):
            return [_plain(each) for each in value]
    return value

"""Puts the small parts of a run together into larger ones.

Guarantees: nothing is lost or doubled by a kill at any point, as the ledger says what a compaction is at and whatever
opens the ledger next brings it to its end; rows keep their order. While it goes on, a reader of the folder may see rows
twice, so nobody should read then; a run that is at work is refused.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from realwork.dataset.durable import durable_file
from realwork.dataset.ledger import Ledger
from realwork.dataset.merging import finish_merge, ready_file
from realwork.dataset.parts import FOLDER, SAMPLES_FOLDER, part_name, scan, write
from realwork.dataset.schema import SAMPLE_SCHEMA, SCHEMA
from realwork.dataset.sealing import DEFAULTS, ledgers
from realwork.errors import StoreError, blame
from realwork.faultpoints import pass_through

_SCHEMAS = {FOLDER: SCHEMA, SAMPLES_FOLDER: SAMPLE_SCHEMA}
_BATCH_ROWS = 64


class Compacted(NamedTuple):
    """How many parts there were, and are now."""

    before: int
    after: int


def compact(directory: Path) -> Compacted:
    """Rewrite the parts of the run in `directory`, which is held, so that each is as large as one of a busy store.

    Raises:
        StoreError: a run is at work there, or a part cannot be read or written.
    """
    before = after = 0
    with ledgers(directory, wait_s=0.0) as found:
        for ledger, sealer in found:
            sealer.seal_all()
            numbers = sorted(number for number, sealed in ledger.parts.numbers().items() if sealed)
            groups = [*_groups(directory, numbers)]
            for group in groups:
                if len(group) > 1:
                    _merge(directory, ledger, group)
            before, after = before + len(numbers), after + len(groups)
    return Compacted(before, after)


def _groups(directory: Path, numbers: Sequence[int]) -> Iterator[list[int]]:
    """Neighbours that fit into one part."""
    group: list[int] = []
    rows = size_bytes = 0
    for number in numbers:
        with blame(StoreError, f"{directory / FOLDER / part_name(number)} cannot be read"):
            footer = pq.read_metadata(directory / FOLDER / part_name(number))
        more = sum(footer.row_group(each).total_byte_size for each in range(footer.num_row_groups))
        if group and (rows + footer.num_rows > DEFAULTS.rows or size_bytes + more > DEFAULTS.size_bytes):
            yield group
            group, rows, size_bytes = [], 0, 0
        group, rows, size_bytes = [*group, number], rows + footer.num_rows, size_bytes + more
    if group:
        yield group


def _merge(directory: Path, ledger: Ledger, group: list[int]) -> None:
    """Put the parts of `group` into the first of them."""
    with blame(StoreError, f"{directory} could not be written"):
        for folder, schema in _SCHEMAS.items():
            files = [path for number in group if (path := directory / folder / part_name(number)).exists()]
            if files:
                with durable_file(ready_file(directory, folder, group[0])) as file:
                    write(file, _rows(files), schema)
    pass_through("merging")
    ledger.parts.merge(group)
    finish_merge(directory, ledger)


def _rows(files: Sequence[Path]) -> Iterator[tuple[pa.RecordBatch, int]]:
    for file in files:
        for batch in scan(file, batch_rows=_BATCH_ROWS):
            yield batch, batch.nbytes

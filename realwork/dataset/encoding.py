"""Rows as they lie in the ledger: Arrow batches.

Guarantees: what a `Batch` has packed are rows of the schema; one that is none does not keep the others from it.
"""

import struct
from collections.abc import Iterable, Sequence

import pyarrow as pa

from realwork.dataset.ack import Commit, Request, Unfinished
from realwork.dataset.commits import rows_in
from realwork.dataset.part_ledger import Committed
from realwork.dataset.rows import Row, row, trajectory
from realwork.dataset.schema import SAMPLE_SCHEMA, SCHEMA
from realwork.dataset.side_files import Read, restore
from realwork.errors import StoreError, blame
from realwork.types import Trajectory

_CODEC = "lz4"
_SIZE = struct.Struct("<Q")
_UNFIT = (pa.ArrowException, OverflowError, TypeError, ValueError)
_ROW = pa.struct(list(SCHEMA))
_SAMPLE = pa.struct(list(SAMPLE_SCHEMA))


def table(trajectories: Iterable[Trajectory]) -> pa.Table:
    """A table of the whole schema, one row per trajectory, in order."""
    return pa.Table.from_pylist([row(trajectory) for trajectory in trajectories], schema=SCHEMA)


class Batch:
    """The rows of several requests, encoded together; in `errors` why some of them cannot be, by their position."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.errors: dict[int, StoreError] = {}
        rows: dict[int, Row] = {}
        samples: dict[int, list[Row]] = {}
        for number, request in enumerate(requests):
            if isinstance(request, Commit | Unfinished):
                try:
                    rows[number], samples[number] = rows_in(request.content)
                except StoreError as error:
                    self.errors[number] = error
        self._rows, self._row_of = self._together({number: [row] for number, row in rows.items()}, _ROW)
        good = {number: samples[number] for number in self._row_of}
        self._samples, self._samples_of = self._together(good, _SAMPLE)

    def _together(
        self, rows: dict[int, list[Row]], kind: pa.StructType
    ) -> tuple[pa.StructArray | None, dict[int, list[int]]]:
        """All of `rows` that fit, null if there are none, and where those of each request stand."""
        all_rows = [row for own in rows.values() for row in own]
        if not all_rows:  # an array of none takes as long as one of a few
            return None, {number: [] for number in rows}
        try:
            together = pa.array(all_rows, kind)
        except _UNFIT as error:
            unfit = {number: why for number, own in rows.items() if (why := _unfit(own, kind)) is not None}
            unfit = unfit or dict.fromkeys(rows, StoreError(f"rows cannot be written together: {error}"))
            self.errors |= unfit
            return self._together({number: own for number, own in rows.items() if number not in unfit}, kind)
        places = iter(range(len(together)))
        return together, {number: [next(places) for _ in own] for number, own in rows.items()}

    def packed(self, numbers: Sequence[int]) -> tuple[bytes, bytes | None, int]:
        """The rows of these requests, their samples if there are any, and how many bytes both take when decoded."""
        samples = [place for number in numbers for place in self._samples_of[number]]
        rows = [place for number in numbers for place in self._row_of[number]]
        packed = _bytes(self._rows, rows)
        packed_samples = _bytes(self._samples, samples) if samples else None
        return packed, packed_samples, size_of(packed) + (size_of(packed_samples) if packed_samples else 0)


def _unfit(rows: Sequence[Row], kind: pa.StructType) -> StoreError | None:
    """Which column of `rows` cannot be written, null if all can."""
    for each in rows:
        for field in kind:
            try:
                pa.array([each.get(field.name)], field.type)
            except _UNFIT as error:
                return StoreError(f"{each.get('trajectory_id')} cannot be written as a row: {field.name}: {error}")
    return None


def decode_rows(content: bytes) -> pa.RecordBatch:
    """The batch of encoded rows."""
    return _batch(content, SCHEMA)


def decode_samples(content: bytes) -> pa.RecordBatch:
    """The batch of encoded samples."""
    return _batch(content, SAMPLE_SCHEMA)


def decode_trajectory(content: bytes, place: int, read: Read) -> Trajectory:
    """The record of which the row at `place` was made; `read` gives the content of a side file.

    Raises:
        StoreError: it is no such row.
    """
    with blame(StoreError, "a row of the ledger is no trajectory"):
        (columns,) = decode_rows(content).slice(place, 1).to_pylist()
        return trajectory(restore(columns, read))


def with_committed(rows: pa.RecordBatch, committed: Sequence[Committed]) -> pa.RecordBatch:
    """`rows` with what was known when each was committed: what it waited for the store, and of its group."""
    whole = pa.array([each.group_complete for each in committed], pa.bool_())
    rows = rows.set_column(rows.schema.get_field_index("group_complete"), SCHEMA.field("group_complete"), whole)
    seconds = [each.waited_s for each in committed]
    place = rows.schema.get_field_index("timing")
    timing = rows.column(place)
    fields = list(timing.type)
    values = [
        pa.array(seconds, pa.float64()) if field.name == "store_s" else timing.field(number)
        for number, field in enumerate(fields)
    ]
    return rows.set_column(place, rows.schema.field(place), pa.StructArray.from_arrays(values, fields=fields))


def size_of(content: bytes) -> int:
    """Bytes of encoded rows when they are decoded."""
    size: int = _SIZE.unpack_from(content)[0]
    return size


def _bytes(rows: pa.StructArray, places: list[int]) -> bytes:
    """The rows that stand in these places, which are in order."""
    are_together = places[-1] - places[0] < len(places)  # else they are copied, which takes longer than making them
    chosen = rows.slice(places[0], len(places)) if are_together else rows.take(pa.array(places, pa.int64()))
    content = pa.RecordBatch.from_struct_array(chosen).serialize()
    compressed: bytes = pa.compress(content, codec=_CODEC, asbytes=True)
    return _SIZE.pack(content.size) + compressed


def _batch(content: bytes, schema: pa.Schema) -> pa.RecordBatch:
    raw = pa.decompress(pa.py_buffer(content).slice(_SIZE.size), size_of(content), codec=_CODEC)
    return pa.ipc.read_record_batch(raw, schema)

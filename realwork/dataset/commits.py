"""Records as they travel to the store: rows of plain values. Pure, and without a Parquet library, as actors use it."""

import hashlib
import pickle
from typing import Any

from realwork.dataset.ack import Commit, Unfinished
from realwork.dataset.rows import Row, row
from realwork.dataset.samples import sample_rows
from realwork.dataset.side_files import LARGE_ROW_BYTES, split
from realwork.dataset.summaries import summarize
from realwork.errors import StoreError, blame
from realwork.types import Trajectory


def make_commit(finished: Trajectory) -> Commit:
    """`finished` as the store takes it."""
    columns, side_files = split(row(finished)) if _is_large(finished) else (row(finished), {})
    content = pickle.dumps((columns, sample_rows(finished)), protocol=5)
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return Commit(summary=summarize(finished), content=content, side_files=side_files, digest=digest)


def make_unfinished(record: Trajectory) -> Unfinished:
    """The record of a running attempt so far."""
    return Unfinished(trajectory_id=record.spec.trajectory_id, content=pickle.dumps((row(record), []), protocol=5))


def rows_in(content: bytes) -> tuple[Row, list[dict[str, Any]]]:
    """The row and the samples in what this module has made.

    Raises:
        StoreError: it was not made here.
    """
    with blame(StoreError, "what was to be written is no row"):
        columns, samples = pickle.loads(content)
    return columns, samples


def _is_large(record: Trajectory) -> bool:
    """Whether the texts that can be long are together more than a row holds itself."""
    said = sum(len(message.content or "") + len(message.reasoning_content or "") for message in record.messages)
    asked = sum(len(call.function.arguments) for message in record.messages for call in message.tool_calls)
    seen = sum(len(each.output) + len(each.error) for step in record.steps for each in step.observations)
    tested = sum(len(test.output) + len(test.error) for test in record.test_results)
    return 4 * (said + asked + seen + tested) > LARGE_ROW_BYTES

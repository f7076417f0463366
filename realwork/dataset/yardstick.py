"""What bare pyarrow needs to write trajectories, to measure the store by."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from realwork.dataset.encoding import table
from realwork.types import Trajectory


class Bare(NamedTuple):
    """Bytes of the Arrow table of all rows; seconds to make it of the records, and to have it on the disk."""

    size_bytes: int
    table_s: float
    write_s: float


def write_bare(trajectories: Sequence[Trajectory], path: Path) -> Bare:
    """Write one Parquet file with the rows of `trajectories`, compressed as the parts are.

    Raises:
        OSError: it cannot be written.
    """
    began = time.monotonic()
    rows = table(trajectories)
    made = time.monotonic()
    with path.open("wb") as file:
        pq.write_table(rows, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    return Bare(rows.nbytes, made - began, time.monotonic() - made)

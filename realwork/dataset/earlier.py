"""What an earlier start of a run has left in its directory.

Guarantees: rows that were acknowledged before a kill are put into parts; every attempt that was cut off gets its row,
with the steps that it had handed over; what came to the store within its last `store.WITHIN_S` may be missing.
"""

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from realwork.dataset.commits import make_commit
from realwork.dataset.database import peek
from realwork.dataset.encoding import Batch, decode_trajectory
from realwork.dataset.parts import part_files, part_number
from realwork.dataset.run_directory import LOCK_FILE, held, host_of, said_holder
from realwork.dataset.sealing import ENDING_S, ledgers, missing
from realwork.dataset.shards import shards_of
from realwork.dataset.side_files import side_file_reader
from realwork.errors import InputError, InUse, PartMissing, StoreError
from realwork.types import RolloutSpec, RolloutSummary, Trajectory

log = logging.getLogger(__name__)
MakeLost = Callable[[RolloutSpec, Trajectory | None], Trajectory]


def earlier_summaries(directory: Path) -> Iterator[RolloutSummary]:
    """What is known of every attempt with a row; one at a time is in memory.

    Raises:
        StoreError: a ledger cannot be read, or another process has it.
    """
    with ledgers(directory, wait_s=ENDING_S) as found:
        for ledger, _ in found:
            yield from ledger.summaries()


def settle_cut_off(directory: Path, make: MakeLost) -> None:
    """Write the rows of the attempts that have begun and have none.

    Args:
        make: gives the record of such an attempt, from its last unfinished one if there is any.

    Raises:
        StoreError: they cannot be written, or another process writes there.
    """
    read = side_file_reader(directory)
    with ledgers(directory, wait_s=ENDING_S) as found:
        for ledger, sealer in found:
            for spec in ledger.running():
                row = ledger.unfinished(spec.trajectory_id)
                lost = make(spec, None if row is None else decode_trajectory(row, 0, read))
                batch = Batch([commit := make_commit(lost)])
                if batch.errors:
                    raise batch.errors[0]
                ledger.apply([commit], [0.0], batch.packed)
            sealer.seal_all()


def recover(directory: Path) -> None:
    """Put acknowledged rows into parts that a killed store has left in its ledger, unless somebody plays the run.

    A run of another host is left alone: a shared file system may not keep two hosts apart. Rows that cannot be had are
    warned of.

    Raises:
        PartMissing: a part that was sealed is gone.
    """
    shards = shards_of(directory)
    files = [shard.ledger_file(directory) for shard in shards]
    if not any(_has_log(file) or peek(file, "SELECT 1 FROM batches LIMIT 1") for file in files):
        _check_parts(directory, files)
        return
    try:
        host = host_of(said_holder(directory))
        if host not in (None, socket.gethostname()):
            raise StoreError(f"the run was played on {host}; take it up or read it there, or remove {LOCK_FILE}")
        with held(directory, recovers=True):
            seal_left(directory, wait_s=0.0)
    except InUse:
        return
    except PartMissing:
        raise
    except (InputError, StoreError) as error:
        log.warning("Rows of %s that no part holds yet are left out: %s", directory, error)


def _check_parts(directory: Path, files: Sequence[Path]) -> None:
    """Find every part that the ledgers know.

    Raises:
        PartMissing: one is gone.
    """
    there = {part_number(path) for path in part_files(directory)}
    for file in files:
        known = peek(file, "SELECT group_concat(number) FROM parts WHERE sealed") or ""
        for number in map(int, filter(None, str(known).split(","))):
            if number not in there:
                raise PartMissing(missing(directory, number))


def seal_left(directory: Path, *, wait_s: float = ENDING_S) -> None:
    """Put every acknowledged row of a run that nobody plays into a part.

    Raises:
        StoreError: not all of them could be, or a ledger cannot be used.
    """
    with ledgers(directory, wait_s=wait_s) as found:
        for _, sealer in found:
            sealer.seal_all()


def _has_log(ledger: Path) -> bool:
    log = ledger.with_name(f"{ledger.name}-wal")
    return log.exists() and log.stat().st_size > 0

"""Several parts becoming one: what a merge has begun is brought to its end, whenever it was killed."""

from pathlib import Path

from realwork.dataset.durable import half_written, sync_directory
from realwork.dataset.ledger import Ledger
from realwork.dataset.parts import FOLDER, SAMPLES_FOLDER, part_name
from realwork.dataset.shards import Shard
from realwork.errors import StoreError, blame
from realwork.faultpoints import pass_through

FOLDERS = (FOLDER, SAMPLES_FOLDER)
_SUFFIX = ".merged"


def ready_file(directory: Path, folder: str, part: int) -> Path:
    """Where a merged part waits until the ledger knows of it."""
    return directory / f".{folder}-{part_name(part)}{_SUFFIX}"


def finish_merge(directory: Path, ledger: Ledger) -> None:
    """Put a merged part, of which the ledger knows, into its place, and remove those that it holds.

    Raises:
        StoreError: a file cannot be renamed or removed.
    """
    merging = ledger.parts.merging()
    if not merging:
        return
    target, *others = merging
    with blame(StoreError, f"{directory} could not be written"):
        for folder in FOLDERS:
            ready = ready_file(directory, folder, target)
            if ready.exists():
                ready.replace(directory / folder / part_name(target))
        pass_through("merged")
        for number in others:
            for folder in FOLDERS:
                (directory / folder / part_name(number)).unlink(missing_ok=True)
        for folder in FOLDERS:
            if (directory / folder).exists():
                sync_directory(directory / folder)
    ledger.parts.merged(merging)


def forget_merges(directory: Path, shard: Shard) -> None:
    """Remove merged parts of a shard of which its ledger does not know.

    Raises:
        OSError: one cannot be removed.
    """
    half = {file: name for file, name in half_written(directory) if name.endswith(_SUFFIX)}
    for file, name in (half | {file: file.name for file in directory.glob(f".*{_SUFFIX}")}).items():
        number = name.partition("part-")[2].partition(".")[0]
        if number.isdecimal() and shard.has(int(number)):
            file.unlink()

"""Runs in object storage, brought here to be read.

Guarantees: the parts here are those there; what a compaction has removed there is removed here.
"""

from collections.abc import Callable
from pathlib import Path

from realwork.dataset.mirror import READ_NAMES, cache, place_of
from realwork.dataset.objects import Objects
from realwork.dataset.run_directory import RUN_FILE
from realwork.errors import InputError, StoreError, blame

_CHANGING = (RUN_FILE, "README.md")


def fetched(url: str, on_progress: Callable[[str], None]) -> Path:
    """A directory of this node that holds the run at `url`, or every run below it; only what is new is fetched.

    Args:
        on_progress: is told when there is something to fetch.

    Raises:
        InputError: there is no run.
        StoreError: an object cannot be read, or a file not written.
    """
    objects = Objects(url)
    wanted = {name: size for name, size in objects.sizes().items() if READ_NAMES.fullmatch(name)}
    if not any(name.rpartition("/")[2] == RUN_FILE for name in wanted):
        raise InputError(f"{url} holds no run: there is no {RUN_FILE}")
    directory = cache() / "read" / place_of(url)
    new = {name: size for name, size in wanted.items() if not _is_here(directory / name, size)}
    if new:
        on_progress(f"Fetching {sum(new.values()) / 2**20:.1f} MiB from {url} to {directory}")
    with blame(StoreError, f"{directory} could not be written"):
        for part in directory.rglob("part-*.parquet"):
            if part.relative_to(directory).as_posix() not in wanted:
                part.unlink()
    for name in wanted:
        if name in new or name.endswith(_CHANGING):
            objects.fetch(name, directory / name)
    return directory


def _is_here(path: Path, size_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == size_bytes

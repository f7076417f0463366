"""Runs in object storage, brought here to be read.

Guarantees: the parts here are those there; what a compaction has removed there is removed here; one process at a time
brings something.
"""

import fcntl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from realwork.dataset.mirror import CHANGING, READ_NAMES
from realwork.dataset.objects import Objects
from realwork.dataset.places import cache, name_of, place_of, url_of_run
from realwork.dataset.run_directory import RUN_FILE
from realwork.errors import InputError, StoreError, blame


def runs_below(url: str) -> list[str]:
    """The URL of the run at `url`, else those of the runs directly below it, by name.

    Raises:
        InputError: there is no run.
        StoreError: the objects cannot be listed.
    """
    return [url_of_run(url, folder) if folder else url for folder in folders_of_runs(url, Objects(url).sizes())]


def folders_of_runs(url: str, names: Iterable[str]) -> list[str]:
    """The folders among the objects below `url` that hold a run; an empty name if `url` itself is one.

    Raises:
        InputError: there is none.
    """
    files = sorted(name for name in names if name.rpartition("/")[2] == RUN_FILE and name.count("/") <= 1)
    if not files:
        raise InputError(f"{url} holds no run: there is no {RUN_FILE}. Give the URL of a run, or one that holds runs.")
    return [""] if RUN_FILE in files else [name.rpartition("/")[0] for name in files]


def fetched(url: str, on_progress: Callable[[str], None]) -> Path:
    """A directory of this node that holds the run at `url`, or every run below it; only what is new is fetched.

    It bears the last name of `url`, by which people know what they see.

    Args:
        on_progress: is told when there is something to fetch.

    Raises:
        InputError: there is no run.
        StoreError: an object cannot be read, or a file not written.
    """
    objects = Objects(url)
    directory = cache() / "read" / place_of(url) / name_of(url)
    with _alone(directory, on_progress):
        wanted = {name: size for name, size in objects.sizes().items() if READ_NAMES.fullmatch(name)}
        folders_of_runs(url, wanted)
        new = {name: size for name, size in wanted.items() if not _is_here(directory / name, size)}
        if new:
            on_progress(f"Fetching {sum(new.values()) / 2**20:.1f} MiB from {url} to {directory}")
        with blame(StoreError, f"{directory} could not be written"):
            for part in directory.rglob("part-*.parquet"):
                if part.relative_to(directory).as_posix() not in wanted:
                    part.unlink()
        for name in wanted:
            if name in new or name.endswith(CHANGING):
                objects.fetch(name, directory / name)
    return directory


@contextmanager
def _alone(directory: Path, on_progress: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other process brings something to `directory`, and keep others waiting."""
    with blame(StoreError, f"{directory} could not be written"):
        directory.parent.mkdir(parents=True, exist_ok=True)
        lock = directory.with_name(f"{directory.name}.lock").open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress(f"Another process fetches to {directory}; waiting for its end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_here(path: Path, size_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == size_bytes

"""A run in object storage: its directory on the driver's node is the working copy; every finished file goes there.

Guarantees: an object appears whole, by one upload, or not at all; what is there is never replaced but the card, the run
file, the copy of the ledger and the mark of who plays the run; nothing is ever removed there, except by a compaction.
Rows that are acknowledged and in no part yet are on the driver's node alone.
"""

import contextlib
import hashlib
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from realwork.config import split_url
from realwork.dataset.objects import Objects
from realwork.dataset.parts import FOLDER, SAMPLES_FOLDER
from realwork.dataset.run_directory import RUN_FILE, host_of, said_holder
from realwork.dataset.side_files import SIDE_FOLDER
from realwork.errors import InputError, StoreError, blame

MARKED_S = 120.0
"""So long nobody else takes up a run whose player has not said that it is there; it says so every ten seconds."""
_PROBE = ".realwork-could-write"
_MARK = ".realwork-played-by"
_CHANGING = (RUN_FILE, "README.md")
_KEPT = ("run-*.json", f"{SIDE_FOLDER}/*", f"{SAMPLES_FOLDER}/part-*.parquet", f"{FOLDER}/part-*.parquet")
"""In the order in which they go there: a part comes after what belongs to it."""
_NAMES = r"(run(-\d+)?\.json|README\.md|side/[0-9a-f]{64}|(samples|trajectories)/part-\d+\.parquet)"
READ_NAMES = re.compile(rf"([^/]*[^/.][^/]*/)?{_NAMES}")
"""Names of objects of a run, or of the runs in a folder, that somebody needs who reads them."""
_RUN_NAMES = re.compile(rf"{_NAMES}|ledger(-\d+)?\.sqlite")


def cache() -> Path:
    """Where copies of object storage stand: `$XDG_CACHE_HOME/realwork`, else `~/.cache/realwork`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "realwork"


def place_of(url: str) -> str:
    """The name of the folder for `url` in a cache."""
    return hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


def working_copy(url: str) -> Path:
    """The directory on this node for the runs at `url`."""
    return cache() / "runs" / place_of(url)


def working_copy_of_run(url: str) -> Path:
    """The directory on this node for the run at `url`."""
    output, run_id = split_url(url)
    return working_copy(output) / run_id


def url_of_run(url: str, run_id: str) -> str:
    """Where the run of that id stands below `url`, whose options stay."""
    parts = urlsplit(url)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{run_id}").geturl()


class Mirror:
    """The objects of the run in `directory`, below `url`.

    Raises:
        InputError: `url` cannot be used.
    """

    def __init__(self, directory: Path, url: str) -> None:
        self._directory = directory
        self._objects = Objects(url)
        self._there: dict[str, int] | None = None

    def check(self) -> None:
        """Find out whether objects can be put there, and nobody on another host plays the run.

        Raises:
            InputError: they cannot, or somebody does.
        """
        try:
            self._objects.put(_PROBE, b"realwork could write here\n")
            now = self._objects.written_at(_PROBE)
            self._objects.remove(_PROBE)
            marked = self._objects.written_at(_MARK)
            by = self._objects.text(_MARK) if marked is not None else ""
        except StoreError as error:
            raise InputError(
                f"{error}. Give another `rollout_config.trajectory_output_path`, or see that the bucket is there and "
                "the credentials of this node may write to it."
            ) from error
        is_fresh = now is not None and marked is not None and (now - marked).total_seconds() < MARKED_S
        if is_fresh and host_of(by) != socket.gethostname():  # on one host the directory's lock decides
            raise InputError(
                f"{self._objects.url} is being played by {by}. Wait for its end, or give another --run-id; if that "
                f"process is gone, the run can be taken up {MARKED_S:.0f} s after it last said that it was there."
            )

    @contextmanager
    def marked(self) -> Iterator[None]:
        """The run is marked as played by the holder of its directory, for the length of the block.

        Two hosts that do so in the same second may both succeed: object storage has no locks.

        Raises:
            InputError: as of `check`.
        """
        self.check()
        self._objects.put(_MARK, said_holder(self._directory).encode())
        try:
            yield
        finally:
            with contextlib.suppress(StoreError):  # then it is too old soon
                self._objects.remove(_MARK)

    def fetch(self) -> None:
        """Make the working copy of a run that is there and not here.

        Raises:
            StoreError: an object cannot be read, or the working copy cannot be written.
        """
        if not (self._directory / RUN_FILE).exists():
            names = filter(_RUN_NAMES.fullmatch, self._objects.sizes())
            for name in sorted(names, key=lambda name: name == RUN_FILE):  # the last, so that it says: all is here
                self._objects.fetch(name, self._directory / name)

    def put(self) -> None:
        """Put every finished file there that is not.

        Raises:
            StoreError: not everything is there; what is not is put there the next time.
        """
        if self._there is None:
            self._there = {name: size for name, size in self._objects.sizes().items() if name not in _CHANGING}
        for name, path in self._finished():
            if self._there.get(name) != (size_bytes := path.stat().st_size):
                self._upload(name, path)
                self._there[name] = size_bytes

    def put_with(self, ledger: Path, copy: Callable[[Path], None]) -> None:
        """Put every finished file there, and what `copy` makes of the ledger; say that the run is still played.

        Raises:
            StoreError: as of `put`.
        """
        self.put()
        with tempfile.TemporaryDirectory(dir=self._directory, prefix=".copy-") as folder:
            copied = Path(folder) / ledger.name
            copy(copied)
            self._upload(ledger.name, copied)
        self._objects.put(_MARK, said_holder(self._directory).encode())

    def follow(self) -> None:
        """Put there what a compaction has made of the parts, and remove the others.

        Raises:
            StoreError: not all of it could be done.
        """
        self.put()
        gone = [name for name in self._objects.sizes() if "/part-" in name and not (self._directory / name).exists()]
        for name in gone:
            self._objects.remove(name)

    def _finished(self) -> Iterator[tuple[str, Path]]:
        for name in _CHANGING:
            if (self._directory / name).exists():
                yield name, self._directory / name
        for pattern in _KEPT:
            for path in sorted(self._directory.glob(pattern)):
                if not path.name.startswith("."):
                    yield path.relative_to(self._directory).as_posix(), path

    def _upload(self, name: str, path: Path) -> None:
        with blame(StoreError, f"{path} cannot be read"):
            content = path.read_bytes()
        self._objects.put(name, content)

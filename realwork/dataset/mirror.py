"""A run in object storage: its directory on the driver's node is the working copy; every finished file goes there.

Guarantees: an object appears whole, by one upload, or not at all; what is there is never replaced but the card, the run
file, the copy of the ledger and the marks of who plays the run; nothing is removed there but what a compaction has put
into other parts.
Rows that are acknowledged and in no part yet are on the driver's node alone. A working copy is gone on from only if no
other one has been played since.
"""

import contextlib
import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from realwork.config import split_url
from realwork.dataset.durable import durable_file
from realwork.dataset.objects import Objects
from realwork.dataset.parts import FOLDER, SAMPLES_FOLDER, part_number
from realwork.dataset.run_directory import (
    CARD_FILE,
    COPY_PREFIX,
    LOCK_FILE,
    PLUGINS_FILE,
    RUN_FILE,
    host_of,
    said_holder,
)
from realwork.dataset.sealing import ENDING_S, ledgers
from realwork.dataset.shards import WHOLE, Shard
from realwork.dataset.side_files import SIDE_FOLDER
from realwork.errors import InputError, StoreError, blame

MARKED_S = 120.0
"""So long nobody else takes up a run whose player has not said that it is there; it says so every ten seconds."""
_PROBE = ".realwork-could-write"
_MARK = ".realwork-played-by"
_COPY = ".realwork-copy"
"""Here: the name of this working copy, once it was played; there: the name of the one that was played last."""
CHANGING = (RUN_FILE, CARD_FILE, PLUGINS_FILE)
_COPY_SHARE = 0.05
"""Most of the time that goes into copies of a ledger, which take longer the longer the run is."""
_KEPT = ("run-*.json", f"{SIDE_FOLDER}/*", f"{SAMPLES_FOLDER}/part-*.parquet", f"{FOLDER}/part-*.parquet")
"""In the order in which they go there: a part comes after what belongs to it."""
_NAMES = r"(run(-\d+)?\.json|plugins\.json|README\.md|side/[0-9a-f]{64}|(samples|trajectories)/part-\d+\.parquet)"
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

    Args:
        shard: whose parts it puts there.

    Raises:
        InputError: `url` cannot be used.
    """

    def __init__(self, directory: Path, url: str, *, shard: Shard = WHOLE) -> None:
        self._directory = directory
        self._shard = shard
        self._objects = Objects(url)
        self._there: dict[str, int] | None = None
        self._next_copy_at = 0.0

    def check(self) -> None:
        """Find out whether objects can be put there, and nobody on another host plays the run.

        Raises:
            InputError: they cannot, or somebody does.
        """
        try:
            probe = f"{_PROBE}-{uuid.uuid4().hex}"
            self._objects.put(probe, b"realwork could write here\n")
            now = self._objects.written_at(probe)
            self._objects.remove(probe)
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
        self._objects.put(_COPY, self._own_name().encode())
        try:
            yield
        finally:
            with contextlib.suppress(StoreError):  # then it is too old soon
                self._objects.remove(_MARK)

    def fetch(self) -> Path | None:
        """Make a working copy of a run that is there, unless here is one that was played last; hold the directory.

        Where a copy that was played before stands in the way, it is moved to the directory that is returned: rows may
        be in it that were not put there.

        Raises:
            StoreError: an object cannot be read, or the working copy cannot be written.
        """
        aside = None
        if (self._directory / RUN_FILE).exists():
            played_last = self._objects.text(_COPY) if self._objects.written_at(_COPY) is not None else None
            if played_last in (None, self._name()):
                return None
            aside = self._clear()
        names = filter(_RUN_NAMES.fullmatch, self._objects.sizes())
        for name in sorted(names, key=lambda name: name == RUN_FILE):  # the last, so that it says: all is here
            self._objects.fetch(name, self._directory / name)
        return aside

    def _clear(self) -> Path | None:
        """Make room for another copy; where a copy that was played is now, null for one that never was."""
        aside = self._directory.with_name(f"{self._directory.name}.older-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}")
        was_played = self._name() is not None
        with blame(StoreError, f"{self._directory} could not be written"):
            aside.mkdir()
            # What says that here is a run, and which copy of it, goes last: a call that is cut off is begun anew.
            for path in sorted(self._directory.iterdir(), key=lambda path: path.name in (_COPY, RUN_FILE)):
                if path.name != LOCK_FILE:
                    path.rename(aside / path.name)
            if was_played:
                return aside
            shutil.rmtree(aside)
        return None

    def _name(self) -> str | None:
        """How this working copy is called, null if it was never played."""
        file = self._directory / _COPY
        return file.read_text(encoding="utf-8") if file.exists() else None

    def _own_name(self) -> str:
        if (name := self._name()) is None:
            name = uuid.uuid4().hex
            file = self._directory / _COPY
            with blame(StoreError, f"{self._directory} could not be written"), durable_file(file) as content:
                content.write(name.encode())
        return name

    def put(self) -> None:
        """Put every finished file there that is not.

        Raises:
            StoreError: not everything is there; what is not is put there the next time.
        """
        if self._there is None:
            self._there = {name: size for name, size in self._objects.sizes().items() if name not in CHANGING}
            self._remove_merged(self._there)
        for name, path in self._finished():
            if self._there.get(name) != (size_bytes := path.stat().st_size):
                self._upload(name, path)
                self._there[name] = size_bytes

    def put_with(self, ledger: Path, copy: Callable[[Path], None], *, is_last: bool = False) -> None:
        """Put every finished file there, and say that the run is still played.

        What `copy` makes of the ledger is put there, too, if this is the last call, or the time for it has come: an
        older one does, as the parts themselves say what is in them.

        Raises:
            StoreError: as of `put`.
        """
        self._objects.put(_MARK, said_holder(self._directory).encode())
        began = time.monotonic()
        if not is_last and began < self._next_copy_at:
            self.put()
            return
        with self._copied(ledger, copy) as copied:  # before the parts, so that each part it knows is among them
            self.put()
            self._upload(ledger.name, copied)
        self._next_copy_at = time.monotonic() + (time.monotonic() - began) / _COPY_SHARE

    @contextmanager
    def _copied(self, ledger: Path, copy: Callable[[Path], None]) -> Iterator[Path]:
        with (
            blame(StoreError, f"{self._directory} could not be written"),
            tempfile.TemporaryDirectory(dir=self._directory, prefix=COPY_PREFIX) as folder,
        ):
            copied = Path(folder) / ledger.name
            copy(copied)
            yield copied

    def announce(self, ledgers: Iterable[Path]) -> None:
        """Put empty ledgers there, where none are: how many a run has is known there before any of its parts is.

        Raises:
            StoreError: they could not be put there.
        """
        there = self._objects.sizes()
        for ledger in ledgers:
            if ledger.name not in there:
                self._objects.put(ledger.name, b"")

    def follow(self) -> None:
        """Put there what a compaction has made of the parts, and remove the others.

        The ledger goes first: with it, whoever fetches what a cut-off call has left can tell a part that stands in
        another one, too.

        Raises:
            StoreError: not all of it could be done.
        """
        with ledgers(self._directory, wait_s=0.0) as found:
            for ledger, _ in found:
                with self._copied(ledger.path, ledger.copy) as copied:
                    self._upload(ledger.path.name, copied)
        self.put()
        self._remove_merged(self._objects.sizes())

    def _remove_merged(self, there: Iterable[str]) -> None:
        """Remove the parts that are not here any more, since a compaction, maybe one that was cut off, has merged them.

        The working copy of a run that is played has every other part.
        """
        for name in [*there]:
            number = part_number(Path(name))
            if number is not None and self._shard.has(number) and not (self._directory / name).exists():
                self._objects.remove(name)

    def complete(self) -> None:
        """Put everything there that an earlier start could not put there.

        Raises:
            StoreError: not all of it could be done.
        """
        with ledgers(self._directory, wait_s=ENDING_S) as found:
            for ledger, _ in found:
                self.put_with(ledger.path, ledger.copy, is_last=True)

    def _finished(self) -> Iterator[tuple[str, Path]]:
        for name in CHANGING:
            if (self._directory / name).exists():
                yield name, self._directory / name
        for pattern in _KEPT:
            for path in sorted(self._directory.glob(pattern)):
                number = part_number(path)
                if not path.name.startswith(".") and (number is None or self._shard.has(number)):
                    yield path.relative_to(self._directory).as_posix(), path

    def _upload(self, name: str, path: Path) -> None:
        self._objects.upload(name, path)

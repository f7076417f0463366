"""A run in object storage: its directory on the driver's node is the working copy; every finished file goes there.

Guarantees: an object appears whole, by one upload, or not at all; what is there is never replaced but the files that
change, the copies of ledgers, and a part into which a compaction has put others; nothing is removed there but those
others, once that part is there. Rows that are acknowledged and in no part yet are on the driver's node alone. A working
copy is gone on from only if no other one has been played since.
"""

import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from realwork.dataset.claim import COPY_FILE, Claim
from realwork.dataset.ledger import Ledger
from realwork.dataset.objects import Objects
from realwork.dataset.parts import FOLDER, SAMPLES_FOLDER, part_name, part_number
from realwork.dataset.run_directory import CARD_FILE, COPY_PREFIX, LOCK_FILE, PLUGINS_FILE, RUN_FILE
from realwork.dataset.sealing import ENDING_S, Sealer, ledgers
from realwork.dataset.shards import WHOLE, Shard
from realwork.dataset.side_files import SIDE_FOLDER
from realwork.errors import StoreError, blame

CHANGING = (RUN_FILE, CARD_FILE, PLUGINS_FILE)
_COPY_SHARE = 0.05
"""Most of the time that goes into copies of a ledger, which take longer the longer the run is."""
_KEPT = ("run-*.json", f"{SIDE_FOLDER}/*", f"{SAMPLES_FOLDER}/part-*.parquet", f"{FOLDER}/part-*.parquet")
"""In the order in which they go there: a part comes after what belongs to it."""
_NAMES = r"(run(-\d+)?\.json|plugins\.json|README\.md|side/[0-9a-f]{64}|(samples|trajectories)/part-\d+\.parquet)"
READ_NAMES = re.compile(rf"([^/]*[^/.][^/]*/)?{_NAMES}")
"""Names of objects of a run, or of the runs in a folder, that somebody needs who reads them."""
_RUN_NAMES = re.compile(rf"{_NAMES}|ledger(-\d+-of-\d+)?\.sqlite")


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
        self._claim = Claim(directory, self._objects)
        self._there: dict[str, int] | None = None
        self._next_copy_at = 0.0

    def check(self) -> None:
        """Find out whether objects can be put there, and nobody else plays the run.

        Raises:
            InputError: they cannot, or somebody does.
        """
        self._claim.check()

    def marked(self) -> AbstractContextManager[None]:
        """The run is marked as played by the holder of its directory, for the length of the block.

        Raises:
            InputError: as of `check`; or it was played elsewhere since `fetch`.
        """
        return self._claim.held()

    def fetch(self) -> Path | None:
        """Make a working copy of a run that is there, unless here is one that was played last; hold the directory.

        Where a copy that was played before stands in the way, it is moved to the directory that is returned: rows may
        be in it that were not put there.

        Raises:
            StoreError: an object cannot be read, or the working copy cannot be written.
        """
        aside = None
        is_newest = self._claim.is_newest()
        if (self._directory / RUN_FILE).exists():
            if is_newest:
                return None
            aside = self._clear()
        names = filter(_RUN_NAMES.fullmatch, self._objects.sizes())
        for name in sorted(names, key=lambda name: name == RUN_FILE):  # the last, so that it says: all is here
            self._objects.fetch(name, self._directory / name)
        return aside

    def _clear(self) -> Path | None:
        """Make room for another copy; where a copy that was played is now, null for one that never was."""
        aside = self._directory.with_name(f"{self._directory.name}.older-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}")
        was_played = self._claim.name() is not None
        with blame(StoreError, f"{self._directory} could not be written"):
            aside.mkdir()
            # What says that here is a run, and which copy of it, goes last: a call that is cut off is begun anew.
            for path in sorted(self._directory.iterdir(), key=lambda path: path.name in (COPY_FILE, RUN_FILE)):
                if path.name != LOCK_FILE:
                    path.rename(aside / path.name)
            if was_played:
                return aside
            shutil.rmtree(aside)
        return None

    def announce(self, ledgers: Iterable[Path]) -> None:
        """Put empty ledgers there, where none are: how many a run has is known there before any of its parts is.

        Raises:
            StoreError: they could not be put there.
        """
        there = self._objects.sizes()
        for ledger in ledgers:
            if ledger.name not in there:
                self._objects.put(ledger.name, b"")

    def put_with(self, ledger: Ledger, *, is_last: bool = False) -> None:
        """Put every finished file there that is not, and remove what a compaction has put into other parts.

        A copy of the ledger is put there, too, if this is the last call, or the time for it has come: an older one
        does, as the parts themselves say what is in them.

        Raises:
            StoreError: not everything is there; what is not is put there the next time. Or the run is played elsewhere.
        """
        self._claim.confirm()
        merged = ledger.parts.merged_parts()
        if is_last or time.monotonic() >= self._next_copy_at:
            began = time.monotonic()
            with self._copied(ledger) as copied:  # before the parts, so that each part it knows is among them
                took_s = time.monotonic() - began
                self._put(merged)
                began = time.monotonic()
                self._objects.upload(ledger.path.name, copied)
                took_s += time.monotonic() - began
            self._next_copy_at = time.monotonic() + took_s / _COPY_SHARE
        else:
            self._put(merged)
        self._remove(merged)

    def follow(self) -> None:
        """Put there what a compaction has made of the parts, and remove the others.

        The ledgers go first: with them, whoever fetches what a cut-off call has left can tell what of it has been put
        into another part.

        Raises:
            StoreError: not all of it could be done.
        """
        self._claim.confirm()
        with ledgers(self._directory, wait_s=ENDING_S) as found:
            for ledger, _ in found:
                with self._copied(ledger) as copied:
                    self._objects.upload(ledger.path.name, copied)
            merged = _merged_in(found)
        self._put(merged)
        self._remove(merged)

    def complete(self) -> None:
        """Put everything there that an earlier start could not put there; nothing if there is no such thing.

        Raises:
            StoreError: not all of it could be done.
        """
        with ledgers(self._directory, wait_s=ENDING_S) as found:
            if self._put(_merged_in(found)):
                for ledger, _ in found:
                    self.put_with(ledger, is_last=True)

    def _put(self, merged: Mapping[int, int]) -> bool:
        """Put every finished file there that is not; whether there was one that stays as it is.

        Raises:
            StoreError: not everything is there; or a part there is another one than the one here.
        """
        if self._there is None:
            self._there = {name: size for name, size in self._objects.sizes().items() if name not in CHANGING}
        is_new = False
        for name, path in self._finished():
            size_bytes, size_there = path.stat().st_size, self._there.get(name)
            if size_there == size_bytes:
                continue
            number = part_number(path)
            if number is not None and size_there is not None and number not in merged.values():
                raise StoreError(
                    f"{self._objects.url}/{name} is another part than {path}: the run was played elsewhere"
                )
            self._objects.upload(name, path)
            self._there[name] = size_bytes
            is_new = is_new or name not in CHANGING
        return is_new

    def _remove(self, merged: Mapping[int, int]) -> None:
        """Remove parts that have been put into others, which are there as they are here."""
        there = self._there or {}
        for gone, held_by in merged.items():
            for folder in (SAMPLES_FOLDER, FOLDER):
                name = f"{folder}/{part_name(gone)}"
                if name in there and self._shard.has(gone) and f"{FOLDER}/{part_name(held_by)}" in there:
                    self._objects.remove(name)
                    del there[name]

    @contextmanager
    def _copied(self, ledger: Ledger) -> Iterator[Path]:
        with (
            blame(StoreError, f"{self._directory} could not be written"),
            tempfile.TemporaryDirectory(dir=self._directory, prefix=COPY_PREFIX) as folder,
        ):
            copied = Path(folder) / ledger.path.name
            ledger.copy(copied)
            yield copied

    def _finished(self) -> Iterator[tuple[str, Path]]:
        for name in CHANGING:
            if (self._directory / name).exists():
                yield name, self._directory / name
        for pattern in _KEPT:
            for path in sorted(self._directory.glob(pattern)):
                number = part_number(path)
                if not path.name.startswith(".") and (number is None or self._shard.has(number)):
                    yield path.relative_to(self._directory).as_posix(), path


def _merged_in(found: Iterable[tuple[Ledger, Sealer]]) -> dict[int, int]:
    return {gone: held_by for ledger, _ in found for gone, held_by in ledger.parts.merged_parts().items()}

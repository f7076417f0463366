"""Who plays a run in object storage, and which working copy of it was played last.

Guarantees: while a run is played, no other host and no other working copy takes it up, but two that begin in the same
second, as object storage has no locks; a working copy that another one has overtaken notices it before it puts anything
there.
"""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from realwork.dataset.durable import durable_file
from realwork.dataset.objects import Objects
from realwork.dataset.run_directory import said_holder
from realwork.errors import InputError, StoreError, blame

FRESH_S = 120.0
"""So long nobody else takes up a run whose player has not said that it is there."""
RENEWED_S = 10.0
COPY_FILE = ".realwork-copy"
"""Here: the name of this working copy, once it was played; there: the name of the one that was played last."""
_PROBE = ".realwork-could-write"
_MARK = ".realwork-played-by"


class Claim:
    """What the working copy in `directory` may do with the objects of its run."""

    def __init__(self, directory: Path, objects: Objects) -> None:
        self._directory = directory
        self._objects = objects
        self._seen: list[str | None] = []

    def check(self) -> None:
        """Find out whether objects can be put there, and nobody else plays the run.

        Raises:
            InputError: they cannot, or somebody does.
        """
        try:
            played_by = self._fresh_mark()
            is_ours = played_by is not None and self.name() is not None and self._played_last() == self.name()
        except StoreError as error:
            raise InputError(
                f"{error}. Give another `rollout_config.trajectory_output_path`, or see that the bucket is there and "
                "the credentials of this node may write to it."
            ) from error
        if played_by is not None and not is_ours:  # in one working copy the directory's lock decides
            raise InputError(
                f"{self._objects.url} is being played by {played_by}. Wait for its end, or give another --run-id; if "
                f"that process is gone, the run can be taken up {FRESH_S:.0f} s after it last said that it was there."
            )

    def _fresh_mark(self) -> str | None:
        """Who has marked the run as played a short while ago, by the storage's clock; null if nobody has."""
        probe = f"{_PROBE}-{uuid.uuid4().hex}"
        self._objects.put(probe, b"realwork could write here\n")
        try:
            now, marked = self._objects.written_at(probe), self._objects.written_at(_MARK)
        finally:
            self._objects.remove(probe)
        if now is None:
            raise StoreError(f"{self._objects.url} does not show what was just put there")
        if marked is None or (now - marked).total_seconds() >= FRESH_S:
            return None
        return self._objects.text(_MARK) or "another process"

    def is_newest(self) -> bool:
        """Whether no other working copy was played since this one was."""
        self._seen = [self._played_last()]
        return self._seen[0] in (None, self.name())

    @contextmanager
    def held(self) -> Iterator[None]:
        """The run is marked as played by the holder of its directory, for the length of the block.

        Raises:
            InputError: as of `check`; or another working copy was played since `is_newest` was asked.
        """
        self.check()
        if self._seen and self._played_last() not in (self._seen[0], self.name()):
            raise InputError(f"{self._objects.url} was played elsewhere a moment ago. Start again to go on from there.")
        ended = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(ended,), daemon=True)
        try:
            self._objects.put(_MARK, said_holder(self._directory).encode())
            self._objects.put(COPY_FILE, self._own_name().encode())
            renewing.start()
            yield
        finally:
            ended.set()
            if renewing.ident is not None:
                renewing.join()
            with suppress(StoreError):  # then it is too old soon
                self._objects.remove(_MARK)

    def _renew(self, ended: threading.Event) -> None:
        while not ended.wait(RENEWED_S):
            with suppress(StoreError):
                self._objects.put(_MARK, said_holder(self._directory).encode())

    def confirm(self) -> None:
        """Find that no other working copy has been played since this one is.

        Raises:
            StoreError: one was, or it cannot be told.
        """
        if self._played_last() != self.name():
            raise StoreError(
                f"{self._objects.url} was taken up in another place; nothing more is put there from {self._directory}"
            )

    def name(self) -> str | None:
        """How this working copy is called, null if it was never played."""
        file = self._directory / COPY_FILE
        return file.read_text(encoding="utf-8") if file.exists() else None

    def _own_name(self) -> str:
        if (name := self.name()) is None:
            name = uuid.uuid4().hex
            file = self._directory / COPY_FILE
            with blame(StoreError, f"{self._directory} could not be written"), durable_file(file) as content:
                content.write(name.encode())
        return name

    def _played_last(self) -> str | None:
        return self._objects.text(COPY_FILE) if self._objects.written_at(COPY_FILE) is not None else None

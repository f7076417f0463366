"""The stores that share a run, each with whole groups, and with a ledger and part numbers of its own."""

import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from realwork.text import valid_unicode

LEDGER_FILE = "ledger.sqlite"
_NAME = re.compile(r"ledger(?:-\d+-of-(\d+))?\.sqlite")


class Shard(NamedTuple):
    """Which of the stores of a run this is."""

    number: int = 0
    of: int = 1

    def has(self, part: int) -> bool:
        """Whether the part of that number is its own."""
        return part % self.of == (self.number + 1) % self.of

    def next(self, parts: Iterable[int]) -> int:
        """The number of its part that comes after all of those."""
        last = max(parts, default=0)
        return last + 1 + (self.number - last) % self.of

    def ledger_file(self, directory: Path) -> Path:
        """Where its ledger stands in the directory of a run."""
        return directory / (f"ledger-{self.number}-of-{self.of}.sqlite" if self.of > 1 else LEDGER_FILE)


WHOLE = Shard()


def shard_number(environment_id: str, group_index: int | None, *, of: int) -> int:
    """Which of so many stores has that group."""
    return zlib.crc32(f"{valid_unicode(environment_id)}:{group_index}".encode()) % of


def shards_of(directory: Path) -> list[Shard]:
    """The shards of the run in `directory`, also those whose ledgers are gone; none before it has begun."""
    names = [_NAME.fullmatch(path.name) for path in directory.glob("ledger*.sqlite")]
    count = max((int(name[1] or 1) for name in names if name), default=0)
    return [Shard(number, count) for number in range(count)]

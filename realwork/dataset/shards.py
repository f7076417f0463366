"""The stores that share a run, each with a ledger and with part numbers of its own."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

LEDGER_FILE = "ledger.sqlite"


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
        return directory / (f"ledger-{self.number}.sqlite" if self.number else LEDGER_FILE)


WHOLE = Shard()


def shards_of(directory: Path) -> list[Shard]:
    """The shards of the run in `directory`; none before it has begun."""
    count = len(list(directory.glob("ledger*.sqlite")))
    return [Shard(number, count) for number in range(count)]

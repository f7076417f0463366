"""A folder of a sandbox as it stands when an agent gets it, for telling in the end what became of it.

Guarantees: whatever cannot be told is null, and logged; nothing takes much longer than `DIFF_S`.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from realwork.errors import FileError
from realwork.sandbox.manifest import Archived
from realwork.sandbox.patch import Change, patch

log = logging.getLogger(__name__)

DIFF_S = 10.0


class Before(Protocol):
    """A folder as it stood."""

    def changes(self) -> Iterator[Change]:
        """What has changed since then.

        Raises:
            OSError, ValueError: that cannot be told.
        """


def remember_archive(read_archive: Callable[[], Iterable[bytes]]) -> Before | None:
    """The folder that `read_archive` gives now, and is asked for again in the end. Blocks."""
    try:
        return Archived(read_archive)
    except (OSError, ValueError, FileError) as error:
        log.info("What the agent changes will not be told: %s", error)
        return None


def diff(before: Before | None) -> str | None:
    """What has changed, as `git diff` writes it. Blocks."""
    if before is None:
        return None
    try:
        return patch(before.changes(), longest_s=DIFF_S)
    except (OSError, ValueError, FileError) as error:
        log.info("What the agent changed is not told: %s", error)
        return None

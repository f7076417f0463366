"""Files that appear whole or not at all, and stay.

Guarantees: a file is written under a temporary name of its own, flushed to the disk and then renamed, so that under its
own name it is always complete, whoever else writes it at the same time; when a function returns, file and name survive
a power cut; when it raises, nothing is left.
"""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{32}\.tmp")


@contextmanager
def durable_file(path: Path, *, temporary_directory: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file that stands under `path` once the block has ended well.

    Args:
        temporary_directory: where it is written first, on the same file system; null for beside `path`.

    Raises:
        OSError: it could not be written; an older file of that name may be gone if the last step failed.
    """
    temporary = (temporary_directory or path.parent) / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    try:
        sync_directory(path.parent)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def half_written(directory: Path) -> Iterator[tuple[Path, str]]:
    """The files in `directory` that a killed process has not written to their end, and which name each would have got.

    Those that somebody is writing now are among them.
    """
    for path in directory.glob(".*.tmp"):
        if match := _TEMPORARY.fullmatch(path.name):
            yield path, match[1]


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` survive a power cut.

    Raises:
        OSError: the file system refused.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

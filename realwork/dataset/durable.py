"""Files that appear whole or not at all, and stay.

Guarantees: a file is written under a temporary name, flushed to the disk and then renamed, so that under its own name
it is always complete; when a function returns, file and name survive a power cut; when it raises, nothing is left.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def durable_file(path: Path, *, temporary_directory: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file that stands under `path` once the block has ended well.

    Args:
        temporary_directory: where it is written first, on the same file system; null for beside `path`.

    Raises:
        OSError: it could not be written; an older file of that name may be gone if the last step failed.
    """
    temporary = (temporary_directory or path.parent) / f".{path.name}{TEMPORARY_SUFFIX}"
    try:
        with temporary.open("wb") as file:
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

"""Tar archives that pass through memory a piece at a time."""

import io
import tarfile
from collections.abc import Iterable, Iterator

PIECE = 1 << 20
END = bytes(2 * tarfile.BLOCKSIZE)
"""What an archive ends with."""


class Chunks(io.RawIOBase):
    """Chunks as the file that `tarfile` reads from."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__()
        self._chunks = iter(chunks)
        self._held = b""
        self._last = b""

    def read(self, size: int = PIECE, /) -> bytes:
        """Up to `size` bytes, fewer only at the end."""
        pieces = [self._held]
        have = len(self._held)
        while have < size and (chunk := next(self._chunks, b"")):
            self._last = (self._last + chunk)[-len(END) :]
            pieces.append(chunk)
            have += len(chunk)
        data = b"".join(pieces)
        self._held = data[size:]
        return data[:size]

    def has_end(self) -> bool:
        """Whether everything there was, read to its end, ends as an archive does."""
        while self.read():
            pass
        return self._last == END


def content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Iterator[bytes]:
    """What stands after the header of a regular file: what it contains, and what fills its last block."""
    file = archive.extractfile(entry)
    assert file is not None
    while piece := file.read(PIECE):
        yield piece
    yield bytes(-entry.size % tarfile.BLOCKSIZE)

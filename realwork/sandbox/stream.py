"""The output of one exec, read from the engine's raw stream as it comes.

Guarantees: memory is bounded whatever is written; an exec that announces its process id does so in its first line of
standard output, which is not part of the output.
"""

import asyncio
import struct

from realwork.sandbox.capture import Capture

STDERR = 2
_HEADER_BYTES = 8
_LONGEST_PID = 20


class FrameStream(asyncio.Protocol):
    """Takes the engine's frames apart: 1 byte stream, 3 bytes nothing, 4 bytes length, data.

    Attributes:
        ended: done when the engine has closed the stream.
    """

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._header = bytearray()
        self._left = 0
        self._kind = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._left:
                piece, view = view[: self._left], view[self._left :]
                self._left -= len(piece)
                self._take(self._kind, piece)
                continue
            missing = _HEADER_BYTES - len(self._header)
            self._header += view[:missing]
            view = view[missing:]
            if len(self._header) == _HEADER_BYTES:
                self._kind, self._left = struct.unpack(">BxxxL", self._header)
                self._header.clear()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def write(self, content: bytes) -> None:
        """Write to standard input, which stays open."""
        assert self._transport is not None
        self._transport.write(content)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
            self._at_end()

    def _take(self, kind: int, piece: memoryview) -> None:
        """What came on standard output or (`STDERR`) standard error."""
        raise NotImplementedError

    def _at_end(self) -> None:
        """Nothing comes any more."""


class ExecStream(FrameStream):
    """Keeps both streams of an exec.

    Attributes:
        pid: the announced process id inside, null as long as there is none.
    """

    def __init__(self, limit_bytes: int, *, announces_pid: bool) -> None:
        super().__init__()
        self.stdout = Capture(limit_bytes)
        self.stderr = Capture(limit_bytes)
        self.pid: int | None = None
        self._first_line: bytearray | None = bytearray() if announces_pid else None

    @property
    def received(self) -> int:
        return self.stdout.total + self.stderr.total

    def send(self, content: bytes) -> None:
        """Write all of standard input and close it."""
        assert self._transport is not None
        self._transport.write(content)
        self._transport.write_eof()

    def _at_end(self) -> None:
        if self._first_line:
            self.stdout.feed(bytes(self._first_line))

    def _take(self, kind: int, piece: memoryview) -> None:
        if kind == STDERR or self._first_line is None:
            (self.stderr if kind == STDERR else self.stdout).feed(piece)
            return
        line, newline, rest = bytes(piece).partition(b"\n")
        self._first_line += line
        if newline and self._first_line.isdigit() and len(self._first_line) <= _LONGEST_PID:
            self.pid = int(self._first_line)
            self._first_line = None
            self.stdout.feed(rest)
        elif newline or len(self._first_line) > _LONGEST_PID:
            self.stdout.feed(bytes(self._first_line) + newline + rest)
            self._first_line = None

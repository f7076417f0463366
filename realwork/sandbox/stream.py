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


class ExecStream(asyncio.Protocol):
    """Takes the engine's frames apart: 1 byte stream, 3 bytes nothing, 4 bytes length, data.

    Attributes:
        ended: done when the engine has closed the stream.
        pid: the announced process id inside, null as long as there is none.
    """

    def __init__(self, limit_bytes: int, *, announces_pid: bool) -> None:
        self.stdout = Capture(limit_bytes)
        self.stderr = Capture(limit_bytes)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pid: int | None = None
        self._transport: asyncio.Transport | None = None
        self._header = bytearray()
        self._left = 0
        self._sink = self.stdout
        self._first_line: bytearray | None = bytearray() if announces_pid else None

    @property
    def received(self) -> int:
        return self.stdout.total + self.stderr.total

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._left:
                piece, view = view[: self._left], view[self._left :]
                self._left -= len(piece)
                self._take(piece)
                continue
            missing = _HEADER_BYTES - len(self._header)
            self._header += view[:missing]
            view = view[missing:]
            if len(self._header) == _HEADER_BYTES:
                kind, self._left = struct.unpack(">BxxxL", self._header)
                self._sink = self.stderr if kind == STDERR else self.stdout
                self._header.clear()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def send(self, content: bytes) -> None:
        """Write all of standard input and close it."""
        assert self._transport is not None
        self._transport.write(content)
        self._transport.write_eof()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        if self.ended.done():
            return
        self.ended.set_result(None)
        if self._first_line:
            self.stdout.feed(bytes(self._first_line))

    def _take(self, piece: memoryview) -> None:
        if self._first_line is None or self._sink is self.stderr:
            self._sink.feed(piece)
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

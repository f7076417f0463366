"""Keeps the head and the tail of a stream of any length in bounded memory."""


class Capture:
    """What is kept of one output stream.

    Attributes:
        total: bytes seen.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.total = 0
        self._head = bytearray()
        self._tail = bytearray()
        self._head_limit = limit_bytes - limit_bytes // 2
        self._tail_limit = limit_bytes // 2

    def feed(self, data: bytes | memoryview) -> None:
        self.total += len(data)
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if not data or not self._tail_limit:
            return
        self._tail += data[-self._tail_limit :]
        if len(self._tail) > 2 * self._tail_limit:
            del self._tail[: -self._tail_limit]

    def content(self) -> bytes:
        """Everything, or head and tail with a line in between that says how many bytes are missing."""
        tail = bytes(self._tail[-self._tail_limit :]) if self._tail_limit else b""
        omitted = self.total - len(self._head) - len(tail)
        if not omitted:
            return bytes(self._head) + tail
        return b"%b\n[... %d bytes omitted ...]\n%b" % (bytes(self._head), omitted, tail)

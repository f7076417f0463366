"""What a channel's shell answers: the output of one command after the other, in one stream.

Guarantees: memory is bounded whatever comes; only what stands between the two marks of a command is its output. Marks
carry random tokens that the command is never given.
"""

import asyncio
import secrets
import time
from collections.abc import Callable

from realwork.sandbox.capture import Capture
from realwork.sandbox.stream import STDERR, FrameStream

_LONGEST_NUMBER = 12


def new_token() -> str:
    """What nobody can guess."""
    return secrets.token_hex(16)


class Marked:
    """One stream of a command, with the marks `TOKEN NUMBER` in it; its output stands between the first two.

    Attributes:
        numbers: those of the marks seen so far.
        is_broken: a mark has no number.
        last_word: behind which nothing comes, if there is one; `is_over` when it has come.
    """

    def __init__(self, tokens: list[str], limit_bytes: int) -> None:
        self.output = Capture(limit_bytes)
        self.numbers: list[int] = []
        self.is_broken = False
        self.last_word: str | None = None
        self.is_over = False
        self._tokens = [token.encode() for token in tokens]
        self._held = b""

    def feed(self, piece: memoryview) -> None:
        if self.is_over:
            return
        data = self._held + piece
        if self.last_word is not None and self.last_word.encode() in data:
            self.is_over = True
            data = data.partition(self.last_word.encode())[0]
        while not self.is_broken and len(self.numbers) < len(self._tokens):
            token = self._tokens[len(self.numbers)]
            at = data.find(token)
            if at < 0:
                at = max(len(data) - len(token) + 1, 0)
                break
            after = at + len(token)
            line, newline, _ = data[after : after + _LONGEST_NUMBER + 1].partition(b"\n")
            if not newline and len(line) <= _LONGEST_NUMBER:
                break
            self._keep(data[:at])
            self.is_broken = not (newline and line.strip().isdigit())
            if not self.is_broken:
                self.numbers.append(int(line))
            data = data[after + len(line) + 1 :]
        else:
            at = len(data)
        self._keep(data[:at])
        self._held = data[at:]

    def flush(self) -> None:
        """What might have become a mark is output, as nothing follows."""
        self._keep(self._held)
        self._held = b""

    def _keep(self, data: bytes) -> None:
        if len(self.numbers) == 1:
            self.output.feed(data)


class AnswerStream(FrameStream):
    """Both streams of a channel.

    Attributes:
        stdout, stderr: those of the command that is running, or ran last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stdout = Marked([], 0)
        self.stderr = Marked([], 0)
        self._changed = asyncio.Event()

    async def wait(self, reached: Callable[[], bool], timeout_s: float) -> bool:
        """Whether `reached` becomes true before the time is over, the stream ends, or a mark is broken."""
        deadline = time.monotonic() + timeout_s
        while not reached():
            left = deadline - time.monotonic()
            if left <= 0 or self.is_broken:
                return False
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                return reached()
        return True

    @property
    def is_broken(self) -> bool:
        return self.ended.done() or self.stdout.is_broken or self.stderr.is_broken

    def _take(self, kind: int, piece: memoryview) -> None:
        stream = self.stderr if kind == STDERR else self.stdout
        marks = len(stream.numbers)
        stream.feed(piece)
        if len(stream.numbers) > marks or stream.is_broken or stream.is_over:
            self._changed.set()

    def _at_end(self) -> None:
        self._changed.set()

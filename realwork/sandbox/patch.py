"""Changes of files as one text, as `git diff` writes them.

Guarantees: time, memory and the length of the text are bounded, whatever the files hold; what is left out is counted in
a line that begins with `#`. A name that is no plain text is quoted as git quotes it; bytes that are no UTF-8 and NUL
come as U+FFFD.
"""

import io
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from realwork.text import decode

REGULAR = "100644"
EXECUTABLE = "100755"
LINK = "120000"
SPECIAL = ""
"""The mode of what git does not know: a FIFO, a socket, a device."""
MOST_FILES = 1000
MOST_FILE_BYTES = 256 << 10
MOST_CHARACTERS = 1 << 20
MOST_LINES = 8000
"""Of what differs in a file: comparing takes up to the square of that."""
MOST_PAIRS = 200_000
"""Of equal lines."""
COMPARE_S = 2.0
"""For all files; those that come later are shown as replaced whole."""
CONTEXT = 3
HISTORY = ".git"
_LOOKED_AT_BYTES = 8000
_NO_NEWLINE = b"\n\\ No newline at end of file\n"
_ESCAPES = {9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 92: "\\\\"}


class File(NamedTuple):
    """A file or a symbolic link.

    Attributes:
        mode: as git tells it.
        content: of a link, its target; null when it is not known, or of more than `MOST_FILE_BYTES`.
    """

    mode: str
    content: bytes | None
    size_bytes: int


class Change(NamedTuple):
    """A path, in Python's spelling of names that are no UTF-8, and what stood there before and after; null: nothing."""

    path: str
    before: File | None
    after: File | None


def patch(changes: Iterable[Change], *, longest_s: float = math.inf) -> str:
    """The text of `changes`, which come in the order that it is to have; "" when there are none.

    Raises:
        TimeoutError: it takes longer than `longest_s`.
    """
    parts: list[str] = []
    shown = length = left_out = history = 0
    clock, end = _Clock(), time.monotonic() + longest_s
    for change in changes:
        if time.monotonic() > end:
            raise TimeoutError(f"there is more to compare than {longest_s:g} s are enough for")
        if is_history(change.path):
            history += 1
            continue
        part = "".join(_parts(change, clock)) if shown < MOST_FILES and length < MOST_CHARACTERS else ""
        if not part or length + len(part) > MOST_CHARACTERS:
            left_out += 1
            continue
        parts.append(part)
        shown, length = shown + 1, length + len(part)
    if left_out:
        parts.append(f"# {_files(left_out, 'more ')} changed\n")
    if history:
        parts.append(f"# {_files(history)} changed in {HISTORY}\n")
    return "".join(parts)


def is_history(path: str) -> bool:
    """Whether `path` lies in the history of a repository, which is counted alone."""
    return HISTORY in path.split("/")


def git_mode(mode: int, *, is_link: bool) -> str:
    """The mode of a file or link with those permissions."""
    return LINK if is_link else EXECUTABLE if mode & 0o100 else REGULAR


class _Clock:
    """How much of `COMPARE_S` is left."""

    def __init__(self) -> None:
        self.left_s = COMPARE_S


def _files(count: int, more: str = "") -> str:
    return f"{count} {more}file{'' if count == 1 else 's'}"


def _parts(change: Change, clock: _Clock) -> Iterator[str]:
    before, after = change.before, change.after
    if before and after and before.mode[:3] != after.mode[:3]:  # git has no word for that
        yield from _parts(change._replace(after=None), clock)
        yield from _parts(change._replace(before=None), clock)
        return
    old, new = _quoted(f"a/{change.path}"), _quoted(f"b/{change.path}")
    if SPECIAL in [file.mode for file in (before, after) if file]:
        yield f"# {old if before else new}: neither a file nor a link, {'added' if after else 'deleted'}\n"
        return
    yield f"diff --git {old} {new}\n"
    if before is None and after is not None:
        yield f"new file mode {after.mode}\n"
    elif after is None and before is not None:
        yield f"deleted file mode {before.mode}\n"
    elif before and after and before.mode != after.mode:
        yield f"old mode {before.mode}\nnew mode {after.mode}\n"
    yield from _content(before, after, old if before else "/dev/null", new if after else "/dev/null", clock)


def _content(before: File | None, after: File | None, old: str, new: str, clock: _Clock) -> Iterator[str]:
    was, now = (b"" if file is None else file.content for file in (before, after))
    if was is None or now is None:
        sizes = f"{before.size_bytes if before else 0} bytes before, {after.size_bytes if after else 0} after"
        yield f"# The content is not shown: {sizes}\n"
    elif any(0 in content[:_LOOKED_AT_BYTES] for content in (was, now)):
        if was != now:
            yield f"Binary files {old} and {new} differ\n"
    elif was != now:
        yield f"--- {_ended(old)}\n+++ {_ended(new)}\n"
        began = time.monotonic()
        hunks = b"".join(_hunks(_lines(was), _lines(now), is_whole=clock.left_s <= 0))
        clock.left_s -= time.monotonic() - began
        yield decode(hunks)


def _ended(name: str) -> str:
    """A name so that `patch` sees where it ends, as git does it."""
    return f"{name}\t" if " " in name and not name.startswith('"') else name


def _lines(content: bytes) -> list[bytes]:
    return io.BytesIO(content).readlines()


def _hunks(before: list[bytes], after: list[bytes], *, is_whole: bool) -> Iterator[bytes]:
    """What differs, with the lines around it."""
    start = _common(before, after)
    shorter = min(len(before), len(after)) - start
    end = _common(before[::-1][:shorter], after[::-1][:shorter])
    first, beyond = max(0, start - CONTEXT), max(0, end - CONTEXT)
    before, after = before[first : len(before) - beyond], after[first : len(after) - beyond]
    if is_whole or _is_costly(before, after):
        groups = [_replaced(before, after, start - first, end - beyond)]
    else:
        groups = [*SequenceMatcher(None, before, after).get_grouped_opcodes(CONTEXT)]
    for group in groups:
        (_, i1, _, j1, _), (_, _, i2, _, j2) = group[0], group[-1]
        yield f"@@ -{_range(first + i1, first + i2)} +{_range(first + j1, first + j2)} @@\n".encode()
        for tag, b1, b2, a1, a2 in group:
            if tag == "equal":
                yield from _marked(b" ", before[b1:b2])
            else:
                yield from _marked(b"-", before[b1:b2])
                yield from _marked(b"+", after[a1:a2])


def _common(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    """How many lines both begin with."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _is_costly(before: Sequence[bytes], after: Sequence[bytes]) -> bool:
    if max(len(before), len(after)) > MOST_LINES:
        return True
    often, counts = len(after) // 100 + 1, Counter(after)
    matched = (counts[line] for line in before)
    return sum(count for count in matched if count <= often or len(after) < 200) > MOST_PAIRS


def _replaced(
    before: Sequence[bytes], after: Sequence[bytes], start: int, end: int
) -> list[tuple[str, int, int, int, int]]:
    """One change from the first line that differs to the last."""
    i, j = len(before), len(after)
    return [
        ("equal", 0, start, 0, start),
        ("replace", start, i - end, start, j - end),
        ("equal", i - end, i, j - end, j),
    ]


def _range(start: int, stop: int) -> str:
    length = stop - start
    return f"{start + 1}" if length == 1 else f"{start + 1 if length else start},{length}"


def _marked(mark: bytes, lines: Iterable[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield mark + (line if line.endswith(b"\n") else line + _NO_NEWLINE)


def _quoted(name: str) -> str:
    content = os.fsencode(name)
    text = content.decode(errors="surrogateescape")
    if not any(char in '"\\\x7f' or char < " " or "\ud800" <= char <= "\udfff" for char in text):
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in _PLAIN or (char > "\x7f" and not "\ud800" <= char <= "\udfff"):
        return char
    return "".join(_ESCAPES.get(code, f"\\{code:03o}") for code in char.encode(errors="surrogateescape"))


_PLAIN = {chr(code) for code in range(0x20, 0x7F)} - {'"', "\\"}

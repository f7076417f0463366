"""What agents printed, as text for a page: everything that would hide, turn or move text is spelled out.

Guarantees: what comes back holds no control character but the line feed and the tab, no character that changes the
direction of text and none without width; HTML is escaped by the templates, not here.
"""

import re
from typing import NamedTuple

from realwork.text import visible as spelled_out

SHOWN_CHARACTERS = 12_000
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


class Excerpt(NamedTuple):
    """The beginning and the end of a text.

    Attributes:
        omitted: characters between them; 0 where `head` is the whole text.
        size: characters of the whole text.
    """

    head: str
    tail: str
    omitted: int
    size: int


def visible(text: str) -> str:
    """`text` without terminal colours, as a page may be given it; a carriage return begins a line, too."""
    if text.isascii() and text.isprintable():
        return text
    return spelled_out(_COLOUR.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))


def excerpt(text: str, limit: int = SHOWN_CHARACTERS) -> Excerpt:
    """What of `text` is shown at once, made visible."""
    if len(text) <= limit:
        return Excerpt(visible(text), "", 0, len(text))
    head, tail = text[: limit * 2 // 3], text[-limit // 3 :]
    return Excerpt(visible(head), visible(tail), len(text) - len(head) - len(tail), len(text))

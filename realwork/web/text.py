"""What agents printed, as text for a page: everything that would hide, turn or move text is spelled out.

Guarantees: what comes back holds no control character but the line feed and the tab, no character that changes the
direction of text and none without width; HTML is escaped by the templates, not here.
"""

import re
from typing import NamedTuple

SHOWN_CHARACTERS = 12_000
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)


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
    """`text` without terminal colours, and with every other control and unseen character spelled out."""
    if text.isascii() and text.isprintable():
        return text
    text = _COLOUR.sub("", text).replace("\r\n", "\n")
    return _UNSEEN.sub(_spelled, text)


def excerpt(text: str, limit: int = SHOWN_CHARACTERS) -> Excerpt:
    """What of `text` is shown at once, made visible."""
    if len(text) <= limit:
        return Excerpt(visible(text), "", 0, len(text))
    head, tail = text[: limit * 2 // 3], text[-limit // 3 :]
    return Excerpt(visible(head), visible(tail), len(text) - len(head) - len(tail), len(text))


def _spelled(found: re.Match[str]) -> str:
    character = found[0]
    if character == "\r":
        return "\n"
    if ord(character) < 0x20:
        return chr(0x2400 + ord(character))
    return f"\N{MATHEMATICAL LEFT ANGLE BRACKET}U+{ord(character):04X}\N{MATHEMATICAL RIGHT ANGLE BRACKET}"

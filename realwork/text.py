"""Text that every reader accepts, and text that fits."""

import re

_SURROGATES = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def valid_unicode(text: str) -> str:
    """`text` with U+FFFD in place of every lone surrogate, so that it can be encoded."""
    return _SURROGATES.sub(_REPLACEMENT, text)


def valid_text(text: str) -> str:
    """`text` with U+FFFD in place of every lone surrogate and NUL, which endpoints and Parquet readers refuse."""
    return valid_unicode(text).replace("\0", _REPLACEMENT)


def decode(content: bytes) -> str:
    """`content` as valid text: UTF-8, with U+FFFD where it is none."""
    return valid_text(content.decode("utf-8", errors="replace"))


def shorten(text: str, limit: int, *, note: str | None = None) -> str:
    """Head and tail of `text`, if it is longer, with a line between them: how much is left out, or `note`."""
    if len(text) <= limit:
        return text
    head = limit // 2
    tail = limit - head
    return f"{text[:head]}\n[... {note or f'{len(text) - limit} characters omitted'} ...]\n{text[-tail:]}"


def tail(text: str, limit: int) -> str:
    """The last `limit` characters of `text`, without white space at the ends."""
    text = text.strip()
    return text if len(text) <= limit else f"...{text[-limit:]}"

"""Text that every reader accepts, and text that fits."""

import re

_SURROGATES = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SPACELESS = (0x00AD, 0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), *range(0x200B, 0x200E))
_JOINERS = (*range(0x2060, 0x2066), *range(0x206A, 0x2070), *range(0xFE00, 0xFE10), 0xFEFF)
_UNSEEN = (*_SPACELESS, *_JOINERS, 0x2028, 0x2029, 0x3164, 0xFFA0, *range(0xFFF9, 0xFFFC))
_TAGS = range(0xE0000, 0xE1000)
_PICTURES = (
    {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"}
    | {0x7F: "\N{SYMBOL FOR DELETE}"}
    | {code: f"\u27e8U+{code:04X}\u27e9" for code in (*range(0x80, 0xA0), *_BIDI, *_UNSEEN, *_TAGS)}
)


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


def visible(text: str) -> str:
    """`text` as a terminal may be given it: what would steer the terminal, or turn or hide what it shows, is shown.

    Line ends and tabs stay; a control character becomes its picture, as ␛ for escape, all else its code, as ⟨U+202E⟩.
    """
    return text.replace("\r\n", "\n").translate(_PICTURES)

"""Texts of agents and endpoints as they are shown: highlighted, folded, and unable to steer the terminal."""

from rich.syntax import Syntax
from rich.text import Text

from realwork.text import visible

MOST_LINES = 14
FIRST_LINES = 8
LONGEST_LINE = 1000
MOST_HIGHLIGHTED = 100_000
NOTE = "italic magenta"


def folded(text: str, *, language: str = "", style: str = "", indent: str = "", full: bool = False) -> Text:
    """`text` in `style`, or highlighted as `language`; head and tail of it with a count of the rest, unless `full`."""
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    left_out = 0 if full or len(lines) <= MOST_LINES else len(lines) - MOST_LINES
    parts = [lines] if not left_out else [lines[:FIRST_LINES], lines[FIRST_LINES + left_out :]]
    shown = [_lines(part, language, style, indent, None if full else LONGEST_LINE) for part in parts]
    note = Text(f"{indent}[... {left_out} lines left out ...]", style=NOTE)
    return Text("\n").join([shown[0], note, shown[1]] if left_out else shown)


def _lines(lines: list[str], language: str, style: str, indent: str, longest: int | None) -> Text:
    cut = [line if longest is None else line[:longest] for line in lines]
    shown = _highlighted(visible("\n".join(cut)), language, style)
    rows = []
    for line, whole in zip(shown.split("\n", allow_blank=True), lines, strict=True):
        left_out = 0 if longest is None else max(0, len(whole) - longest)
        note = Text(f" [... {left_out} characters left out ...]", style=NOTE) if left_out else Text()
        rows.append(Text.assemble(indent, line, note))
    return Text("\n").join(rows)


def _highlighted(text: str, language: str, style: str) -> Text:
    if not language or len(text) > MOST_HIGHLIGHTED:
        return Text(text, style=style)
    shown = Syntax("", language, theme="ansi_dark", background_color="default").highlight(text)
    shown.right_crop(max(0, len(shown) - len(text)))
    return shown if shown.plain == text else Text(text, style=style)


def language_of(path: str, content: str) -> str:
    """What a file's content is highlighted as, by its name."""
    return Syntax.guess_lexer(path, code=content[:1000])

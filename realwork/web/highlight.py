"""Code and diffs with their syntax marked.

Guarantees: the text is made visible first and escaped by the library that marks it; long ones stay as they are.
"""

from markupsafe import Markup, escape
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name, get_lexer_for_filename
from pygments.util import ClassNotFound

from realwork.web.text import visible

_LONGEST = 12_000
_FORMATTER = HtmlFormatter(nowrap=True)


def highlighted(text: str, language: str) -> Markup:
    """`text` as HTML; `language` is a name or the name of a file, plain text where neither is known."""
    shown = visible(text)
    if len(shown) > _LONGEST:
        return escape(shown)
    try:
        lexer = _lexer(language)
    except ClassNotFound:
        return escape(shown)
    return Markup(highlight(shown, lexer, _FORMATTER).removesuffix("\n"))


def _lexer(language: str) -> Lexer:
    if "." in language or "/" in language:
        return get_lexer_for_filename(language, stripnl=False, ensurenl=False)
    return get_lexer_by_name(language, stripnl=False, ensurenl=False)

"""Texts as readers and terminals may be given them."""

import unicodedata

import pytest

from realwork.text import visible


def test_words_line_ends_and_tabs_stay_as_they_are():
    text = "Grüße\t修理 👍\nש עברית"
    assert visible(text) == text
    assert visible("a\r\nb") == "a\nb"


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇"),
        ("good\rbad\x08", "good␍bad␈"),
        ("\x9b31m\x7f", "⟨U+009B⟩31m␡"),
        ("user\u202enimda\u2066x\u2069", "user⟨U+202E⟩nimda⟨U+2066⟩x⟨U+2069⟩"),
        ("a\u200bb\ufeffc\u2028d", "a⟨U+200B⟩b⟨U+FEFF⟩c⟨U+2028⟩d"),
        ("\U000e0041", "⟨U+E0041⟩"),
    ],
)
def test_what_steers_or_hides_is_shown(hidden, shown):
    assert visible(hidden) == shown


def test_no_character_that_terminals_obey_is_let_through():
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    kinds = {unicodedata.category(char) for char in visible(every).replace("\n", "").replace("\t", "")}
    assert "Cc" not in kinds
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert turning.isdisjoint(map(unicodedata.bidirectional, visible(every)))

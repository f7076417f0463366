"""What agents printed cannot hide, turn round or run."""

import pytest

from realwork.web.highlight import highlighted
from realwork.web.text import excerpt, visible


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]8;;http://evil\x07click\x1b]8;;\x07", "␛]8;;http://evil␇click␛]8;;␇"),
        ("\x1b[2J\x1b[1;1Hover", "␛[2J␛[1;1Hover"),
        ("abc\u202egnp.exe", "abc⟨U+202E⟩gnp.exe"),
        ("pay\u200bpal \ufeff \u2066x\u2069", "pay⟨U+200B⟩pal ⟨U+FEFF⟩ ⟨U+2066⟩x⟨U+2069⟩"),
        ("10%\r50%\r100%\r\n", "10%\n50%\n100%\n"),
        ("nul\0 del\x7f c1\x9b31m", "nul␀ del␡ c1⟨U+009B⟩31m"),
        ("tag\U000e0041", "tag⟨U+E0041⟩"),
        ("日本語 é 🙂", "日本語 é 🙂"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(written, shown):
    assert visible(written) == shown


def test_a_long_text_keeps_its_beginning_and_its_end():
    cut = excerpt("a" * 5_000_000 + "end", 1000)
    assert len(cut.head) + len(cut.tail) <= 1000
    assert cut.tail.endswith("end")
    assert cut.omitted == cut.size - len(cut.head) - len(cut.tail)
    assert excerpt("short", 1000).omitted == 0


@pytest.mark.parametrize("language", ["bash", "json", "diff", "x.py", "x.html", "", "no-such-language", "a/b"])
def test_marked_code_is_escaped_and_made_visible(language):
    marked = highlighted("<script>alert(1)</script>\n\u202e'\"&", language)
    assert "<script" not in marked
    assert "\u202e" not in marked

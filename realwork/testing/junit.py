"""Reads JUnit XML, which any test runner can write and any agent too.

Guarantees: whatever the bytes, either the cases come back or a `ValueError` says why not; memory is bounded, as there
is no tree, no entity and no depth beyond `MOST_DEPTH`, and cases come a few at a time; nothing is fetched.
"""

from collections.abc import Iterator
from xml.parsers import expat

from realwork.testing.evidence import LONGEST_MESSAGE, Case, CaseStatus, case

MOST_DEPTH = 100
MOST_READ_CASES = 200_000
_PIECE = 1 << 16
_OUTCOMES: dict[str, CaseStatus] = {"failure": "failed", "error": "error", "skipped": "skipped"}


def read_junit(content: bytes) -> Iterator[Case]:
    """The `testcase` elements of `content` in order, however deep; a case with no outcome in it has passed.

    Raises:
        ValueError: it is no XML, or more than is read; only then is it known.
    """
    reader = _Reader()
    try:
        for at in range(0, len(content), _PIECE):
            reader.parser.Parse(content[at : at + _PIECE], False)  # noqa: FBT003 - that it is all
            yield from reader.heard()
        reader.parser.Parse(b"", True)  # noqa: FBT003
        yield from reader.heard()
    except (expat.ExpatError, LookupError) as error:  # the latter for an encoding that there is not
        raise ValueError(f"it is no XML: {error}") from error


class _Reader:
    """Hears one element after the other."""

    def __init__(self) -> None:
        self._cases: list[Case] = []
        self._count = 0
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = self._refuse
        self._depth = 0
        self._current: dict[str, str] | None = None
        self._outcome: CaseStatus = "passed"
        self._said: list[str] = []
        self._hears = False

    def heard(self) -> list[Case]:
        """The cases since it was asked last."""
        cases, self._cases = self._cases, []
        return cases

    def _refuse(self, *_: object) -> None:
        raise ValueError("it has a document type, which results do not need")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise ValueError(f"its elements stand more than {MOST_DEPTH} deep in each other")
        plain = name.rpartition(" ")[2]
        if plain == "testcase":
            self._count += 1
            if self._count > MOST_READ_CASES:
                raise ValueError(f"it has more than {MOST_READ_CASES} cases")
            self._current, self._outcome, self._said = attributes, "passed", []
        elif self._current is not None and plain in _OUTCOMES:
            if self._outcome in ("passed", "skipped"):
                self._outcome = _OUTCOMES[plain]
            self._hears = True
            self._text(attributes.get("message", "") + "\n")

    def _end(self, name: str) -> None:
        self._depth -= 1
        self._hears = False
        if name.rpartition(" ")[2] != "testcase" or self._current is None:
            return
        attributes, self._current = self._current, None
        group, title = attributes.get("classname") or attributes.get("file", ""), attributes.get("name", "")
        name = "::".join(part for part in (group, title) if part) or "unnamed"
        self._cases.append(case(name, self._outcome, _seconds(attributes.get("time", "")), "".join(self._said)))

    def _text(self, text: str) -> None:
        if self._hears and sum(map(len, self._said)) < LONGEST_MESSAGE:
            self._said.append(text[:LONGEST_MESSAGE])


def _seconds(text: str) -> float:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return 0.0

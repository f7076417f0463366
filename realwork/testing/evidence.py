"""What is known of the tests that one test command ran, and whether that is a pass.

Guarantees: no exit code, and nothing that was printed, makes up for missing evidence; what is kept is bounded, what is
counted is all of it.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from realwork.text import shorten, valid_text
from realwork.types import Record

CaseStatus = Literal["passed", "failed", "skipped", "error"]
MOST_CASES = 5000
"""Rows of one test command; when there are more, those that have not passed are among them."""
LONGEST_NAME = 500
LONGEST_MESSAGE = 2000


class Case(Record):
    """One test; `message` says why it has not passed."""

    name: str
    status: CaseStatus
    duration_s: float = 0.0
    message: str = ""


class Evidence(Record):
    """What the tests of one command did.

    Attributes:
        cases: in their order, at most `MOST_CASES`.
        passed, failed, skipped: how many, those that are not among `cases` included; errors count as failed.
        problem: why none of it can be believed.
    """

    cases: tuple[Case, ...] = ()
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    problem: str | None = None

    def why_not(self, expected_tests: int | None) -> str | None:
        """Why a command that exited 0 has not passed, null if it has."""
        if self.problem is not None:
            return self.problem
        if self.failed:
            return f"{self.failed} of its tests did not pass, although it exited 0"
        wanted = expected_tests or 1
        if self.passed < wanted:
            left_out = f", {self.skipped} were skipped" if self.skipped else ""
            return f"{self.passed} of its tests passed{left_out}; at least {wanted} had to"
        return None


def evidence(cases: Iterable[Case]) -> Evidence:
    """The sum of `cases`; no more of them than are kept are held in memory."""
    counts = Counter[CaseStatus]()
    bad: list[tuple[int, Case]] = []
    good: list[tuple[int, Case]] = []
    for at, one in enumerate(cases):
        counts[one.status] += 1
        same = good if one.status in ("passed", "skipped") else bad
        if len(same) < MOST_CASES:
            same.append((at, one))
    kept = sorted((bad + good)[:MOST_CASES], key=lambda found: found[0])
    return Evidence(
        cases=tuple(one for _, one in kept),
        passed=counts["passed"],
        skipped=counts["skipped"],
        failed=counts["failed"] + counts["error"],
    )


def case(name: str, status: CaseStatus, duration_s: float, message: str) -> Case:
    """A case of texts that may be anything."""
    return Case(
        name=shorten(valid_text(name), LONGEST_NAME, note=".."),
        status=status,
        duration_s=duration_s if 0 <= duration_s < float("inf") else 0.0,
        message=shorten(valid_text(message.strip()), LONGEST_MESSAGE),
    )

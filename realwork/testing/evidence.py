"""What is known of the tests that one test command ran, and whether that is a pass.

Guarantees: no exit code, and nothing that was printed, makes up for missing evidence; what is kept is bounded, what is
counted is all of it.
"""

from collections.abc import Iterable
from typing import Literal

from realwork.text import shorten, valid_text
from realwork.types import Record

CaseStatus = Literal["passed", "failed", "skipped", "error"]
MOST_CASES = 5000
"""Rows of one test command; those that have not passed come first when there are more."""
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
    """The sum of `cases`."""
    known = list(cases)
    passed = sum(case.status == "passed" for case in known)
    skipped = sum(case.status == "skipped" for case in known)
    if len(known) > MOST_CASES:
        known.sort(key=lambda case: case.status in ("passed", "skipped"))
    return Evidence(
        cases=tuple(known[:MOST_CASES]), passed=passed, skipped=skipped, failed=len(known) - passed - skipped
    )


def case(name: str, status: CaseStatus, duration_s: float, message: str) -> Case:
    """A case of texts that may be anything."""
    return Case(
        name=shorten(valid_text(name), LONGEST_NAME, note=".."),
        status=status,
        duration_s=duration_s if 0 <= duration_s < float("inf") else 0.0,
        message=shorten(valid_text(message.strip()), LONGEST_MESSAGE),
    )

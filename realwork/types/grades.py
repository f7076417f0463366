"""What the tests said of the work."""

from datetime import datetime
from typing import Literal

from realwork.types.records import Record

TestStatus = Literal["passed", "failed", "skipped", "error", "timeout"]
TestKind = Literal["command", "case"]


class TestResult(Record):
    """What one test command did, or one of the tests that it ran and told of: a case.

    Attributes:
        name: the command's own text, or the id that the test runner gives the case.
        command: the one that ran the case.
        status: a command passes or fails, or its time runs out; a case may be skipped or never get as far as its body.
        started_at: of a case: when its command began.
        exit_code: null for a case, and for a command whose time ran out.
        error: standard error, or why a case, or a command that exited 0, has not passed.
    """

    __test__ = False

    name: str
    kind: TestKind = "command"
    command: str
    status: TestStatus
    started_at: datetime
    duration_s: float
    exit_code: int | None = None
    output: str = ""
    error: str = ""


class NamedReward(Record):
    """One component of the reward."""

    name: str
    value: float
    weight: float = 1.0

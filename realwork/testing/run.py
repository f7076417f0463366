"""Runs one test command and says what came of it: the command's result, then those of its cases.

Guarantees: each command is one execution of its own, apart from what commands before it have left; where the tests
themselves can be seen, the exit code alone makes no pass; whatever was written there before is not taken for a result.
"""

import posixpath
import shlex
from datetime import UTC, datetime

from realwork.config import UnitTest
from realwork.errors import FileError
from realwork.sandbox.base import CommandResult, Sandbox
from realwork.testing.evidence import Case, Evidence, evidence
from realwork.testing.junit import read_junit
from realwork.testing.witness import Witness
from realwork.testing.words import runs_pytest
from realwork.text import decode
from realwork.types import Record, TestResult

MOST_JUNIT_BYTES = 8 << 20
MOST_JUNIT_FILES = 64
STEP_S = 20.0
"""For looking for files."""
_NO_REPORT = (
    "pytest did not begin, or began without the plugin by which realwork sees its tests, although the command runs it. "
    "If it has to run without PYTHONPATH or PYTEST_ADDOPTS, start it from a script"
)


class TestRun(Record):
    """How test commands run in one sandbox."""

    __test__ = False

    working_directory: str
    timeout_s: float
    limit_bytes: int = 65536


async def run_test(sandbox: Sandbox, test: UnitTest, run: TestRun) -> list[TestResult]:
    """Run `test` in `sandbox`; its result comes first, then one for each test that it told of.

    Raises:
        SandboxError: the sandbox failed.
    """
    answer = runs_pytest(test.command)
    witness = None
    command = test.command
    if answer != "no":
        witness = Witness()
        await witness.enter(sandbox, run.working_directory)
        command = witness.beside(command)
    if test.junit:
        await _files(sandbox, test.junit, run, "rm -rf --")
    started_at = datetime.now(UTC)
    ended = await _execute(sandbox, command, run)
    seen = await witness.leave(sandbox) if witness else None
    if answer == "maybe" and witness and _lost_plugin(ended, witness):
        ended = await _execute(sandbox, test.command, run)
    if seen is None and answer == "yes":
        seen = Evidence(problem=_NO_REPORT)
    if seen is None and test.junit:
        seen = await _read_junit(sandbox, test.junit, run)
    if seen is None and test.expected_tests:
        seen = Evidence(problem="it tells of no tests: it neither runs pytest nor has `junit`, so none can be counted")
    return _results(test, ended, started_at, seen)


async def _execute(sandbox: Sandbox, command: str, run: TestRun) -> CommandResult:
    return await sandbox.execute(
        command,
        timeout_s=run.timeout_s,
        working_directory=run.working_directory,
        limit_bytes=run.limit_bytes,
        apart=True,
    )


def _lost_plugin(ended: CommandResult, witness: Witness) -> bool:
    """Whether pytest was told of the plugin, but not of the place where it stands."""
    said = ended.stdout + ended.stderr
    return ended.exit_code not in (0, None) and f'"{witness.plugin}"'.encode() in said


async def _files(sandbox: Sandbox, pattern: str, run: TestRun, what: str) -> list[str]:
    """Do `what` with each file that matches; the lines that this prints."""
    looking = (
        f'IFS=; for file in {_glob(pattern)}; do if [ -e "$file" ] || [ -L "$file" ]; then {what} "$file"; fi; done'
    )
    done = await sandbox.execute(
        looking, timeout_s=STEP_S, working_directory=run.working_directory, limit_bytes=1 << 16, apart=True
    )
    return decode(done.stdout).splitlines()


def _glob(pattern: str) -> str:
    """`pattern` for a shell: wildcards work, everything else is text."""
    return "".join(part if part in ("*", "?") else shlex.quote(part) for part in pattern)


async def _read_junit(sandbox: Sandbox, pattern: str, run: TestRun) -> Evidence:
    files = await _files(sandbox, pattern, run, "printf '%s\\n'")
    if not files:
        return Evidence(problem=f"it has written no {pattern}")
    if len(files) > MOST_JUNIT_FILES:
        return Evidence(problem=f"more than {MOST_JUNIT_FILES} files match {pattern}")
    cases: list[Case] = []
    for name in files:
        try:
            found = await sandbox.read_file(posixpath.join(run.working_directory, name), limit_bytes=MOST_JUNIT_BYTES)
            if found.size_bytes > MOST_JUNIT_BYTES:
                return Evidence(problem=f"{name} has {found.size_bytes} bytes; at most {MOST_JUNIT_BYTES} are read")
            cases += read_junit(found.content)
        except (FileError, ValueError) as error:
            return Evidence(problem=f"{name} cannot be read: {error}")
    return evidence(cases)


def _results(test: UnitTest, ended: CommandResult, started_at: datetime, seen: Evidence | None) -> list[TestResult]:
    error = decode(ended.stderr)
    why_not = seen.why_not(test.expected_tests) if seen and ended.exit_code == 0 else None
    command = TestResult(
        name=test.command,
        command=test.command,
        status="timeout" if ended.timed_out else "passed" if ended.exit_code == 0 and not why_not else "failed",
        started_at=started_at,
        duration_s=ended.duration_s,
        exit_code=ended.exit_code,
        output=decode(ended.stdout),
        error="\n".join(part for part in (error, f"realwork: {why_not}." if why_not else "") if part),
    )
    return [command, *(_of_case(case, command) for case in (seen.cases if seen else ()))]


def _of_case(case: Case, command: TestResult) -> TestResult:
    return TestResult(
        name=case.name,
        kind="case",
        command=command.command,
        status=case.status,
        started_at=command.started_at,
        duration_s=case.duration_s,
        error=case.message,
    )

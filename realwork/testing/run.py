"""Runs one test command and says what came of it: the command's result, then those of its cases.

Guarantees: each command is one execution of its own, apart from what commands before it have left; where the tests
themselves can be seen, the exit code alone makes no pass; whatever was written there before is not taken for a result.
"""

import asyncio
import posixpath
import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from pydantic import ConfigDict

from realwork.config import UnitTest
from realwork.errors import FileError
from realwork.sandbox.base import DISK_FULL, OUT_OF_MEMORY, CommandResult, Sandbox
from realwork.sandbox.cpu_slots import NoSlots, Slots
from realwork.testing.evidence import Case, Evidence, evidence
from realwork.testing.junit import read_junit
from realwork.testing.witness import Witness
from realwork.testing.words import runs_pytest
from realwork.text import decode
from realwork.types import Record, TestResult

MOST_JUNIT_BYTES = 8 << 20
"""Of all files of a test command together."""
MOST_JUNIT_FILES = 64
STEP_S = 20.0
"""For looking for files."""
_NO_REPORT = (
    "pytest did not begin, or began without the plugin by which realwork sees its tests, although the command runs it. "
    "If it has to run without PYTHONPATH or PYTEST_ADDOPTS, start it from a script"
)


class TestRun(Record):
    """How test commands run in one sandbox; each has a CPU slot."""

    __test__ = False
    model_config = ConfigDict(arbitrary_types_allowed=True)

    working_directory: str
    timeout_s: float
    limit_bytes: int = 65536
    slots: Slots = NoSlots()


class Outcome(Record):
    """What came of a test command.

    Attributes:
        results: that of the command first, then one for each test that it told of.
        is_unseen: the command runs pytest, which did not begin, or without the plugin by which realwork sees its tests.
        cannot_watch: and that decides the result: pytest says that it cannot load it, or the command exited 0.
    """

    results: tuple[TestResult, ...]
    is_unseen: bool = False
    cannot_watch: bool = False


async def run_test(sandbox: Sandbox, test: UnitTest, run: TestRun) -> Outcome:
    """Run `test` in `sandbox`.

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
    names_plugin = witness is not None and seen is None and _names_plugin(ended, witness)
    if answer == "maybe" and names_plugin:
        ended = await _execute(sandbox, test.command, run)
    is_unseen = answer == "yes" and seen is None
    cannot_watch = is_unseen and (names_plugin or ended.exit_code == 0)
    if is_unseen:
        seen = Evidence(problem=_NO_REPORT)
    if seen is None and test.junit:
        seen = await _read_junit(sandbox, test.junit, run)
    if seen is None and test.expected_tests:
        seen = Evidence(problem="it tells of no tests: it neither runs pytest nor has `junit`, so none can be counted")
    notes = [OUT_OF_MEMORY] if ended.oom else []
    notes += [DISK_FULL] if sandbox.is_disk_full else []
    results = _results(test, ended, started_at, seen, notes)
    return Outcome(results=tuple(results), is_unseen=is_unseen, cannot_watch=cannot_watch)


async def _execute(sandbox: Sandbox, command: str, run: TestRun) -> CommandResult:
    async with run.slots.taken():
        return await sandbox.execute(
            command,
            timeout_s=run.timeout_s,
            working_directory=run.working_directory,
            limit_bytes=run.limit_bytes,
            apart=True,
        )


def _names_plugin(ended: CommandResult, witness: Witness) -> bool:
    """Whether pytest was told of the plugin, but not of the place where it stands, or cannot load it from there."""
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
    contents: dict[str, bytes] = {}
    for name in files:
        try:
            found = await sandbox.read_file(posixpath.join(run.working_directory, name), limit_bytes=MOST_JUNIT_BYTES)
        except FileError as error:
            return Evidence(problem=f"{name} cannot be read: {error}")
        contents[name] = found.content
        if found.size_bytes > MOST_JUNIT_BYTES or sum(map(len, contents.values())) > MOST_JUNIT_BYTES:
            return Evidence(problem=f"{pattern}: there are more than {MOST_JUNIT_BYTES} bytes up to {name}")
    try:
        return await asyncio.to_thread(evidence, _cases(contents))
    except ValueError as error:
        return Evidence(problem=str(error))


def _cases(files: Mapping[str, bytes]) -> Iterator[Case]:
    for name, content in files.items():
        try:
            yield from read_junit(content)
        except ValueError as error:
            raise ValueError(f"{name} cannot be read: {error}") from error


def _results(
    test: UnitTest, ended: CommandResult, started_at: datetime, seen: Evidence | None, notes: list[str]
) -> list[TestResult]:
    why_not = seen.why_not(test.expected_tests) if seen and ended.exit_code == 0 else None
    said = [*([f"{why_not}."] if why_not else []), *notes]
    command = TestResult(
        name=test.command,
        command=test.command,
        status="timeout" if ended.timed_out else "passed" if ended.exit_code == 0 and not why_not else "failed",
        started_at=started_at,
        duration_s=ended.duration_s,
        exit_code=ended.exit_code,
        output=decode(ended.stdout),
        error="\n".join(part for part in (decode(ended.stderr), *(f"realwork: {note}" for note in said)) if part),
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

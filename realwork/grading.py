"""Tests to reward: the tests alone say what the work is worth.

Guarantees: nothing that the agent left running runs beside the tests; what they need and the agent could have changed
stands again as the user gave it; each test command is one execution of its own. In a fresh sandbox nothing of the
agent's is there but its working directory, without the files that tell a test runner what to do.
"""

import asyncio
import logging
import posixpath
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from pydantic import ConfigDict

from realwork.config import EnvironmentConfig, GradingConfig, UnitTest
from realwork.environment import PackedFolder
from realwork.errors import (
    ArtifactRejected,
    FileError,
    GradingError,
    PrepareError,
    SandboxError,
    blame,
)
from realwork.sandbox.artifact import checked
from realwork.sandbox.base import Sandbox
from realwork.sandbox.cpu_slots import NoSlots, Slots
from realwork.testing.run import Outcome, TestRun, run_test
from realwork.testing.takeover import (
    OpenSandbox,
    Takeover,
    blame_the_agent,
    is_gone,
    open_with_work,
    untouched_must_pass,
)
from realwork.types import Record, TestResult

log = logging.getLogger(__name__)

LOOK_S = 30.0
TRANSFER_S = 600.0
"""For fresh sandboxes and the way of the working directory into one, or, if that fails, into another."""

_NOT_WATCHED = (
    "pytest runs without the plugin by which realwork sees its tests, also where no agent was: that takes Python 3.7, "
    "pytest 6 or newer, and the variables PYTHONPATH and PYTEST_ADDOPTS. If it has to be so, start pytest from a script"
)

MakeReady = Callable[[int], Awaitable[None]]


class Grading(Record):
    """What is to be graded, and how.

    Attributes:
        folders: the copied folders.
        test_folders: folders that the agent's sandbox never had.
        test_timeout_s: seconds one test command may take.
        preparation_s: seconds a fresh sandbox may take to be prepared, where that has to be done in each.
        limit_bytes: of each stream of a test command, kept.
        slots: one of them for each test command.
        patience_s: seconds that the test commands may wait for them, beyond their time.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    environment: EnvironmentConfig
    config: GradingConfig = GradingConfig()
    folders: tuple[PackedFolder, ...] = ()
    test_folders: tuple[PackedFolder, ...] = ()
    test_timeout_s: float
    preparation_s: float = 0.0
    limit_bytes: int = 65536
    slots: Slots = NoSlots()
    patience_s: float = 0.0

    @property
    def restaged(self) -> list[PackedFolder]:
        """The copied folders that are pristine for the tests."""
        names = self.config.restage_folders
        return [folder for folder in self.folders if names is None or folder.name in names]

    @property
    def takeover(self) -> Takeover:
        """What of the agent's work goes into a fresh sandbox."""
        return Takeover(
            directory=self.environment.working_directory,
            kept=tuple(folder.name for folder in self.restaged),
            absent=tuple(folder.name for folder in self.test_folders),
        )

    @property
    def test_run(self) -> TestRun:
        """How a test command runs."""
        return TestRun(
            working_directory=self.environment.working_directory,
            timeout_s=self.test_timeout_s,
            limit_bytes=self.limit_bytes,
            slots=self.slots,
        )

    @property
    def longest_s(self) -> float:
        """Seconds after which the grade must be there."""
        tests_s = self.test_timeout_s * (len(self.environment.unit_tests) + 2)
        return tests_s + self.patience_s + self.preparation_s + TRANSFER_S


class Grade(Record):
    """What the tests said.

    Attributes:
        reward: test commands that passed over all of them, in [0, 1].
        success: whether all of them did.
        mode: fresh or same.
        changed_outside: files that the agent changed outside its working directory and that therefore were not there;
            null when unknown, or when they were.
    """

    reward: float
    success: bool
    test_results: tuple[TestResult, ...]
    mode: str
    changed_outside: int | None = None


async def check_gradable(sandbox: Sandbox, environment: EnvironmentConfig, config: GradingConfig) -> None:
    """Find out, before any work is done, whether the image has what `grade` needs in it.

    Raises:
        PrepareError: it has not.
    """
    if config.mode == "same":
        return
    found = await sandbox.execute("command -v find", timeout_s=LOOK_S, working_directory="/")
    if found.exit_code != 0:
        raise PrepareError(
            f"{environment.id}: grading in a fresh sandbox needs the program find, and there is none on the PATH of "
            'its image. Add it (package findutils, or busybox), or set grading_config.mode to "same"'
        )


async def _nothing() -> None:
    return None


async def grade(
    sandbox: Sandbox, grading: Grading, open_fresh: OpenSandbox, *, on_left: Callable[[], Awaitable[None]] = _nothing
) -> Grade:
    """Run the environment's tests on what the agent left in `sandbox`, of which nothing else can be asked afterwards.

    Args:
        open_fresh: another sandbox in which the environment stands ready.
        on_left: called when nothing runs in `sandbox` any more, and everything is as the agent has left it.

    Raises:
        GradingError: a sandbox failed before every test had its result.
    """
    with blame(GradingError, f"{grading.environment.id}: running the tests"):
        try:
            if grading.config.mode == "same":
                return await _grade_same(sandbox, grading, open_fresh, on_left)
            return await _grade_fresh(sandbox, grading, open_fresh, on_left)
        except ArtifactRejected as error:
            return _rejected(grading, str(error))
        except (SandboxError, FileError) as error:
            raise GradingError(f"{grading.environment.id}: the sandbox failed under the tests: {error}") from error


async def _grade_same(
    sandbox: Sandbox, grading: Grading, open_fresh: OpenSandbox, on_left: Callable[[], Awaitable[None]]
) -> Grade:
    staged = [*grading.restaged, *grading.test_folders]
    is_as_left = True

    async def make_ready(_: int) -> None:
        nonlocal is_as_left
        await sandbox.stop_processes()
        if is_as_left:
            is_as_left = False
            await on_left()
        await _stage(sandbox, grading, staged)

    return _grade(grading, await _run_tests(sandbox, grading, make_ready, open_fresh))


async def _grade_fresh(
    sandbox: Sandbox, grading: Grading, open_fresh: OpenSandbox, on_left: Callable[[], Awaitable[None]]
) -> Grade:
    directory = grading.environment.working_directory
    await sandbox.freeze()
    await on_left()
    counting = asyncio.create_task(_changed_outside(sandbox, directory))
    try:
        async with open_with_work(sandbox, grading.takeover, open_fresh) as fresh:
            results = await _run_tests(
                fresh, grading, partial(_make_fresh_ready, fresh, grading, open_fresh), open_fresh
            )
        return _grade(grading, results, await counting)
    finally:
        counting.cancel()


async def _changed_outside(sandbox: Sandbox, directory: str) -> int | None:
    try:
        return await sandbox.changed_outside(directory)
    except SandboxError:
        return None


async def _stage(sandbox: Sandbox, grading: Grading, folders: Sequence[PackedFolder]) -> None:
    directory = grading.environment.working_directory
    for folder in folders:
        await sandbox.remove(posixpath.join(directory, folder.name))
        await sandbox.copy_in(directory, folder.archive)


async def _make_fresh_ready(sandbox: Sandbox, grading: Grading, open_fresh: OpenSandbox, number: int) -> None:
    """Bring in the folders for the tests, and from the second command on, the copied ones as they were at first."""
    if number:
        await sandbox.stop_processes()
    if number and grading.restaged:
        directory, names = grading.environment.working_directory, {folder.name for folder in grading.restaged}
        async with open_fresh() as untouched:
            for name in names:
                await sandbox.remove(posixpath.join(directory, name))
            others = partial(_is_elsewhere, names)
            with untouched_must_pass():
                await sandbox.copy_in(directory, checked(untouched.archive(directory), directory, leave_out=others))
    await _stage(sandbox, grading, grading.test_folders)


def _is_elsewhere(folders: set[str], path: str, _target: str) -> bool:
    """Whether `path`, below the working directory, is in none of `folders`."""
    return path.partition("/")[0] not in folders


async def _run_tests(
    sandbox: Sandbox, grading: Grading, make_ready: MakeReady, open_fresh: OpenSandbox
) -> list[TestResult]:
    """Each command finds nothing running that those before it have left, and what is pristine as it was.

    A sandbox in which nothing works any more, because of what ran there, has failed this and all later tests.

    Raises:
        GradingError: the image has a pytest that cannot be watched.
        SandboxError, FileError: the sandbox is gone, or an untouched one does not work either.
    """
    results: list[TestResult] = []
    tests = grading.environment.unit_tests
    for number, test in enumerate(tests):
        try:
            outcome = await _run_ready(sandbox, grading, partial(make_ready, number), test, open_fresh)
        except ArtifactRejected as error:
            return results + [
                _failed(left, f"nothing works any more in the sandbox: {error}") for left in tests[number:]
            ]
        if outcome.cannot_watch and (await _run_untouched(grading, test, open_fresh)).is_unseen:
            raise GradingError(f"{grading.environment.id}: {test.command!r}: {_NOT_WATCHED}")
        results += outcome.results
    return results


async def _run_ready(
    sandbox: Sandbox,
    grading: Grading,
    make_ready: Callable[[], Awaitable[None]],
    test: UnitTest,
    open_fresh: OpenSandbox,
) -> Outcome:
    """Make the sandbox ready and run a test; where that fails, see whether it does untouched, and try once more.

    Raises:
        ArtifactRejected: it does not work twice, and does untouched.
    """
    try:
        await make_ready()
        return await run_test(sandbox, test, grading.test_run)
    except (SandboxError, FileError) as error:
        if is_gone(error):
            raise
        log.info("The tests cannot be run, which is tried again: %s", error)
    await _run_untouched(grading, test, open_fresh)
    with blame_the_agent():
        await make_ready()
        return await run_test(sandbox, test, grading.test_run)


async def _run_untouched(grading: Grading, test: UnitTest, open_fresh: OpenSandbox) -> Outcome:
    """Run a test where no agent was: does it work there?"""
    async with open_fresh() as untouched:
        await untouched.stop_processes()
        return await run_test(untouched, test, grading.test_run)


def _grade(grading: Grading, results: Sequence[TestResult], changed_outside: int | None = None) -> Grade:
    commands = [result for result in results if result.kind == "command"]
    passed = sum(result.status == "passed" for result in commands)
    return Grade(
        reward=passed / len(commands),
        success=passed == len(commands),
        test_results=tuple(results),
        mode=grading.config.mode,
        changed_outside=changed_outside,
    )


def _rejected(grading: Grading, why: str) -> Grade:
    """The agent's own doing: no test can be run, none passes."""
    said = f"artifact_rejected: {grading.environment.working_directory}: {why}"
    return _grade(grading, [_failed(test, said) for test in grading.environment.unit_tests])


def _failed(test: UnitTest, why: str) -> TestResult:
    return TestResult(
        name=test.command,
        command=test.command,
        status="failed",
        started_at=datetime.now(UTC),
        duration_s=0.0,
        error=why,
    )

"""Tests to reward: the tests alone say what the work is worth.

Guarantees: nothing that the agent left running runs beside the tests; what they need and the agent could have changed
stands again as the user gave it; each test command is one execution of its own. In a fresh sandbox nothing of the
agent's is there but its working directory, without the files that tell a test runner what to do.
"""

import asyncio
import posixpath
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial

from realwork.config import EnvironmentConfig, GradingConfig
from realwork.environment import PackedFolder
from realwork.errors import ArtifactRejected, FileError, GradingError, SandboxError, blame
from realwork.sandbox.artifact import checked
from realwork.sandbox.base import Keep, Sandbox
from realwork.testing.run import TestRun, run_test
from realwork.testing.settings import read_settings, restore_settings
from realwork.types import Record, TestResult

CONTROL_FILES = (
    "conftest.py",
    "pytest.ini",
    ".pytest.ini",
    "pytest.toml",
    ".pytest.toml",
    "tox.ini",
    "sitecustomize.py",
    "usercustomize.py",
    "entry_points.txt",
    "*.pth",
)
"""What decides which tests run, or what runs before them: the agent's own do not reach a fresh sandbox."""
LIBRARIES = "site-packages"
"""Below it an installed package has such files of its own."""
TRANSFER_S = 240.0
"""For a fresh sandbox and the way of the working directory into it."""

OpenSandbox = Callable[[], AbstractAsyncContextManager[Sandbox]]


class Grading(Record):
    """What is to be graded, and how.

    Attributes:
        folders: the copied folders.
        test_folders: folders that the agent's sandbox never had.
        test_timeout_s: seconds one test command may take.
        limit_bytes: of each stream of a test command, kept.
    """

    environment: EnvironmentConfig
    config: GradingConfig = GradingConfig()
    folders: tuple[PackedFolder, ...] = ()
    test_folders: tuple[PackedFolder, ...] = ()
    test_timeout_s: float
    limit_bytes: int = 65536

    @property
    def restaged(self) -> list[PackedFolder]:
        """The copied folders that are pristine for the tests."""
        names = self.config.restage_folders
        return [folder for folder in self.folders if names is None or folder.name in names]

    @property
    def longest_s(self) -> float:
        """Seconds after which the grade must be there."""
        return self.test_timeout_s * len(self.environment.unit_tests) + TRANSFER_S


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


async def grade(sandbox: Sandbox, grading: Grading, open_fresh: OpenSandbox) -> Grade:
    """Run the environment's tests on what the agent left in `sandbox`, of which nothing else can be asked afterwards.

    Args:
        open_fresh: another sandbox in which the environment stands ready.

    Raises:
        GradingError: a sandbox failed before every test had its result.
    """
    with blame(GradingError, f"{grading.environment.id}: running the tests"):
        try:
            if grading.config.mode == "same":
                return await _grade_same(sandbox, grading)
            return await _grade_fresh(sandbox, grading, open_fresh)
        except ArtifactRejected as error:
            return _rejected(grading, str(error))
        except (SandboxError, FileError) as error:
            raise GradingError(f"{grading.environment.id}: the sandbox failed under the tests: {error}") from error


async def _grade_same(sandbox: Sandbox, grading: Grading) -> Grade:
    await sandbox.stop_processes()
    await _stage(sandbox, grading, [*grading.restaged, *grading.test_folders])
    return _grade(grading, await _run_tests(sandbox, grading))


async def _grade_fresh(sandbox: Sandbox, grading: Grading, open_fresh: OpenSandbox) -> Grade:
    directory = grading.environment.working_directory
    await sandbox.freeze()
    counting = asyncio.create_task(_changed_outside(sandbox, directory))
    try:
        async with open_fresh() as fresh:
            await _take_over(sandbox, fresh, grading)
            await _stage(fresh, grading, grading.test_folders)
            results = await _run_tests(fresh, grading)
        return _grade(grading, results, await counting)
    finally:
        counting.cancel()


async def _changed_outside(sandbox: Sandbox, directory: str) -> int | None:
    try:
        return await sandbox.changed_outside(directory)
    except SandboxError:
        return None


async def _take_over(source: Sandbox, fresh: Sandbox, grading: Grading) -> None:
    """Replace the working directory of `fresh` by that of `source`, but for what has to be pristine."""
    directory = grading.environment.working_directory
    pristine = [folder.name for folder in grading.restaged]
    settings = await read_settings(fresh, directory)
    await fresh.empty(directory, keep=Keep(names=CONTROL_FILES, folders=tuple(pristine)))
    stays_away = partial(_stays_away, {*pristine, *(folder.name for folder in grading.test_folders)})
    await fresh.copy_in(directory, checked(source.archive(directory), leave_out=stays_away))
    await restore_settings(fresh, directory, settings)


def _stays_away(folders: set[str], path: str) -> bool:
    """Whether the agent's version of `path`, below the working directory, is not taken over."""
    parts = path.split("/")
    name = parts[-1]
    controls = name in CONTROL_FILES or name.endswith(".pth")
    return parts[0] in folders or (controls and LIBRARIES not in parts)


async def _stage(sandbox: Sandbox, grading: Grading, folders: Sequence[PackedFolder]) -> None:
    directory = grading.environment.working_directory
    for folder in folders:
        await sandbox.remove(posixpath.join(directory, folder.name))
        await sandbox.copy_in(directory, folder.archive)


async def _run_tests(sandbox: Sandbox, grading: Grading) -> list[TestResult]:
    run = TestRun(
        working_directory=grading.environment.working_directory,
        timeout_s=grading.test_timeout_s,
        limit_bytes=grading.limit_bytes,
    )
    return [result for test in grading.environment.unit_tests for result in await run_test(sandbox, test, run)]


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
    now = datetime.now(UTC)
    results = [
        TestResult(
            name=test.command,
            command=test.command,
            status="failed",
            started_at=now,
            duration_s=0.0,
            error=f"artifact_rejected: {grading.environment.working_directory}: {why}",
        )
        for test in grading.environment.unit_tests
    ]
    return _grade(grading, results)

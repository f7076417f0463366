"""Tests to reward: the tests alone say what the work is worth.

The tests run where the agent worked, after everything it left running is killed and every copied folder stands again as
the user gave it. Each test command is one execution of its own.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from realwork.config import EnvironmentConfig
from realwork.environment import PackedFolder
from realwork.errors import FileError, GradingError, SandboxError, blame
from realwork.sandbox.base import Sandbox
from realwork.text import decode
from realwork.types import Record, TestResult

GRADING_MODE = "same"


class Grade(Record):
    """What the tests said.

    Attributes:
        reward: test commands that exited 0 over all of them, in [0, 1].
        success: whether all of them did.
    """

    reward: float
    success: bool
    test_results: tuple[TestResult, ...]


async def grade(
    sandbox: Sandbox,
    environment: EnvironmentConfig,
    folders: Sequence[PackedFolder],
    *,
    test_timeout_s: float,
    limit_bytes: int = 65536,
) -> Grade:
    """Run the environment's tests in `sandbox`.

    Raises:
        GradingError: the sandbox failed before every test had its result.
    """
    with blame(GradingError, f"{environment.id}: running the tests"):
        try:
            await _freeze(sandbox, environment, folders)
            results = [
                await _run_test(sandbox, environment, command, test_timeout_s, limit_bytes)
                for command in environment.unit_tests
            ]
        except (SandboxError, FileError) as error:
            raise GradingError(f"{environment.id}: the sandbox failed under the tests: {error}") from error
    passed = sum(result.status == "passed" for result in results)
    return Grade(reward=passed / len(results), success=passed == len(results), test_results=tuple(results))


async def _freeze(sandbox: Sandbox, environment: EnvironmentConfig, folders: Sequence[PackedFolder]) -> None:
    await sandbox.stop_processes()
    for folder in folders:
        await sandbox.remove(f"{environment.working_directory}/{folder.name}")
        await sandbox.copy_in(environment.working_directory, folder.archive)


async def _run_test(
    sandbox: Sandbox, environment: EnvironmentConfig, command: str, timeout_s: float, limit_bytes: int
) -> TestResult:
    started_at = datetime.now(UTC)
    result = await sandbox.execute(
        command,
        timeout_s=timeout_s,
        working_directory=environment.working_directory,
        limit_bytes=limit_bytes,
        apart=True,
    )
    return TestResult(
        name=command,
        command=command,
        status="timeout" if result.timed_out else "passed" if result.exit_code == 0 else "failed",
        started_at=started_at,
        duration_s=result.duration_s,
        exit_code=result.exit_code,
        output=decode(result.stdout),
        error=decode(result.stderr),
    )

"""The way of an agent's work into a sandbox of its own for the tests."""

import asyncio
import posixpath
from contextlib import asynccontextmanager

import pytest

from realwork.errors import ArtifactRejected, GradingError, SandboxError, SandboxLost
from realwork.sandbox.base import CommandResult
from realwork.sandbox.memory import MemorySandbox
from realwork.testing.takeover import Takeover, _stays_away, open_with_work


class Anything(MemorySandbox):
    """Answers every command with success."""

    async def execute(self, command, **options):
        self.commands.append(command)
        return CommandResult(exit_code=0)


class Work(Anything):
    """What an agent left; to take it over fails by `errors`, one after the other."""

    def __init__(self, *errors):
        super().__init__()
        self.files = {"/workspace/work.py": b"done"}
        self.errors = list(errors)

    def archive(self, directory):
        if self.errors:
            raise self.errors.pop(0)
        return super().archive(directory)


def taken_over(work, *fresh):
    """What stands in the sandbox for the tests; and how many of `fresh` were opened."""
    waiting = list(fresh)

    @asynccontextmanager
    async def open_fresh():
        yield waiting.pop(0)

    async def scenario():
        async with open_with_work(work, Takeover(directory="/workspace"), open_fresh) as sandbox:
            return {posixpath.normpath(path): content for path, content in sandbox.files.items()}

    try:
        return asyncio.run(scenario()), len(fresh) - len(waiting)
    except (ArtifactRejected, GradingError, SandboxError) as error:
        return type(error), len(fresh) - len(waiting)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([], ({"/workspace/work.py": b"done"}, 1)),
        ([SandboxError("refused")], ({"/workspace/work.py": b"done"}, 3)),
        ([SandboxError("refused")] * 2, (ArtifactRejected, 3)),
        ([ArtifactRejected("hostile")], (ArtifactRejected, 3)),
        ([SandboxLost("gone")], (SandboxLost, 1)),
        ([SandboxError("refused"), SandboxLost("gone")], (SandboxLost, 3)),
    ],
)
def test_work_that_twice_cannot_be_taken_over_is_rejected_but_a_lost_sandbox_is_not_its_fault(errors, expected):
    assert taken_over(Work(*errors), Anything(), Anything(), Anything()) == expected


@pytest.mark.parametrize(
    ("error", "expected"), [(SandboxError("refused"), SandboxError), (ArtifactRejected("too much"), GradingError)]
)
def test_where_an_untouched_sandbox_cannot_be_taken_over_the_agent_is_not_to_blame(error, expected):
    untouched = Work(error)
    assert taken_over(Work(error, error), Anything(), untouched, Anything()) == (expected, 3)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("tests", True),
        ("a/conftest.py", True),
        ("a/__pycache__", True),
        ("a/__pycache__/conftest.cpython-311-pytest-8.0.pyc", True),
        ("a/b.pyc", True),
        ("sitecustomize/__init__.py", True),
        ("a/usercustomize.cpython-311-x86_64-linux-gnu.so", True),
        ("lib/site-packages/sitecustomize.py", True),
        ("lib/site-packages/a.pth", False),
        ("lib/site-packages/a-1.dist-info/entry_points.txt", False),
        ("lib/site-packages/a/__pycache__/b.pyc", False),
        ("a-1.dist-info/entry_points.txt", True),
        ("work.py", False),
    ],
)
def test_what_steers_a_test_runner_stays_away(path, expected):
    assert _stays_away({"tests"}, path, "") is expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("venv/lib/site-packages/a-1.dist-info", True),
        ("/workspace/venv/lib/python3/site-packages", True),
        ("site-packages", True),
        ("src/a", False),
    ],
)
def test_a_link_opens_no_other_way_to_what_libraries_may_have(target, expected):
    assert _stays_away(set(), "src", target) is expected
    assert _stays_away(set(), "venv/lib/site-packages/b", target) is False

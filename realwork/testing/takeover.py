"""Takes what an agent left into a sandbox in which it never was, for the tests.

Guarantees: nothing but the working directory travels; what tells a test runner what to do, and what has to be pristine,
stays as it was before the agent came. Only if the same can be done with an untouched sandbox is the agent to blame for
a failure.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from fnmatch import fnmatchcase
from functools import partial

from realwork.errors import ArtifactRejected, FileError, GradingError, SandboxError, SandboxLost, SandboxStuck
from realwork.sandbox.artifact import checked
from realwork.sandbox.base import Keep, Sandbox
from realwork.testing.settings import read_settings, restore_settings
from realwork.types import Record

log = logging.getLogger(__name__)

CONTROL_FILES = (
    "conftest.py",
    "pytest.ini",
    ".pytest.ini",
    "pytest.toml",
    ".pytest.toml",
    "tox.ini",
    "sitecustomize.*",
    "usercustomize.*",
    "entry_points.txt",
    "*.pth",
)
"""What decides which tests run, or what runs before them: the agent's own do not reach a fresh sandbox."""
START_UP = ("sitecustomize", "usercustomize")
"""What Python imports when it starts, as a module or a package of any kind."""
COMPILED = (".pyc", ".pyo")
"""Believed instead of a source of the same time and size."""
LIBRARIES = "site-packages"
"""Below it an installed package has such files of its own."""

OpenSandbox = Callable[[], AbstractAsyncContextManager[Sandbox]]


class Takeover(Record):
    """What is taken over.

    Attributes:
        directory: the working directory, in all sandboxes.
        kept: folders in it that stay as they are in the fresh sandbox.
        absent: folders in it that are not taken over, and stand in no sandbox.
    """

    directory: str
    kept: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


@asynccontextmanager
async def open_with_work(source: Sandbox, what: Takeover, open_fresh: OpenSandbox) -> AsyncIterator[Sandbox]:
    """A fresh sandbox with the working directory of `source`, which is frozen.

    Where that fails the working directory of an untouched sandbox is taken over, then, unless it was rejected, the
    agent's again.

    Raises:
        ArtifactRejected: the agent is to blame.
        SandboxError, FileError, GradingError: it is not.
    """
    async with AsyncExitStack() as stack:
        fresh = await stack.enter_async_context(open_fresh())
        try:
            await _take_over(source, fresh, what)
        except (SandboxError, FileError, ArtifactRejected) as error:
            if is_gone(error):
                raise
            log.info("What the agent left cannot be taken over, which is tried again: %s", error)
            untouched = await stack.enter_async_context(open_fresh())
            fresh = await stack.enter_async_context(open_fresh())
            with untouched_must_pass():
                await _take_over(untouched, fresh, what)
            if isinstance(error, ArtifactRejected):
                raise
            with blame_the_agent():
                await _take_over(source, fresh, what)
        yield fresh


@contextmanager
def untouched_must_pass() -> Iterator[None]:
    """What is rejected in the block is not the agent's."""
    try:
        yield
    except ArtifactRejected as error:
        raise GradingError(f"what no agent has touched cannot be taken over into a fresh sandbox: {error}") from error


@contextmanager
def blame_the_agent() -> Iterator[None]:
    """What fails in the block has failed before, and works where no agent was."""
    try:
        yield
    except (SandboxError, FileError) as error:
        if is_gone(error):
            raise
        raise ArtifactRejected(str(error)) from error


def is_gone(error: Exception) -> bool:
    """Whether the sandbox is no longer there, for which nobody inside is to blame."""
    return isinstance(error, SandboxLost) and not isinstance(error, SandboxStuck)


async def _take_over(source: Sandbox, fresh: Sandbox, what: Takeover) -> None:
    """Replace the working directory of `fresh` by that of `source`, but for what has to be pristine."""
    settings = await read_settings(fresh, what.directory)
    await fresh.empty(what.directory, keep=Keep(names=CONTROL_FILES, folders=what.kept))
    stays_away = partial(_stays_away, {*what.kept, *what.absent})
    await fresh.copy_in(what.directory, checked(source.archive(what.directory), what.directory, leave_out=stays_away))
    await restore_settings(fresh, what.directory, settings)


def _stays_away(folders: set[str], path: str, target: str) -> bool:
    """Whether the agent's version of `path`, below the working directory, is not taken over.

    Args:
        target: where it leads if it is a link, else "". A link must not open another way to what libraries may have.
    """
    parts = path.split("/")
    if parts[0] in folders or any(part.partition(".")[0] in START_UP for part in parts):
        return True
    name = parts[-1]
    controls = any(fnmatchcase(name, pattern) for pattern in CONTROL_FILES)
    compiled = "__pycache__" in parts or name.endswith(COMPILED)
    leads_there = LIBRARIES in target.split("/")
    return (controls or compiled or leads_there) and LIBRARIES not in parts[:-1]

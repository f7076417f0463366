"""Opens sandboxes for tests."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from realwork.sandbox.base import CommandResult, Sandbox, SandboxSpec

T = TypeVar("T")
Opener = Callable[[SandboxSpec], AbstractAsyncContextManager[Any]]
IMAGE = "realwork/base:bookworm"
WORK = "/workspace"


def make_spec(**fields: Any) -> SandboxSpec:
    defaults = {"name": f"realwork-test-{uuid.uuid4().hex[:12]}", "image": IMAGE, "deadline_s": 300.0}
    return SandboxSpec(**(defaults | {"memory_mib": 256, "pids": 128} | fields))


def use(opener: Opener, scenario: Callable[[Any], Awaitable[T]], **fields: Any) -> T:
    """What `scenario` returns for a sandbox that is open as long as it runs."""

    async def main() -> T:
        async with opener(make_spec(**fields)) as sandbox:
            return await scenario(sandbox)

    return asyncio.run(main())


async def run(sandbox: Sandbox, command: str, *, timeout_s: float = 20.0, **options: Any) -> CommandResult:
    return await sandbox.execute(command, **({"timeout_s": timeout_s, "working_directory": WORK} | options))


async def shell_of(sandbox: Sandbox) -> int:
    """The process id inside of the channel's shell, 0 when a command is an exec of its own."""
    result = await run(sandbox, "read -r _ _ _ parent _ </proc/$$/stat; echo $parent")
    return int(result.stdout)


def unique_number() -> int:
    """Seconds to sleep that no other process of this machine has in its command line."""
    return uuid.uuid4().int % 10**9

"""What a run may have left on a machine's engine when it is over."""

import asyncio
import contextlib

from realwork.config import RunConfig
from realwork.errors import SandboxError
from realwork.sandbox import labels, snapshots
from realwork.sandbox.engine import open_engine
from realwork.sandbox.garbage import collect_garbage
from realwork.sandbox.kept import tidy


async def sweep(config: RunConfig, run_id: str) -> None:
    """Remove what killed actors and failed rollouts left, if the run, whose driver this is, has used an engine here.

    Prepared images that nobody has used for long leave with it.
    """
    if config.sandbox_config.kind == "docker":
        await _sweep(run_id, labels.this_process().as_label())


def sweep_here(run_id: str, driver: str) -> None:
    """The same for a run whose driver, by its label, is elsewhere; for a process that has no event loop."""
    asyncio.run(_sweep(run_id, driver))


async def _sweep(run_id: str, driver: str) -> None:
    with contextlib.suppress(SandboxError):
        async with open_engine() as engine:
            await collect_garbage(engine, run_id=run_id)
            await snapshots.remove_all(engine, run_id=run_id, which=snapshots.is_temporary_of(driver))
            await tidy(engine)

"""What a run may have left on a machine's engine when it is over."""

import asyncio
import contextlib

from realwork.config import RunConfig
from realwork.errors import SandboxError
from realwork.sandbox import labels, snapshots
from realwork.sandbox.engine import open_engine
from realwork.sandbox.garbage import collect_garbage
from realwork.sandbox.kept import tidy


async def sweep(config: RunConfig, run_id: str, *, driver: str | None = None) -> None:
    """Remove what killed actors and failed rollouts left, if the run has used an engine that answers here.

    Prepared images that nobody has used for long leave with it.

    `driver` is the run's driver as a label of snapshots, null for this process.
    """
    if config.sandbox_config.kind == "docker":
        with contextlib.suppress(SandboxError):
            async with open_engine() as engine:
                await collect_garbage(engine, run_id=run_id)
                which = snapshots.is_temporary_of(driver or labels.this_process().as_label())
                await snapshots.remove_all(engine, run_id=run_id, which=which)
                await tidy(engine)


def sweep_here(config: RunConfig, run_id: str, driver: str) -> None:
    """`sweep` in a process that has no event loop."""
    asyncio.run(sweep(config, run_id, driver=driver))

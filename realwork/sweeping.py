"""What a run may have left on this machine's engine when it is over."""

import contextlib

from realwork.config import RunConfig
from realwork.errors import SandboxError
from realwork.sandbox import labels, snapshots
from realwork.sandbox.engine import open_engine
from realwork.sandbox.garbage import collect_garbage


async def sweep(config: RunConfig, run_id: str) -> None:
    """Remove what killed actors and failed rollouts left, if the run has used an engine that answers."""
    if config.sandbox_config.kind == "docker":
        with contextlib.suppress(SandboxError):
            async with open_engine() as engine:
                await collect_garbage(engine, run_id=run_id)
                driver = labels.this_process().as_label()
                await snapshots.remove_all(engine, run_id=run_id, which=snapshots.is_temporary_of(driver))

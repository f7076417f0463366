"""What a Python user calls: `run` plays a run file to its end."""

import asyncio
import signal

from realwork.distributed.driver import Driver
from realwork.distributed.result import Observer, RunResult
from realwork.opening import SilentObserver, Where, opened
from realwork.runfile import RunFile
from realwork.sweeping import sweep

SAME_SIGNAL_S = 1.0
"""A program such as timeout ends its child and then its group, which is one wish to stop."""


def run(
    run_file: RunFile,
    *,
    run_id: str | None = None,
    address: str | None = None,
    local: bool = False,
    takes_changes: bool = False,
    observer: Observer | None = None,
) -> RunResult:
    """Play every rollout of `run_file` and write the trajectories.

    A directory of the same `run_id` is taken up: what is graded there stays and is not played again. On SIGINT or
    SIGTERM nothing more is started, what is in flight is cut, and the result says `interrupted`; on a second one
    `KeyboardInterrupt` is raised at once. Call it from the main thread.

    Args:
        address: of the Ray cluster to join; null starts a local Ray for the length of the run.
        local: play everything in this process, plugins included, without Ray: for a debugger, a notebook, a test.
            Rollouts wait for each other's Python code, and a plugin that hangs or ends the process does so here.
        takes_changes: go on with a run file that has changed since the run was begun.

    Raises:
        InputError: something that the run needs is missing; nothing was started.
    """
    observer = observer or SilentObserver()
    where = Where(address, is_local=local)
    with opened(run_file, run_id=run_id, where=where, takes_changes=takes_changes, observer=observer) as driver:
        if isinstance(driver, RunResult):
            return driver
        result = asyncio.run(_interruptible(driver, observer))
    asyncio.run(sweep(run_file.config, result.run_id))
    return result


async def _interruptible(driver: Driver, observer: Observer) -> RunResult:
    """Run `driver`; the first signal interrupts it, the second one cuts it off."""
    loop = asyncio.get_running_loop()
    playing = asyncio.create_task(driver.run())
    interrupting: list[asyncio.Task[None]] = []
    began_at = 0.0

    def on_signal(number: int) -> None:
        nonlocal began_at
        if interrupting:
            if number == signal.SIGTERM and loop.time() < began_at + SAME_SIGNAL_S:
                return
            observer.note("Stopped at once. What is left of this run's containers is removed by 'realwork gc'.")
            playing.cancel()
            return
        observer.note("Stopping: what is in flight is cut and written. Press Ctrl-C again to stop at once.")
        began_at = loop.time()
        interrupting.append(asyncio.create_task(driver.interrupt()))

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await playing
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for task in interrupting:
            task.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

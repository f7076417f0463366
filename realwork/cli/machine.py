"""`doctor` and `gc`: the machine that rollouts run on."""

import asyncio
import os
import platform
import shutil
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated

import typer

from realwork.cli.console import results
from realwork.errors import SandboxError

if TYPE_CHECKING:
    from realwork.sandbox.abilities import Abilities
    from realwork.sandbox.engine import Engine
    from realwork.sandbox.garbage import GarbageReport

BASE_IMAGE = "realwork/base:bookworm"
PACKAGES = ("realwork", "ray", "docker", "openai", "pydantic", "pyarrow")
MIN_FREE_GIB = 5
INDISPENSABLE = ("memory", "cpu", "pids")
GC_AGAIN_AFTER_S = 3.0


def doctor() -> None:
    """Say what this machine has, what is missing, and what its engine cannot enforce.

    Exit code 1: something is missing.
    """
    healthy = True
    for ok, line in [*_machine(), *asyncio.run(_engine())]:
        results.print(f"{'ok  ' if ok else 'BAD '} {line}", markup=False)
        healthy = healthy and ok
    raise typer.Exit(0 if healthy else 1)


def _machine() -> Iterator[tuple[bool, str]]:
    yield True, f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield True, f"{os.cpu_count()} CPUs, {memory_gib:.1f} GiB of memory"
    free_gib = shutil.disk_usage(".").free / 2**30
    yield free_gib >= MIN_FREE_GIB, f"{free_gib:.0f} GiB free in the current directory"


async def _engine() -> list[tuple[bool, str]]:
    from realwork.sandbox.abilities import abilities
    from realwork.sandbox.engine import open_engine

    try:
        async with open_engine() as engine:
            image = await _base_image(engine)
            return [*_abilities(await abilities(engine, BASE_IMAGE if image[0] else None)), image]
    except SandboxError as error:
        return [(False, str(error))]


def _abilities(found: "Abilities") -> Iterator[tuple[bool, str]]:
    yield True, f"Docker engine {found.version}"
    for each in found.shortcomings:
        yield each.name not in INDISPENSABLE, f"the engine does NOT enforce {each.sentence}"
    kernels = ", ".join(found.own_kernel_runtimes) or "none in which a sandbox has a kernel of its own (runsc, kata)"
    yield True, f"runtimes: {', '.join(found.runtimes)}; {kernels}"


async def _base_image(engine: "Engine") -> tuple[bool, str]:
    images = await engine.call("listing images", engine.client.images, name=BASE_IMAGE)
    if images:
        return True, f"image {BASE_IMAGE}"
    return False, f"image {BASE_IMAGE} is missing; make it with cluster/setup.sh (or make setup)"


def gc(
    everything: Annotated[
        bool,
        typer.Option("--all", help="Also what belongs to runs that still go on, and kept snapshots."),
    ] = False,
    run_id: Annotated[
        str | None, typer.Option("--run-id", help="Only what belongs to this run.", metavar="ID", show_default=False)
    ] = None,
) -> None:
    """Remove containers and snapshots of realwork whose run is gone. What belongs to others is never touched."""
    report = asyncio.run(_collect(everything, run_id))
    removed = report.removed
    if removed:  # what a killed run was just about to start
        time.sleep(GC_AGAIN_AFTER_S)
        report = asyncio.run(_collect(everything, run_id))
        removed += report.removed
    for name in removed:
        results.print(f"removed {name}", markup=False)
    results.print(f"{len(removed)} removed, {len(report.kept)} kept because their run goes on", markup=False)


async def _collect(everything: bool, run_id: str | None) -> "GarbageReport":
    from realwork.sandbox.engine import open_engine
    from realwork.sandbox.garbage import collect_garbage

    async with open_engine() as engine:
        return await collect_garbage(engine, everything=everything, run_id=run_id)

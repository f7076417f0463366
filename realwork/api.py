"""What a Python user calls: `run` plays a run file to its end."""

import asyncio
import contextlib
import json
import logging
import secrets
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from realwork import __version__
from realwork.config import SCRIPTED_PREFIX, RunConfig
from realwork.distributed.cluster import Node, connected, nodes, on_every_node, slots_that_fit
from realwork.distributed.driver import Driver, Observer, RunResult, finished_result
from realwork.distributed.hooks import pack
from realwork.distributed.slot import rollout_memory_mib
from realwork.environment import PackedFolder
from realwork.errors import InputError, SandboxError
from realwork.model.scripted import load_script
from realwork.plugins.loading import load_plugins
from realwork.preflight import capacity_problems, engine_needs, engine_problems, engine_shortcomings
from realwork.record import RolloutSettings, summarize
from realwork.runfile import RunFile
from realwork.sandbox import labels, snapshots
from realwork.sandbox.engine import open_engine
from realwork.sandbox.files import pack_folder
from realwork.sandbox.garbage import collect_garbage
from realwork.schedule import EnvironmentProgress, Schedule
from realwork.trajectories.read import trajectories
from realwork.trajectories.run_directory import held, is_run_directory, open_run
from realwork.types import RolloutSpec, RolloutSummary

_LOG = logging.getLogger(__name__)


class SilentObserver:
    """Tells nobody but the log."""

    def started(self, directory: Path, progress: list[EnvironmentProgress], slots: int) -> None:
        _LOG.info("%d rollouts, %d at once, into %s", sum(each.planned for each in progress), slots, directory)

    def rollout_started(self, spec: RolloutSpec) -> None:
        _LOG.debug("%s started", spec.trajectory_id)

    def rollout_finished(self, summary: RolloutSummary, progress: EnvironmentProgress) -> None:
        _LOG.info("%s: %s", summary.spec.trajectory_id, summary.terminated_reason)

    def doing(self, message: str) -> None:
        _LOG.info("%s", message)

    def note(self, message: str) -> None:
        _LOG.warning("%s", message)


def new_run_id() -> str:
    """A name for a run: its time in UTC, and a few characters that tell runs of one second apart."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def run(
    run_file: RunFile,
    *,
    run_id: str | None = None,
    address: str | None = None,
    observer: Observer | None = None,
) -> RunResult:
    """Play every rollout of `run_file` and write the trajectories.

    A directory of the same `run_id` is taken up: what is graded there stays and is not played again. On SIGINT or
    SIGTERM nothing more is started, what is in flight is cut, and the result says `interrupted`; on a second one
    `KeyboardInterrupt` is raised at once. Call it from the main thread.

    Args:
        address: of the Ray cluster to join; null starts a local Ray for the length of the run.

    Raises:
        InputError: something that the run needs is missing; nothing was started.
    """
    observer = observer or SilentObserver()
    run_id = run_id or new_run_id()
    directory = Path(run_file.config.rollout_config.trajectory_output_path) / run_id
    run_json = _run_json(run_file, run_id)
    if is_run_directory(directory):
        open_run(directory, run_json)
        with held(directory):
            schedule = _schedule(run_file, run_id, directory)
        if schedule.finished:
            observer.note(f"{directory} is complete: nothing is missing.")
            return finished_result(schedule, run_id=run_id, directory=directory)
    settings = _checked_settings(run_file, address, observer.note)
    observer.doing(f"Joining the Ray cluster at {address}" if address else "Starting a local Ray, which takes seconds")
    with connected(address):
        slots = _slots(settings.config, run_file, observer.note, is_joined=address is not None)
        _note_shortcomings(settings.config, observer.doing, nodes() if address is not None else None)
        open_run(directory, run_json)
        with held(directory):
            schedule = _schedule(run_file, run_id, directory)
            driver = Driver(settings, schedule, run_id=run_id, directory=directory, slots=slots, observer=observer)
            result = asyncio.run(_interruptible(driver, observer))
    _sweep(run_file.config, run_id)
    return result


def _schedule(run_file: RunFile, run_id: str, directory: Path) -> Schedule:
    """What is to be played of the run in `directory`, after the attempts of an earlier start."""
    already = [summarize(trajectory) for trajectory in trajectories(directory)]
    return Schedule(run_file.config, run_id, already=already)


def _sweep(config: RunConfig, run_id: str) -> None:
    """Remove what killed actors and failed rollouts left on this machine's engine, if it has one."""
    if config.sandbox_config.kind == "docker":
        with contextlib.suppress(SandboxError):
            asyncio.run(_collect(run_id))


async def _collect(run_id: str) -> None:
    async with open_engine() as engine:
        await collect_garbage(engine, run_id=run_id)
        driver = labels.this_process().as_label()
        await snapshots.remove_all(engine, run_id=run_id, which=snapshots.is_temporary_of(driver))


def check_run(run_file: RunFile, *, address: str | None = None, on_progress: Callable[[str], None]) -> None:
    """Find out whether `run_file` could be played now, and start nothing.

    Raises:
        InputError: with everything that is missing.
    """
    settings = _checked_settings(run_file, address, on_progress)
    if address is not None:
        with connected(address):
            _slots(settings.config, run_file, on_progress, is_joined=True)
            _note_shortcomings(settings.config, on_progress, nodes())


async def _interruptible(driver: Driver, observer: Observer) -> RunResult:
    """Run `driver`; the first signal interrupts it, the second one cuts it off."""
    loop = asyncio.get_running_loop()
    playing = asyncio.create_task(driver.run())
    interrupting: list[asyncio.Task[None]] = []

    def on_signal() -> None:
        if interrupting:
            observer.note("Stopped at once. What is left of this run's containers is removed by 'realwork gc'.")
            playing.cancel()
            return
        observer.note("Stopping: what is in flight is cut and written. Press Ctrl-C again to stop at once.")
        interrupting.append(asyncio.create_task(driver.interrupt()))

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        return await playing
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for task in interrupting:
            task.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _checked_settings(run_file: RunFile, address: str | None, note: Callable[[str], None]) -> RolloutSettings:
    """The settings of the rollouts.

    Raises:
        InputError: with every problem of plugins and, when rollouts are played here, of machine, engine and images.
    """
    problems = []
    if address is None:
        problems = capacity_problems(run_file.config) + engine_problems(engine_needs(run_file.config), note)
    try:
        settings = _settings(run_file)
    except InputError as error:
        problems = [*error.problems, *problems]
    _raise_problems(run_file, problems)
    return settings


def _settings(run_file: RunFile) -> RolloutSettings:
    config = run_file.config
    llm = config.llm_config
    script = load_script(Path(llm.model.removeprefix(SCRIPTED_PREFIX))) if llm.is_scripted else None
    return RolloutSettings(
        config=config.model_copy(update={"llm_config": llm.model_copy(update={"api_key": None})}),
        api_key=llm.api_key,
        script=script,
        folders={environment_id: _packed(each.copied) for environment_id, each in run_file.folders.items()},
        test_folders={environment_id: _packed(each.for_tests) for environment_id, each in run_file.folders.items()},
        environments_json={each.id: run_file.environment_json(each.id) for each in config.environments},
        plugins=pack(load_plugins(config, folder=run_file.path.parent)),
        driver=labels.this_process().as_label(),
    )


def _packed(folders: tuple[Path, ...]) -> tuple[PackedFolder, ...]:
    return tuple(PackedFolder(name=folder.name, archive=pack_folder(folder, folder.name)) for folder in folders)


def _slots(config: RunConfig, run_file: RunFile, note: Callable[[str], None], *, is_joined: bool) -> int:
    """How many rollouts run at once: as many as are wanted and fit on the nodes that can play them."""
    found = nodes()
    if is_joined:
        problems = on_every_node(engine_problems, engine_needs(config), found)
        if not all(problems.values()):
            found = [node for node in found if not problems[node.node_id]]
        else:
            _raise_problems(
                run_file, [f"node {node.name}: {each}" for node in found for each in problems[node.node_id]]
            )
    memory_mib = rollout_memory_mib(config)
    cpus = max(config.limits(each).cpus for each in config.environments)
    fitting = slots_that_fit(found, memory_mib=memory_mib, cpus=cpus)
    wanted = config.rollout_config.max_parallel_rollouts
    if fitting < wanted:
        note(
            f"{fitting} rollouts run at once, not {wanted}: each reserves {memory_mib} MiB of memory. "
            "Lower memory_mib in sandbox_config to fit more."
        )
    return min(fitting, wanted)


def _note_shortcomings(config: RunConfig, note: Callable[[str], None], found: list[Node] | None) -> None:
    """Say once what the engines of the nodes, null for this machine's alone, cannot enforce; the rows say it, too."""
    needs = engine_needs(config)
    if found is None:
        said = engine_shortcomings(needs)
    else:
        on_nodes = on_every_node(engine_shortcomings, needs, found)
        said = list(dict.fromkeys(one for sentences in on_nodes.values() for one in sentences))
    for sentence in said:
        note(f"The engine does not enforce {sentence}.")


def _raise_problems(run_file: RunFile, problems: list[str]) -> None:
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError(f"{run_file.path}: {count}", problems=problems)


def _run_json(run_file: RunFile, run_id: str) -> str:
    document: dict[str, Any] = {
        "run_id": run_id,
        "schema_version": 1,
        "versions": {"realwork": __version__},
        "run_file": json.loads(run_file.document),
    }
    return json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n"

"""From a run file to a driver that can play it: checks, Ray, and what an earlier start has left.

Guarantees: whatever is missing is said before anything is started; two drivers never have one directory.
"""

import json
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from realwork import __version__
from realwork.config import RunConfig, is_url
from realwork.dataset.earlier import earlier_summaries, seal_left, settle_cut_off
from realwork.dataset.mirror import Mirror
from realwork.dataset.places import url_of_run, working_copy
from realwork.dataset.run_directory import check_writable, held, is_run_directory, open_run
from realwork.dataset.version import SCHEMA_VERSION
from realwork.distributed.cluster import (
    Node,
    connected,
    is_connected,
    local_plugin_problems,
    nodes,
    plugin_problems,
    this_machine,
)
from realwork.distributed.control import InFlight
from realwork.distributed.driver import Driver
from realwork.distributed.hooks import RayCalls
from realwork.distributed.hosts import LocalHost, RayHost
from realwork.distributed.members import RayMembers
from realwork.distributed.nodes import Nodes
from realwork.distributed.result import Observer, RunResult, finished_result
from realwork.distributed.slot import rollout_memory_mib
from realwork.errors import InputError
from realwork.model.budget import Used
from realwork.plugins.managing import RunPlugins
from realwork.preflight import Question, capacity_problems, engine_needs, engine_problems, engine_shortcomings
from realwork.record import RolloutSettings, cut_off_rollout
from realwork.runfile import RunFile
from realwork.runfile.checks import restaging_warnings
from realwork.runfile.history import history_warnings
from realwork.schedule import EnvironmentProgress, Schedule
from realwork.settings import given_key, shared_settings
from realwork.types import RolloutSpec, RolloutSummary

MAX_NODES_TOLD = 10
_LOG = logging.getLogger(__name__)


class Where(NamedTuple):
    """Where a run is played: on the Ray cluster at `address`, null for a local Ray; or in this process without Ray."""

    address: str | None = None
    is_local: bool = False


class SilentObserver:
    """Tells nobody but the log."""

    looks_at = 0

    def started(self, output: str, progress: list[EnvironmentProgress], slots: int) -> None:
        _LOG.info("%d rollouts, %d at once, into %s", sum(each.planned for each in progress), slots, output)

    def rollout_started(self, spec: RolloutSpec) -> None:
        _LOG.debug("%s started", spec.trajectory_id)

    def rollout_finished(self, summary: RolloutSummary, progress: EnvironmentProgress) -> None:
        _LOG.info("%s: %s", summary.spec.trajectory_id, summary.terminated_reason)

    def looked(self, in_flight: Sequence[InFlight]) -> None:
        return None

    def doing(self, message: str) -> None:
        _LOG.info("%s", message)

    def note(self, message: str) -> None:
        _LOG.warning("%s", message)


def new_run_id() -> str:
    """A name for a run: its time in UTC, and a few characters that tell runs of one second apart."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@contextmanager
def opened(
    run_file: RunFile, *, run_id: str | None, where: Where, takes_changes: bool, observer: Observer
) -> Iterator[Driver | RunResult]:
    """A driver for what is missing of the run, or the result of a run of which nothing is; Ray, for the block.

    Raises:
        InputError: something that the run needs is missing; nothing was started.
    """
    run_id = run_id or new_run_id()
    output = run_file.config.rollout_config.trajectory_output_path
    url = url_of_run(output, run_id) if is_url(output) else None
    directory = _output_directory(run_file.config) / run_id
    mirror = Mirror(directory, url) if url is not None else None
    run_json = _run_json(run_file, run_id)
    with held(directory):
        if mirror is not None:
            _bring(mirror, f"{url}", observer)
        if is_run_directory(directory):
            open_run(directory, run_json, takes_changes=takes_changes)
            schedule, _ = _plan(run_file, run_id, directory)
            if schedule.finished:
                _complete(directory, mirror)
                observer.note(f"{url or directory} is complete: nothing is missing.")
                yield finished_result(schedule, run_id=run_id, directory=directory)
                return
        joins = not where.is_local and (where.address is not None or is_connected())
        settings = _checked_settings(run_file, observer.note, joins=joins)
        if not joins and not where.is_local:  # said before a local Ray is started
            _raise_problems(run_file, local_plugin_problems(settings.plugins))
        if not where.is_local:
            observer.doing("Joining the Ray cluster" if joins else "Starting a local Ray, which takes seconds")
        with nullcontext() if where.is_local else connected(where.address):
            here = [this_machine()] if where.is_local else nodes()
            found = _nodes(settings, run_file, observer.note, here, is_joined=joins)
            _note_shortcomings(settings.config, observer.doing, found if joins else None)
            open_run(directory, run_json, takes_changes=takes_changes)
            with mirror.marked() if mirror is not None else nullcontext():
                settle_cut_off(directory, lambda spec, unfinished: cut_off_rollout(spec, settings, unfinished))
                host = LocalHost() if where.is_local else RayHost()
                plugins = RunPlugins(settings.plugins, settings.config, host.calls or RayCalls())
                schedule, used = _plan(run_file, run_id, directory, plugins)
                yield Driver(
                    host,
                    found,
                    settings,
                    schedule,
                    used,
                    plugins,
                    given_key=given_key(run_file),
                    run_id=run_id,
                    directory=directory,
                    url=url,
                    observer=observer,
                )


def _bring(mirror: Mirror, url: str, observer: Observer) -> None:
    """Bring what is there of the run at `url`, so that it can be taken up here."""
    observer.doing(f"Looking for the run at {url}")
    mirror.check()
    if (aside := mirror.fetch()) is not None:
        observer.note(f"{url} was played on another node since it was played here. What was here is now {aside}")


def _complete(directory: Path, mirror: Mirror | None) -> None:
    """Do what an earlier start of a run has left to do that has played everything: fill parts, put them there."""
    seal_left(directory)
    if mirror is not None:
        with mirror.marked():
            mirror.complete()


def check_run(run_file: RunFile, *, address: str | None = None, on_progress: Callable[[str], None]) -> None:
    """Find out whether `run_file` could be played now, and start nothing; warn of solutions that an agent can read.

    Raises:
        InputError: with everything that is missing.
    """
    for warning in (*restaging_warnings(run_file.config), *history_warnings(run_file.folders)):
        on_progress(f"warning: {warning}")
    settings = _checked_settings(run_file, on_progress, joins=address is not None)
    if address is None:
        _raise_problems(run_file, local_plugin_problems(settings.plugins))
    output = run_file.config.rollout_config.trajectory_output_path
    if is_url(output):
        Mirror(working_copy(output), output).check()
    if address is not None:
        with connected(address):
            found = _nodes(settings, run_file, on_progress, nodes(), is_joined=True)
            _note_shortcomings(settings.config, on_progress, found)


def _output_directory(config: RunConfig) -> Path:
    """The directory of all runs; for object storage their working copies."""
    output = config.rollout_config.trajectory_output_path
    return working_copy(output) if is_url(output) else Path(output)


def _plan(run_file: RunFile, run_id: str, directory: Path, plugins: RunPlugins | None = None) -> tuple[Schedule, Used]:
    """What is to be played of the run in `directory`, after the attempts of an earlier start, and what they used."""
    used = Used()

    def counted() -> Iterator[RolloutSummary]:
        nonlocal used
        for summary in earlier_summaries(directory):
            used += _used_in(summary)
            if plugins is not None:
                plugins.take_up(summary)
            yield summary

    schedule = Schedule(run_file.config, run_id)
    schedule.take_up(counted())
    return schedule, used


def _used_in(summary: RolloutSummary) -> Used:
    tokens = summary.prompt_tokens + summary.completion_tokens
    return Used(
        replies=summary.n_steps,
        tokens=tokens,
        cost_usd=summary.cost_usd or 0.0,
        uncounted=0 if tokens else summary.n_steps,
        unpriced=summary.n_steps if summary.cost_usd is None else 0,
    )


def _checked_settings(run_file: RunFile, note: Callable[[str], None], *, joins: bool) -> RolloutSettings:
    """The settings of the rollouts.

    Raises:
        InputError: with every problem of plugins and, when rollouts are played here, of machine, engine and images; or
            the output cannot be written.
    """
    check_writable(_output_directory(run_file.config))
    problems = []
    if not joins:
        problems = capacity_problems(run_file.config) + engine_problems(engine_needs(run_file.config), note)
    try:
        settings = shared_settings(run_file)
    except InputError as error:
        problems = [*error.problems, *problems]
    _raise_problems(run_file, problems)
    return settings


def _nodes(
    settings: RolloutSettings, run_file: RunFile, note: Callable[[str], None], found: list[Node], *, is_joined: bool
) -> Nodes:
    """The nodes that play the run: those of `found` that can, and when a cluster was joined, those that come later.

    Raises:
        InputError: none can, or a plugin wants more than any node has.
    """
    config = settings.config
    _raise_problems(run_file, plugin_problems(settings.plugins, found))
    cpus = max(config.limits(each).cpus for each in config.environments)
    question = Question(needs=engine_needs(config), key=run_file.key, cpus=cpus)
    nodes = Nodes(question, rollout_memory_mib(config), RayMembers() if is_joined else None)
    try:
        nodes.begin_with(found)
    except InputError as error:
        _raise_problems(run_file, list(error.problems))
    for told in (each.sentence for each in nodes.found[:MAX_NODES_TOLD] if is_joined):
        note(told)
    fitting, wanted = sum(each.room for each in nodes.found), config.rollout_config.max_parallel_rollouts
    if fitting < wanted:
        note(
            f"{fitting} rollouts run at once, not {wanted}: each reserves {rollout_memory_mib(config)} MiB of memory. "
            "Lower memory_mib in sandbox_config to fit more."
        )
    return nodes


def _note_shortcomings(config: RunConfig, note: Callable[[str], None], nodes: Nodes | None) -> None:
    """Say once what the engines of the nodes, null for this machine's alone, cannot enforce; the rows say it, too."""
    if nodes is None:
        said = engine_shortcomings(engine_needs(config))
    else:
        said = list(dict.fromkeys(one for each in nodes.found for one in each.facts.shortcomings))
    for sentence in said:
        note(f"The engine does not enforce {sentence}.")


def _raise_problems(run_file: RunFile, problems: list[str]) -> None:
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError(f"{run_file.path}: {count}", problems=problems)


def _run_json(run_file: RunFile, run_id: str) -> str:
    document: dict[str, Any] = {
        "run_id": run_id,
        "schema_version": SCHEMA_VERSION,
        "versions": {"realwork": __version__},
        "run_file": json.loads(run_file.document),
    }
    return json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n"

"""`run`, `demo` and `check`: what plays a run file, or says whether it could be played."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from realwork.cli import options
from realwork.cli.console import (
    errors,
    hide_argument,
    number,
    own_command,
    results,
    seconds,
    set_up_logging,
    shown,
    table,
)
from realwork.cli.events import JsonProgress, NoteHandler
from realwork.cli.plugin_notes import manager_notes
from realwork.cli.progress import Progress, TextProgress
from realwork.cli.resuming import wanted_run
from realwork.config import is_url
from realwork.errors import InputError
from realwork.runfile import RunFile, check_output, load_run_file

if TYPE_CHECKING:
    from realwork.distributed.result import RunResult

LOCAL_WARNING = (
    "WARNING: --sandbox local gives NO ISOLATION. Commands run on this machine, as this user, in a temporary folder.\n"
    "Use it only with models and tasks that you trust; no container, no limits, no network cut."
)
File = Annotated[Path, typer.Argument(help="The run file: JSON, YAML or TOML.", metavar="FILE", show_default=False)]
SandboxKind = Annotated[
    Literal["docker", "local"] | None,
    typer.Option("--sandbox", help="Where the agents work; 'local' is this machine, WITHOUT isolation."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="The Ray cluster to join, 'auto' for the one on this machine; else a local Ray is started.",
        envvar="RAY_ADDRESS",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no table, only warnings and errors.")]
ProgressForm = Annotated[
    Literal["text", "json"],
    typer.Option(
        "--progress",
        help="How the run tells how it goes: 'text' is live on a terminal and else a line every 10 s; 'json' is an "
        "object on each line of standard error, for programs.",
    ),
]
LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    typer.Option(help="From which level the log is shown.", case_sensitive=False),
]


def run(
    file: File,
    output: Annotated[
        Path | None,
        typer.Option(help="Also write the trajectories as JSON to this file, with FILE.stats.json beside it."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file, say what would run, start nothing.")
    ] = False,
    quiet: Quiet = False,
    progress: ProgressForm = "text",
    log_level: LogLevel = "WARNING",
    run_id: Annotated[
        str | None, typer.Option(help="The name of the run and of its directory.", show_default="time and a short hash")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(help="The directory of an earlier run: play only what is missing there.", metavar="DIR"),
    ] = None,
    force_config: Annotated[
        bool, typer.Option("--force-config", help="Go on with a run file that has changed since the run was begun.")
    ] = False,
    address: Address = None,
    no_ray: Annotated[
        bool,
        typer.Option(
            "--no-ray",
            help="Play all in this process, whatever RAY_ADDRESS says: begins at once, for a trial or a debugger.",
        ),
    ] = False,
    sandbox: SandboxKind = None,
    llm_model: options.LlmModel = None,
    llm_api_key: options.LlmApiKey = None,
    llm_base_url: options.LlmBaseUrl = None,
    llm_temperature: options.LlmTemperature = None,
    llm_max_tokens: options.LlmMaxTokens = None,
    llm_timeout: options.LlmTimeout = None,
    llm_caching: options.LlmCaching = None,
    llm_cache_size: options.LlmCacheSize = None,
    llm_max_context_messages: options.LlmMaxContextMessages = None,
    llm_max_output_length: options.LlmMaxOutputLength = None,
    llm_disable_token_tracking: options.LlmDisableTokenTracking = False,
    llm_disable_high_usage_warnings: options.LlmDisableHighUsageWarnings = False,
) -> None:
    """Play the rollouts of a run file and write their trajectories.

    Exit code 0: every rollout is graded or was made unnecessary by episode control; 1: some are not;
    2: the input is wrong; 130: interrupted.
    """
    told = _progress(progress, log_level, quiet=quiet)
    if llm_api_key:
        hide_argument(llm_api_key)
    wanted = wanted_run(run_id, resume)
    overrides = {
        "llm_config": options.given(
            model=llm_model,
            api_key=llm_api_key,
            base_url=llm_base_url,
            temperature=llm_temperature,
            max_tokens=llm_max_tokens,
            timeout=llm_timeout,
            enable_caching=llm_caching,
            cache_size=llm_cache_size,
            max_context_messages=llm_max_context_messages,
            max_output_length=llm_max_output_length,
            track_token_usage=False if llm_disable_token_tracking else None,
            warn_high_usage=False if llm_disable_high_usage_warnings else None,
        ),
        "sandbox_config": options.given(kind=sandbox),
        "rollout_config": options.given(trajectory_output_path=wanted.output),
    }
    run_file = load_run_file(file, overrides=overrides, needs_key=not dry_run)
    _check_json_output(output)
    _warn(run_file, told.note)
    if dry_run:
        _load_plugins(run_file)
        _print_plan(run_file)
        return
    _play(
        run_file,
        told,
        run_id=wanted.run_id,
        address=address,
        no_ray=no_ray,
        output=output,
        quiet=quiet,
        takes_changes=force_config,
    )


def demo(
    sandbox: SandboxKind = None,
    address: Address = None,
    progress: ProgressForm = "text",
    log_level: LogLevel = "WARNING",
) -> None:
    """Play the calculator example with the built-in scripted model: no key, no network, a few seconds."""
    told = _progress(progress, log_level, quiet=False)
    file = _example("calculator_api")
    run_file = load_run_file(file, overrides={"sandbox_config": options.given(kind=sandbox)})
    _warn(run_file, told.note)
    result = _play(run_file, told, run_id=None, address=address, output=None, quiet=False, exits=False)
    directory = shown(result.directory)
    realwork = own_command()
    results.print(
        "\nTry next:\n"
        f"  {realwork} stats {directory}\n"
        f"  {realwork} show {directory}\n"
        f"  {realwork} view {directory}\n"
        f"  {realwork} run {os.path.relpath(file)} --llm-model anthropic/claude-sonnet-4\n"
        "    (with a real model; set OPENROUTER_API_KEY first)",
        markup=False,
    )
    raise typer.Exit(result.exit_code)


def check(file: File, address: Address = None, sandbox: SandboxKind = None) -> None:
    """Check all that a run needs: the file, the key, the engine, the images, the plugins, the cluster."""
    from realwork.opening import check_run

    run_file = load_run_file(file, overrides={"sandbox_config": options.given(kind=sandbox)})
    _warn(run_file, _note)
    with redirect_stdout(sys.stderr):  # what plugins print is no result
        check_run(run_file, address=address, on_progress=_note)
    _print_plan(run_file)
    where = f"the cluster at {address}" if address else "this machine"
    results.print(f"ok: {file} can be run on {where} (the model's endpoint was not asked)", markup=False)


def _progress(form: Literal["text", "json"], log_level: str, *, quiet: bool) -> Progress:
    """What tells of the run, and of the log from `log_level` on."""
    if form == "text":
        set_up_logging(log_level.upper())
        return TextProgress(quiet=quiet)
    progress = JsonProgress()
    set_up_logging(log_level.upper(), NoteHandler(progress))
    return progress


def _play(
    run_file: RunFile,
    progress: Progress,
    *,
    run_id: str | None,
    address: str | None,
    output: Path | None,
    quiet: bool,
    no_ray: bool = False,
    takes_changes: bool = False,
    exits: bool = True,
) -> "RunResult":
    from realwork.analysis.export.seed_json import export_json
    from realwork.api import run as play

    began = time.monotonic()
    with redirect_stdout(sys.stderr), progress:  # what plugins print is no result
        result = play(
            run_file,
            run_id=run_id,
            address=address,
            local=no_ray,
            takes_changes=takes_changes,
            observer=progress,
        )
    directory = Path(result.directory)
    progress.finished(result)
    _report(result, run_file, progress.note, time.monotonic() - began, quiet=quiet)
    if output is not None:
        export_json(directory, output)
    if exits:
        raise typer.Exit(result.exit_code)
    return result


def _report(
    result: "RunResult", run_file: RunFile, note: Callable[[str], None], duration_s: float, *, quiet: bool
) -> None:
    directory = _where(result, run_file)
    if not quiet:
        _print_results(Path(result.directory))
        results.print(f"\n{seconds(duration_s)}. Parquet: {directory}/trajectories", markup=False)
        _tell_decisions(result, note)
    if result.aborted:
        note(f"The run was stopped: {result.aborted}")
    for cause, count in result.failures.items():
        note(f"{count} without a grade: {cause}")
    if result.exit_code in (1, 130):
        again = f"{own_command()} run {shown(run_file.path)} --resume {directory}"
        note(f"To play what is missing, with the same flags: {again}")


def _tell_decisions(result: "RunResult", note: Callable[[str], None]) -> None:
    """Say what was left out of the plan, and what plugins decided between rollouts."""
    from realwork.analysis.details import run_plugins

    if skipped := sum(each.skipped for each in result.environments):
        rollouts = "1 rollout was" if skipped == 1 else f"{skipped} rollouts were"
        note(f"{rollouts} made unnecessary by episode control or a plugin")
    for name, use in run_plugins(Path(result.directory)).items():
        for said in manager_notes(use.stats()):
            note(f"{name} {said}")


def _where(result: "RunResult", run_file: RunFile) -> str:
    """The run's directory as it is given to other commands: its URL, if its output is object storage."""
    from realwork.dataset.places import url_of_run

    output = run_file.config.rollout_config.trajectory_output_path
    return url_of_run(output, result.run_id) if is_url(output) else shown(result.directory)


def _print_results(directory: Path) -> None:
    from realwork.analysis.stats import stats

    rows = table("Environment", "Rollouts", "Graded", "Successful", "Mean reward", "Steps", "Seconds")
    for environment_id, each in stats(directory).environments.items():
        rows.add_row(
            Text(environment_id),
            str(each.rollouts),
            str(each.graded),
            str(each.successful),
            number(each.mean_reward),
            number(each.mean_steps, ".1f"),
            number(each.mean_duration_s, ".1f"),
        )
    results.print(rows)


def _load_plugins(run_file: RunFile) -> None:
    """Find out whether all plugins can be used; what they print is no result."""
    from realwork.plugins.loading import load_plugins

    with redirect_stdout(sys.stderr):
        load_plugins(run_file.config, folder=run_file.path.parent)


def _print_plan(run_file: RunFile) -> None:
    config = run_file.config
    rows = table("Environment", "Episodes", "Image", "Tests", "Network")
    for each in config.environments:
        episodes = config.episode_control_config.episodes_per_environment
        rows.add_row(
            Text(each.id), str(episodes), Text(each.docker_image), str(len(each.unit_tests)), Text(config.network(each))
        )
    results.print(rows)
    total = len(config.environments) * config.episode_control_config.episodes_per_environment
    results.print(
        f"{total} rollout{'' if total == 1 else 's'}, at most {config.rollout_config.max_parallel_rollouts} at once, "
        f"with {config.llm_config.model}; trajectories go to {config.rollout_config.trajectory_output_path}",
        markup=False,
    )


def _check_json_output(output: Path | None) -> None:
    if output is None:
        return
    if output.exists() and not output.is_file():
        raise InputError(f"--output: {output} is no file that could be written; name a file for the JSON")
    if problems := check_output(output.parent):
        raise InputError(f"--output: {problems[0]}")


def _example(name: str) -> Path:
    """The run file of an example, beside the package in a checkout."""
    file = Path(__file__).parents[2] / "examples" / name / "run.json"
    if not file.is_file():
        raise InputError(f"the example stands in realwork's source tree; {file} is not there")
    return file


def _warn(run_file: RunFile, note: Callable[[str], None]) -> None:
    for warning in run_file.warnings:
        note(f"warning: {warning}")
    if run_file.config.sandbox_config.kind == "local":
        note(LOCAL_WARNING)


def _note(message: str) -> None:
    errors.print(message, markup=False)

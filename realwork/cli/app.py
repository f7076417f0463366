"""The commands, and what becomes of an error: a sentence and an exit code, never a traceback for a user's mistake.

A command imports what it needs when it runs, so that help and mistakes are answered at once.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from realwork import __version__
from realwork.cli import (
    compact,
    control,
    export,
    images,
    inspection,
    machine,
    measure,
    numbers,
    plugins,
    runs,
    serve,
    submit,
    view,
)
from realwork.cli.console import errors
from realwork.errors import InputError, RealworkError

app = typer.Typer(
    name="realwork",
    help="Rollouts of LLM agents that do software work in Docker containers, graded by tests, written as Parquet.\n\n"
    "Start with 'realwork demo'; then 'realwork check FILE' and 'realwork run FILE' with a run file of your own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(runs.run)
app.command("demo")(runs.demo)
app.command("check")(runs.check)
app.command("submit")(submit.submit)
app.add_typer(control.app, name="ctl")
app.command("plugins")(plugins.plugins)
app.command("stats")(numbers.stats)
app.command("show")(inspection.show)
app.command("view")(view.view)
app.command("report")(view.report)
app.command("export")(export.export)
app.command("compact")(compact.compact)
app.command("doctor")(machine.doctor)
app.command("gc")(machine.gc)
app.command("images")(images.images)
app.command("serve-tiny")(serve.serve_tiny)
app.add_typer(measure.app, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _send_token() -> None:
    """Let Ray send its token where there is one, as `ray start` asks for it then; a cluster without takes it, too."""
    file = Path("~/.ray/auth_token").expanduser()
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys() or file.exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def main() -> None:
    """Run the command line and exit."""
    _send_token()
    try:
        app()
    except RealworkError as error:
        errors.print(f"error: {error}", markup=False)
        sys.exit(2 if isinstance(error, InputError) else 1)

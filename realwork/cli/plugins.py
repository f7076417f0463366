"""`plugins`: what a run file loads of them."""

import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from realwork.cli.console import errors, results, table
from realwork.cli.runs import File
from realwork.config import PluginEntry
from realwork.runfile import RunFile, load_run_file

if TYPE_CHECKING:
    from realwork.plugins.checking import CheckedPlugin

_SHOWN = ("module", "priority", "timeout", "critical")


def plugins(file: File) -> None:
    """List the plugins that a run file loads, and let each that has a self_check say whether it is ready.

    Exit code 1: a self_check found a problem; 2: a plugin cannot be used at all.
    """
    from realwork.distributed.hooks import pack
    from realwork.plugins.checking import check_plugins
    from realwork.plugins.loading import load_plugins

    run_file = load_run_file(file, needs_key=False)
    with redirect_stdout(sys.stderr):
        loaded = load_plugins(run_file.config, folder=run_file.path.parent, with_disabled=True)
        pack([each for each in loaded if each.enabled])
        found = check_plugins(loaded)
    rows = table("Plugin", "Version", "Kind", "Hooks", "Priority", "Seconds", "Critical", "Self-check")
    for each in found:
        rows.add_row(
            Text(each.name),
            Text(each.version),
            each.kind,
            ", ".join(each.hooks),
            str(each.priority),
            f"{each.timeout_s:g}",
            "yes" if each.critical else "no",
            _verdict(each),
        )
    results.print(rows)
    for module, settings in _settings(run_file).items():
        results.print(f"settings of {module}: {json.dumps(settings, ensure_ascii=False)}", markup=False)
    for each in found:
        if each.enabled and not each.hooks:
            results.print(f"{each.name} is never called: its supported_hooks name no hook", markup=False)
    if not run_file.config.rollout_config.enable_plugins:
        results.print("rollout_config.enable_plugins is false: none is called", markup=False)
    problems = [f"{each.name}: {each.problem}" for each in found if each.problem is not None]
    for problem in problems:
        errors.print(f"error: {problem}", markup=False)
    raise typer.Exit(1 if problems else 0)


def _verdict(plugin: "CheckedPlugin") -> str:
    if not plugin.enabled:
        return "disabled"
    return "-" if not plugin.checked else "ok" if plugin.problem is None else "failed"


def _settings(run_file: RunFile) -> dict[str, Any]:
    """What the run file says of each module that the table does not, with secrets hidden."""
    defaults = PluginEntry(module="any").model_dump()
    entries = json.loads(run_file.document).get("plugins", [])
    said = {
        entry["module"]: {
            name: value for name, value in entry.items() if name not in _SHOWN and value != defaults[name]
        }
        for entry in entries
    }
    return {module: settings for module, settings in said.items() if settings}

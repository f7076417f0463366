"""What a run file loads: each plugin with what it says of itself, and whether it is ready to be called."""

import asyncio
import threading
from collections.abc import Sequence

from realwork.errors import PluginError, RealworkError, blame
from realwork.plugins.calls import explain
from realwork.plugins.loading import LoadedPlugin
from realwork.plugins.variables import Variables
from realwork.runfile.secrets import scrub
from realwork.text import valid_text
from realwork.types import Record


class CheckedPlugin(Record):
    """A plugin of a run file.

    Attributes:
        enabled: one that is not is never called.
        checked: whether it has a `self_check`, which was called.
        problem: what that found, null when nothing.
    """

    module: str
    name: str
    version: str
    kind: str
    hooks: tuple[str, ...]
    priority: int
    timeout_s: float
    critical: bool
    enabled: bool = True
    checked: bool = False
    problem: str | None = None


def check_plugins(loaded: Sequence[LoadedPlugin]) -> list[CheckedPlugin]:
    """Each of `loaded`, after its `self_check`, which runs in this process and gets as long as a call of it."""
    variables = Variables()
    return [_checked(each, variables) for each in loaded]


def _checked(loaded: LoadedPlugin, variables: Variables) -> CheckedPlugin:
    plugin, entry = loaded.plugin, loaded.entry
    has_check = loaded.enabled and hasattr(plugin, "self_check")
    return CheckedPlugin(
        module=entry.module,
        name=plugin.name,
        version=str(plugin.version),
        kind=plugin.plugin_type.value,
        hooks=tuple(sorted(loaded.hooks)),
        priority=loaded.priority,
        timeout_s=entry.timeout,
        critical=entry.critical,
        enabled=loaded.enabled,
        checked=has_check,
        problem=_problem(loaded, variables) if has_check else None,
    )


def _problem(loaded: LoadedPlugin, variables: Variables) -> str | None:
    hidden = list(loaded.entry.environment_variables.values())
    found = [f"self_check gave no answer for {loaded.entry.timeout:g} s"]

    def work() -> None:
        found.append(_said(loaded, hidden))

    thread = threading.Thread(target=work, daemon=True)
    with variables.held(loaded.entry.environment_variables):  # one that hangs does not keep them
        thread.start()
        thread.join(loaded.entry.timeout)
    return found[-1] or None


def _said(loaded: LoadedPlugin, hidden: Sequence[str]) -> str:
    try:
        with blame(PluginError, "self_check failed"):
            said = asyncio.run(loaded.plugin.self_check())  # type: ignore[attr-defined]
    except (RealworkError, SystemExit, asyncio.CancelledError) as error:
        return explain(error, hidden=hidden)
    if said is False:
        return "self_check returned false"
    return valid_text(scrub(said, hidden)) if isinstance(said, str) else ""

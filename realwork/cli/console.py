"""The two consoles, how numbers are written on them, and what others see of this process."""

import logging
import os
import shlex
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from setproctitle import setproctitle

from realwork.config import is_url

WIDTH_OF_A_FILE = 140
results = Console(highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
errors = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def set_up_logging(level: str, handler: logging.Handler | None = None) -> None:
    """Send the log of realwork from `level` on to `handler`, by default to standard error."""
    handler = handler or RichHandler(console=errors, show_path=False, markup=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s", force=True)
    logging.getLogger("realwork").setLevel(level)


def table(*columns: str) -> Table:
    """An empty table; the texts of its first column, which are names, are folded rather than cut."""
    first, *others = columns
    empty = Table()
    empty.add_column(first, overflow="fold")
    for column in others:
        empty.add_column(column, justify="right")
    return empty


def own_command() -> str:
    """How the user calls this program: by its name if that finds it, else by its path."""
    called = Path(sys.argv[0])
    found = shutil.which(called.name)
    return called.name if found and Path(found).resolve() == called.resolve() else os.path.relpath(called)


def shown(place: Path | str) -> str:
    """A path as it is shortest to type from here; a URL as it is."""
    if is_url(str(place)):
        return str(place)
    path = Path(place)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def seconds(value: float) -> str:
    """`value` seconds for people: 12.3 s, 4 min 05 s, 2 h 03 min."""
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60):02d} min"


def number(value: float | None, form: str = ".2f") -> str:
    """`value` in `form`, or a dash where there is none."""
    return "-" if value is None else format(value, form)


def hide_argument(secret: str) -> None:
    """Take `secret` off this process's command line, which Ray would keep as what a driver was started with."""
    setproctitle(shlex.join(argument.replace(secret, "***") for argument in sys.orig_argv))

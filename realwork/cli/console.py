"""The two consoles, and how numbers are written on them."""

import logging

from rich.console import Console
from rich.logging import RichHandler

results = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def set_up_logging(level: str) -> None:
    """Send the log of realwork to standard error from `level` on."""
    handler = RichHandler(console=errors, show_path=False, markup=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s", force=True)
    logging.getLogger("realwork").setLevel(level)


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

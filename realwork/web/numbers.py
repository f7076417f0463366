"""How numbers are written on the page."""

from datetime import UTC, datetime

NONE = "\N{EN DASH}"


def number(value: float | None, form: str = ",.2f") -> str:
    """`value` in `form`, a dash where there is none."""
    return NONE if value is None else format(value, form)


def percent(value: float | None) -> str:
    """A share in per cent."""
    return NONE if value is None else f"{value:.1%}" if 0 < value < 1 else f"{value:.0%}"


def amount(value: float | None) -> str:
    """A count that may be large: 950, 12.4k, 3.1M, 1.0B."""
    if value is None:
        return NONE
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):.1f}{letter}"
    return f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """A duration: 4 ms, 12.3 s, 4 m 05 s, 2 h 03 m."""
    if value is None:
        return NONE
    if value < 0.1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)} m {int(value % 60):02d} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60):02d} m"


def dollars(value: float | None) -> str:
    """US dollars."""
    return NONE if value is None else f"${value:,.2f}" if value >= 0.1 else f"${value:.4f}"


def moment(value: datetime | None) -> str:
    """A moment in UTC."""
    return NONE if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def file_size(value: float) -> str:
    """Bytes: 812 B, 4.1 KiB, 5.0 MiB."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"

"""`images`: the prepared images on this machine's engine."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from realwork.cli.console import results, seconds, table

if TYPE_CHECKING:
    from realwork.sandbox.kept import PreparedImage


def images(
    prune: Annotated[bool, typer.Option("--prune", help="Remove those that no container or snapshot uses.")] = False,
    unused_for: Annotated[
        float | None,
        typer.Option("--unused-for", help="With --prune: only those unused for so many days.", metavar="DAYS", min=0.0),
    ] = None,
) -> None:
    """List the prepared images: what init commands and copied folders made of an image, kept for the next run.

    They are those of every run on this engine, whoever started it; one that is needed again is prepared again. Other
    images are never touched. 'stale': the name of the image it was made of now stands for another one.
    """
    if prune:
        _report_removed(asyncio.run(_prune(timedelta(days=unused_for or 0.0))))
        return
    if unused_for is not None:
        raise typer.BadParameter("it says what --prune removes, which is not given", param_hint="--unused-for")
    found = asyncio.run(_list())
    rows = table("Image", "Environment", "Made of", "Adds", "Last used", "State")
    now = datetime.now(UTC)
    for each in found:
        rows.add_row(
            Text(each.name),
            Text(each.environment),
            Text(each.base),
            _mib(each.added_bytes),
            f"{_ago((now - each.last_used_at).total_seconds())} ago",
            _state(each),
        )
    if found:
        results.print(rows)
    total = sum(each.added_bytes for each in found)
    results.print(
        f"{len(found)} prepared image{'' if len(found) == 1 else 's'}, {_mib(total)} beside what they were made of",
        markup=False,
    )


def _report_removed(removed: "list[PreparedImage]") -> None:
    for each in removed:
        results.print(f"removed {each.name} ({each.environment})", markup=False)
    freed = sum(each.added_bytes for each in removed)
    results.print(f"{len(removed)} removed, {_mib(freed)} freed", markup=False)


async def _list() -> "list[PreparedImage]":
    from realwork.sandbox.engine import open_engine
    from realwork.sandbox.kept import prepared_images

    async with open_engine() as engine:
        return await prepared_images(engine)


async def _prune(unused_for: timedelta) -> "list[PreparedImage]":
    from realwork.sandbox.engine import open_engine
    from realwork.sandbox.kept import prune

    async with open_engine() as engine:
        return await prune(engine, unused_for=unused_for)


def _state(image: "PreparedImage") -> str:
    words = {"in use": image.containers or image.descendants, "stale": image.is_stale}
    return ", ".join(word for word, holds in words.items() if holds)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _ago(elapsed_s: float) -> str:
    return f"{elapsed_s / 86400:.0f} days" if elapsed_s >= 2 * 86400 else seconds(max(elapsed_s, 0.0))

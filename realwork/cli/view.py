"""`view` and `report`: runs as a page, and as a file."""

import asyncio
import os
import secrets
import sys
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from realwork.cli.console import errors, results, shown
from realwork.cli.inspection import Directory, here
from realwork.errors import InputError

if TYPE_CHECKING:
    from realwork.web.runs import Runs

LOOPBACK = "127.0.0.1"
_EVERYWHERE = ("0.0.0.0", "::")


def view(
    directories: Annotated[
        list[Path],
        typer.Argument(
            parser=here,
            help="Runs, or directories that hold some; s3:// or gs:// is fetched once.",
            metavar="DIR...",
            show_default=False,
        ),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port.", show_default="a free one")] = 0,
    host: Annotated[
        str | None,
        typer.Option(
            help="Serve others, too, at this address of the machine; they need the token that is printed with it.",
            show_default="this machine alone",
        ),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser.")] = False,
) -> None:
    """Look at runs in a browser, while they go on and afterwards.

    Serves a page on this machine and opens it if there is a screen; Ctrl-C ends it. Nothing is written into the runs,
    nothing is asked of any other host, and what agents wrote is shown as text. On a machine without a screen,
    forward the port: ssh -L 8080:localhost:PORT HOST.
    """
    from realwork.web.runs import Runs

    runs = Runs(directories)
    token = None if host is None else secrets.token_urlsafe(24)
    try:
        asyncio.run(_serve(runs, host or LOOPBACK, port, token, opens=not no_open))
    except OSError as error:
        where = f"{host or LOOPBACK}, port {port}" if port else host or LOOPBACK
        raise InputError(
            f"{where} cannot be served ({error.strerror or error}); give another --port or --host"
        ) from error
    except KeyboardInterrupt:
        errors.print("Stopped.")


def report(
    directory: Directory,
    output: Annotated[
        Path | None, typer.Option(help="The file to write.", show_default="the name of DIR, with .html, here")
    ] = None,
) -> None:
    """Write a run, or several, as one HTML file that stands alone.

    For sending round: the plots are in it, and it asks for nothing from anywhere. It holds names, numbers and the first
    words of errors, and no conversation.
    """
    from realwork.web.report import report as write
    from realwork.web.runs import Runs

    file = output or Path(f"{directory.resolve().name}.html")
    content = write(Runs([directory]).all())
    try:
        file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--output: {file} cannot be written ({error.strerror})") from error
    results.print(shown(file), markup=False)


async def _serve(runs: "Runs", host: str, port: int, token: str | None, *, opens: bool) -> None:
    from realwork.web.server import serving

    async with serving(runs, host=host, port=port, token=token) as bound:
        address = _address(host, bound, token)
        results.print(address, markup=False)
        errors.print("Ctrl-C ends it.")
        if opens and _has_screen():
            with suppress(webbrowser.Error):
                webbrowser.open(address)
        await asyncio.Event().wait()


def _address(host: str, port: int, token: str | None) -> str:
    name = os.uname().nodename if host in _EVERYWHERE else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def _has_screen() -> bool:
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))

"""Serves the pages over HTTP.

Guarantees: reading and rendering go on in threads, so that one slow page holds up no other; nothing is served but the
views of the given runs and the files of this package and of Plotly.
"""

import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import TypeVar

from aiohttp import web

from realwork.analysis.listing import Asked
from realwork.errors import InputError, StoreError
from realwork.web.pages import Pages, version_of
from realwork.web.runs import Run, Runs
from realwork.web.safety import only_loopback_names, only_reading, only_with, with_headers

STATIC = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "charts.js": "text/javascript",
    "theme.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
PLOTLY = "plotly.min.js"
_DAY_S = 24 * 3600
_SMALLEST_COMPRESSED = 1024
_TEXT_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
T = TypeVar("T")


class Site:
    """The routes over some runs."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._pages = Pages()
        self._files: dict[str, tuple[bytes, str]] = {}

    def application(self, *, token: str | None = None, port: int = 0) -> web.Application:
        """What answers requests; without a token only those under a name of loopback."""
        guard = only_loopback_names if token is None else only_with(token, port)
        site = web.Application(middlewares=[with_headers, only_reading, guard])
        site.add_routes(
            [
                web.get("/", self.home),
                web.get("/version", self.version),
                web.get("/static/{name}", self.static),
                web.get("/runs/{run}", self.run),
                web.get("/runs/{run}/version", self.run_version),
                web.get("/runs/{run}/environments", self.environments),
                web.get("/runs/{run}/rollouts", self.rollouts),
                web.get("/runs/{run}/lines", self.lines),
                web.get("/runs/{run}/rollout", self.rollout),
                web.get("/runs/{run}/text", self.text),
            ]
        )
        return site

    async def warm(self) -> None:
        """Read the runs and pack the largest file, so that the first page need not wait for them."""
        with suppress(StoreError, InputError):  # the page will say it
            for run in await asyncio.to_thread(self._runs.all):
                await asyncio.to_thread(run.overview)
        await self._packed(PLOTLY)

    async def home(self, request: web.Request) -> web.Response:
        runs = await self._reading(self._runs.all)
        if len(runs) == 1:
            raise web.HTTPFound(runs[0].address())
        return await self._page(request, lambda: self._pages.runs(runs))

    async def version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": version_of(await self._reading(self._runs.all))})

    async def run(self, request: web.Request) -> web.Response:
        run = await self._run(request)
        return await self._page(request, lambda: self._pages.run(run))

    async def run_version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": (await self._run(request)).version})

    async def environments(self, request: web.Request) -> web.Response:
        run = await self._run(request)
        show, page = request.query.get("show", "all"), _number(request, "page", 1)
        return await self._page(request, lambda: self._pages.environments(run, show, page))

    async def rollouts(self, request: web.Request) -> web.Response:
        run = await self._run(request)
        return await self._page(request, lambda: self._pages.rollouts(run, _asked(request)))

    async def lines(self, request: web.Request) -> web.Response:
        run = await self._run(request)
        begin = _number(request, "begin", 0)
        return await self._page(request, lambda: self._pages.lines(run, _asked(request), begin))

    async def rollout(self, request: web.Request) -> web.Response:
        run = await self._run(request)
        name = request.query.get("id", "")
        page = await self._reading(lambda: self._pages.rollout(run, name, _asked(request)))
        if page is None:
            raise self._nothing("There is no such rollout, or it has handed over no steps yet.")
        return await _html(request, page)

    async def text(self, request: web.Request) -> web.Response:
        run = await self._run(request)
        name, at = request.query.get("id", ""), request.query.get("at", "")
        text = await self._reading(lambda: self._pages.text(run, name, at))
        if text is None:
            raise self._nothing("There is no such text.")
        headers = {"Content-Security-Policy": _TEXT_POLICY}
        if "download" in request.query:
            headers["Content-Disposition"] = 'attachment; filename="text.txt"'
        body = await asyncio.to_thread(text.encode, "utf-8", "replace")
        return web.Response(body=body, content_type="text/plain", charset="utf-8", headers=headers)

    async def static(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in (*STATIC, PLOTLY):
            raise self._nothing("There is no such file.")
        body, mark = await self._packed(name)
        headers = {"ETag": mark, "Cache-Control": "no-cache", "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        if request.headers.get("If-None-Match") == mark:
            return web.Response(status=304, headers={"ETag": mark, "Cache-Control": "no-cache"})
        return web.Response(
            body=body, content_type=STATIC.get(name, "text/javascript"), charset="utf-8", headers=headers
        )

    async def _packed(self, name: str) -> tuple[bytes, str]:
        if name not in self._files:
            self._files[name] = await asyncio.to_thread(_compressed, name)
        return self._files[name]

    async def _run(self, request: web.Request) -> Run:
        run = await self._reading(lambda: self._runs.get(request.match_info["run"]))
        if run is None:
            raise self._nothing("There is no such run here.")
        return run

    async def _page(self, request: web.Request, render: Callable[[], str]) -> web.Response:
        return await _html(request, await self._reading(render))

    async def _reading(self, read: Callable[[], T]) -> T:
        """What `read` gives, from a thread; an error of the store or of the user becomes a page that says it."""
        try:
            return await asyncio.to_thread(read)
        except InputError as error:
            raise web.HTTPBadRequest(
                text=self._pages.message("That cannot be shown", str(error)), content_type=_HTML
            ) from error
        except StoreError as error:
            page = self._pages.message("The run cannot be read", str(error))
            raise web.HTTPInternalServerError(text=page, content_type=_HTML) from error

    def _nothing(self, said: str) -> web.HTTPNotFound:
        return web.HTTPNotFound(text=self._pages.message("Nothing here", said), content_type=_HTML)


_HTML = "text/html"


async def _html(request: web.Request, page: str) -> web.Response:
    body = await asyncio.to_thread(page.encode, "utf-8", "replace")
    headers = {"Vary": "Accept-Encoding"}
    if len(body) > _SMALLEST_COMPRESSED and "gzip" in request.headers.get("Accept-Encoding", ""):
        body = await asyncio.to_thread(gzip.compress, body, 1)
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=body, content_type=_HTML, charset="utf-8", headers=headers)


def static_text(name: str) -> str:
    """A file that pages use, of this package or of Plotly."""
    package, folder = ("plotly", "package_data") if name == PLOTLY else ("realwork.web", "static")
    return (files(package) / folder / name).read_text(encoding="utf-8")


def _compressed(name: str) -> tuple[bytes, str]:
    """A file, compressed, and what changes when it does."""
    body = gzip.compress(static_text(name).encode(), 6, mtime=0)
    return body, f'"{zlib.crc32(body):08x}-{len(body)}"'


def _asked(request: web.Request) -> Asked:
    return Asked(**{name: request.query.get(name, "") for name in Asked.model_fields})


def _number(request: web.Request, name: str, default: int) -> int:
    try:
        return int(request.query.get(name, default))
    except ValueError:
        return default


@asynccontextmanager
async def serving(runs: Runs, *, host: str, port: int, token: str | None) -> AsyncIterator[int]:
    """Answer requests for the length of the block; gives the port.

    Args:
        port: 0 takes a free one.
        token: what every request has to have, null where only loopback is served.

    Raises:
        OSError: the address cannot be used.
    """
    # The port is part of the cookie's name, so it is bound before the application is made.
    bound = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    number: int = bound.getsockname()[1]
    site = Site(runs)
    runner = web.AppRunner(site.application(token=token, port=number), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, bound).start()
        warming = asyncio.create_task(site.warm())
        try:
            yield number
        finally:
            warming.cancel()
            await asyncio.wait({warming})
    finally:
        await runner.cleanup()

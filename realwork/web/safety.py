"""Who may ask, and what browsers are told: the guards in front of every page.

Guarantees: a request under a name that is not this machine's own is refused, so that no other site can make a browser
read from here (DNS rebinding); with a token, one that does not have it is; only GET and HEAD are answered; every answer
forbids scripts, styles, images and connections from anywhere but here.
"""

import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NO_TOKEN = "Open the whole address that realwork view has printed: it has the token.\n"
_YEAR_S = 365 * 24 * 3600
# Plotly adds an empty style element and fills it through the object model; only the empty one is allowed. Its style
# sheet for maps, of which there are none here, is refused.
_EMPTY = base64.b64encode(hashlib.sha256(b"").digest()).decode()
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' 'sha256-{_EMPTY}'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


@web.middleware
async def with_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every answer says what a browser may do with it; one that says something stricter keeps that."""
    try:
        response = await handler(request)
    except web.HTTPException as refused:
        refused.headers.update(_HEADERS)
        raise
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


@web.middleware
async def only_reading(request: web.Request, handler: Handler) -> web.StreamResponse:
    """There is nothing here to change."""
    if request.method not in ("GET", "HEAD"):
        raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"])
    return await handler(request)


@web.middleware
async def only_loopback_names(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Requests name this machine as itself; the port may be that of a tunnel."""
    if urlsplit(f"//{request.headers.get('Host', '')}").hostname not in _LOOPBACK:
        raise web.HTTPMisdirectedRequest(text="This page is served to 127.0.0.1 and localhost alone.\n")
    return await handler(request)


def only_with(token: str, port: int) -> Middleware:
    """Requests have the token in a cookie; the address that was printed brings it there."""
    cookie = f"realwork-{port}"

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.query.get("token")
        if given is not None and _same(given, token):
            answer = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": _without_token(request)})
            answer.set_cookie(cookie, token, httponly=True, samesite="Strict", path="/", max_age=_YEAR_S)
            return answer
        if not _same(request.cookies.get(cookie, ""), token):
            raise web.HTTPUnauthorized(text=_NO_TOKEN)
        return await handler(request)

    return guard


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


def _without_token(request: web.Request) -> str:
    query = {name: value for name, value in request.query.items() if name != "token"}
    # A path such as //host would lead away from here.
    return str(request.rel_url.with_query(query).with_path(f"/{request.path.lstrip('/')}", keep_query=True))

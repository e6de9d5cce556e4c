"""What every HTTP answer carries: a request id, the security headers, and CORS from one allow-list.

The same `Origins` is given to Socket.IO. Credentials are Bearer tokens and never cookies, so a foreign page that is
refused here could not act for anybody anyway; the list keeps honest browsers from being used by strangers' pages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from secure import (
    ContentSecurityPolicy,
    CrossOriginOpenerPolicy,
    CrossOriginResourcePolicy,
    PermissionsPolicy,
    ReferrerPolicy,
    Secure,
    Server,
    StrictTransportSecurity,
    XContentTypeOptions,
    XFrameOptions,
)

METHODS = "GET, POST, PUT, PATCH, DELETE"
REQUEST_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, X-Device-Id, X-Request-Id, "
    "X-Filename, Range, If-Range, If-None-Match"
)
SERVER = "ringmeter"
ANSWER_HEADERS = "X-Request-Id, Retry-After, ETag, Content-Range, Accept-Ranges, Content-Disposition"
PREFLIGHT_SECONDS = 600  # how long a browser may remember; a change of the list is felt after that
REQUEST_ID = web.RequestKey("request_id", str)
# What is text and says so in its name (ASVS 4.1.1); JSON is UTF-8 by its definition.
_TEXTS = frozenset(("text/html", "text/css", "text/javascript", "application/javascript", "text/plain"))
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")


class Origins:
    """The web origins that may call: those of CORS_ORIGINS (port `*` is any) and the server's own."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._exact = frozenset(o.lower() for o in allowed if not o.endswith(":*"))
        self._any_port = frozenset(o.lower().removesuffix(":*") for o in allowed if o.endswith(":*"))

    def allows(self, origin: str, host: str = "") -> bool:
        """Whether a page of `origin` may call the server that was addressed as `host` (the Host header)."""
        origin = origin.lower()
        if origin in self._exact:
            return True
        try:
            parts = urlsplit(origin)
            own = bool(host) and parts.scheme in ("http", "https") and parts.netloc == host.lower()
            return own or f"{parts.scheme}://{parts.hostname}" in self._any_port
        except ValueError:
            return False

    def allows_socket(self, origin: str | None, environ: Mapping[str, Any]) -> bool:
        """For Socket.IO's `cors_allowed_origins`. Native apps send no origin, or the server's own address."""
        return origin is None or self.allows(origin, str(environ.get("HTTP_HOST", "")))


def protect(app: web.Application, *, origins: Origins, production: bool, new_id: Callable[[], str]) -> None:
    """Give `app` the middleware (first of all) and the headers. `new_id` makes request ids.

    The id of a request is in `request[REQUEST_ID]`, in every log line of it, and in the answer's X-Request-Id.
    """
    fixed = security_headers(production=production)

    @web.middleware
    async def first(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("X-Request-Id", "")
        request_id = given if _SANE_REQUEST_ID.fullmatch(given) else new_id()
        request[REQUEST_ID] = request_id
        if request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
            return web.Response(status=204)  # the headers below say whether
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            return await handler(request)

    async def dress(request: web.Request, answer: web.StreamResponse) -> None:
        # A signal rather than the middleware: unmatched routes, static files and streams come by here as well.
        headers = answer.headers
        for name, value in fixed:
            headers.setdefault(name, value)
        headers[hdrs.SERVER] = SERVER  # aiohttp has named itself and its version there by now
        headers["X-Request-Id"] = request.get(REQUEST_ID, "")
        if answer.content_type in _TEXTS and answer.charset is None:
            answer.charset = (
                "utf-8"  # a page, style or script of ours: nobody has to guess in which letters it is
            )
        if answer.content_type == "application/json":
            headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
        _cors(request, headers, origins)

    app.middlewares.insert(0, first)
    app.on_response_prepare.append(dress)


def _cors(request: web.Request, headers: Any, origins: Origins) -> None:
    vary = [part.strip() for part in headers.get(hdrs.VARY, "").split(",") if part.strip()]
    if "origin" not in (part.lower() for part in vary):
        headers[hdrs.VARY] = ", ".join([*vary, "Origin"])
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or not origins.allows(origin, request.headers.get(hdrs.HOST, "")):
        return
    headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
    headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ANSWER_HEADERS
    if request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
        headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = METHODS
        headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = REQUEST_HEADERS
        headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(PREFLIGHT_SECONDS)


def security_headers(*, production: bool) -> tuple[tuple[str, str], ...]:
    """The fixed headers of every answer, made for our own pages: the demo (camera, video) and Swagger UI."""
    csp = (
        ContentSecurityPolicy()
        .default_src("'none'")
        .object_src("'none'")
        .script_src("'self'")
        .style_src("'self'")
        .img_src("'self'", "data:", "https:")  # Swagger's icons, people's avatars
        .font_src("'self'")
        # Older Safari does not count ws: as 'self'.
        .connect_src("'self'", "ws:", "wss:")
        .media_src("'self'", "blob:")
        .form_action("'self'")
        .base_uri("'none'")
        .frame_ancestors("'none'")
    )
    chosen = Secure(
        csp=csp,
        coop=CrossOriginOpenerPolicy().same_origin(),
        corp=CrossOriginResourcePolicy().same_origin(),
        permissions=PermissionsPolicy().camera("self").microphone("self").geolocation(),
        referrer=ReferrerPolicy().no_referrer(),
        server=Server().set(SERVER),
        xcto=XContentTypeOptions().nosniff(),
        xfo=XFrameOptions().deny(),
        # Browsers heed it over HTTPS only; in development it would spoil other programs on localhost.
        hsts=StrictTransportSecurity().max_age(31_536_000).include_subdomains() if production else None,
    )
    return tuple(chosen.header_items())

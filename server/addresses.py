"""Where a request comes from, also behind proxies and when another process of this machine passes it on."""

from __future__ import annotations

import socket

from aiohttp import web

# What one process tells another of a request that it passes on. Believed on a Unix socket only, where nobody else is.
PASSED_FOR = "X-Ringmeter-Client"


def client_address(request: web.Request, proxy_hops: int) -> str:
    """The client's address: the peer's, or the one that the last ``proxy_hops`` trusted proxies vouch for."""
    if PASSED_FOR in request.headers and _from_a_sibling(request):
        return request.headers[PASSED_FOR]
    if proxy_hops:
        said = ",".join(request.headers.getall("X-Forwarded-For", ()))
        chain = [part.strip() for part in said.split(",") if part.strip()]
        if len(chain) >= proxy_hops:
            return chain[-proxy_hops]
    return request.remote or ""


def _from_a_sibling(request: web.Request) -> bool:
    unix = getattr(socket, "AF_UNIX", None)
    end = request.transport.get_extra_info("socket") if request.transport is not None else None
    return end is not None and unix is not None and end.family == unix

"""Where a request comes from, also behind proxies and when another process of this machine passes it on."""

from __future__ import annotations

import socket

from aiohttp import web

# What one process tells another of a request that it passes on. Believed on a Unix socket only, where nobody else is.
PASSED_FOR = "X-Ringmeter-Client"
# An address of IPv6 with its zone; what is longer is none, and nothing to put into logs and limits.
ADDRESS_LENGTH_MAX = 64


def client_address(request: web.Request, proxy_hops: int) -> str:
    """The client's address: the peer's, or the one that the last ``proxy_hops`` trusted proxies vouch for."""
    if PASSED_FOR in request.headers and _from_a_sibling(request):
        return request.headers[PASSED_FOR]
    if proxy_hops:
        said = ",".join(request.headers.getall("X-Forwarded-For", ()))
        chain = [part.strip() for part in said.split(",") if part.strip()]
        if len(chain) >= proxy_hops:
            return _bare(chain[-proxy_hops])
    return request.remote or ""


def _bare(said: str) -> str:
    """An address without the port that some proxies add, or each connection would be another client."""
    if said.startswith("["):
        said = said[1:].partition("]")[0]
    elif said.count(":") == 1:
        said = said.partition(":")[0]
    return said[:ADDRESS_LENGTH_MAX]


def _from_a_sibling(request: web.Request) -> bool:
    unix = getattr(socket, "AF_UNIX", None)
    end = request.transport.get_extra_info("socket") if request.transport is not None else None
    return end is not None and unix is not None and end.family == unix

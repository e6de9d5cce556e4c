"""Engine.IO's WebSocket for aiohttp: without compression, and where it was tried as a ``Wire`` of its own.

Clients offer permessage-deflate by themselves (Node, browsers, phones), and the library accepts it with no option to
refuse. It would keep a compressor and its window for every idle phone, four times the memory of a connection, to make
messages of 250 bytes hardly smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import engineio
import structlog
from aiohttp.web import BaseRequest, WebSocketResponse
from engineio.async_drivers.aiohttp import WebSocket

from server.engine import Wire

log = structlog.get_logger(__name__)

# Whose private parts the engine uses, and the versions it was tried with.
TRIED = {"aiohttp": "3.14.", "python-engineio": "4.15."}

MakeWire = Callable[[Any, Any, bool], Wire]


def untried(versions: Mapping[str, str] | None = None) -> list[str]:
    """Installed libraries whose version the engine was not tried with, as ``name version``."""
    found = versions or {name: version(name) for name in TRIED}
    return [f"{name} {found[name]}" for name, start in TRIED.items() if not found[name].startswith(start)]


def use_websockets(
    eio: engineio.AsyncServer, make_wire: MakeWire, *, versions: Mapping[str, str] | None = None
) -> bool:
    """Give ``eio`` its WebSockets; whether they are ours. ``make_wire(socket, transport, upgrades)``."""
    unknown = untried(versions)
    if unknown:
        log.warning(
            "the fast path for WebSockets was not tried with these; the library serves them", found=unknown
        )
        eio._async = {**eio._async, "websocket": PlainWebSocket}
        return False

    class Wired(PlainWebSocket):
        """A WebSocket that is handed over to a ``Wire``, with the request and its handler gone after that."""

        async def __call__(self, environ: dict[str, Any]) -> WebSocketResponse:
            """Answer the handshake."""
            self._sock = _Handover(self.handler.__self__, make_wire)
            await self._sock.prepare(environ["aiohttp.request"])
            return self._sock

    eio._async = {**eio._async, "websocket": Wired}
    return True


class PlainWebSocket(WebSocket):  # type: ignore[misc]
    """The library's own, refusing every extension."""

    async def __call__(self, environ: dict[str, Any]) -> WebSocketResponse:
        """Take a connection up and serve it to its end."""
        self._sock = WebSocketResponse(max_msg_size=self.server.max_http_buffer_size, compress=False)
        await self._sock.prepare(environ["aiohttp.request"])
        self.environ = environ
        await self.handler(self)
        return self._sock


class _Handover(WebSocketResponse):
    """The answer to a handshake, after which the transport is no longer HTTP's."""

    def __init__(self, socket: Any, make_wire: MakeWire) -> None:
        super().__init__(compress=False)
        self._socket, self._make_wire = socket, make_wire

    def _post_start(self, request: BaseRequest, protocol: str | None, writer: Any) -> None:
        self._ws_protocol, self._writer = protocol, writer
        http = request.protocol
        transport, tail = http.transport, http._message_tail
        assert transport is not None, "checked a moment ago"
        wire = self._make_wire(self._socket, transport, self._socket.connected)
        transport.set_protocol(wire)
        # To aiohttp the client has gone, and so it lets go of what it keeps for a request: a task, headers, buffers.
        http.transport, http._message_tail = None, b""
        http.connection_lost(None)
        if not self._socket.connected:
            wire.open()
        if tail:
            wire.data_received(tail)

    async def write_eof(self) -> None:  # type: ignore[override]
        """Nothing: what is written from here on is the wire's."""

"""Engine.IO's WebSocket for aiohttp without compression.

Clients offer permessage-deflate by themselves (Node, browsers, phones), and the library accepts it with no option to
refuse. It would keep a compressor and its window for every idle phone, four times the memory of a connection, to make
messages of 250 bytes hardly smaller.
"""

from __future__ import annotations

from typing import Any

import engineio
from aiohttp.web import WebSocketResponse
from engineio.async_drivers.aiohttp import WebSocket


class PlainWebSocket(WebSocket):  # type: ignore[misc]
    """The library's own, refusing every extension."""

    async def __call__(self, environ: dict[str, Any]) -> WebSocketResponse:
        """Take a connection up and serve it to its end."""
        self._sock = WebSocketResponse(max_msg_size=self.server.max_http_buffer_size, compress=False)
        await self._sock.prepare(environ["aiohttp.request"])
        self.environ = environ
        await self.handler(self)
        return self._sock


def use_plain_websockets(eio: engineio.AsyncServer) -> None:
    """Make ``eio`` use it."""
    eio._async = {**eio._async, "websocket": PlainWebSocket}

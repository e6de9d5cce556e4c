"""Connections are not compressed, whatever the client offers."""

from __future__ import annotations

import socketio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from server.websockets import PlainWebSocket


async def test_compression_that_a_client_offers_is_refused() -> None:
    sio = socketio.AsyncServer(async_mode="aiohttp", cors_allowed_origins=[])
    sio.eio._async = {**sio.eio._async, "websocket": PlainWebSocket}
    app = web.Application()
    sio.attach(app)
    async with TestClient(TestServer(app)) as client:
        async with client.ws_connect("/socket.io/?EIO=4&transport=websocket", compress=15) as wire:
            assert wire.compress == 0
            assert (await wire.receive_str()).startswith("0{")
            await wire.send_str("40")
            assert (await wire.receive_str()).startswith("40{")
        await sio.shutdown()

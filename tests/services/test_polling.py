"""A client on polling may bring many packets at once: a phone's candidates come as one payload."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from server.protocol import PACKETS_MAX, SignalingServer


async def test_a_payload_of_many_packets_is_taken() -> None:
    sio = SignalingServer(async_mode="aiohttp", cors_allowed_origins=[], monitor_clients=False)
    app = web.Application()
    sio.attach(app)
    async with TestClient(TestServer(app)) as client:
        opened = await (await client.get("/socket.io/?EIO=4&transport=polling")).text()
        sid = json.loads(opened[1:])["sid"]
        address = f"/socket.io/?EIO=4&transport=polling&sid={sid}"
        answer = await client.post(address, data="\x1e".join(["3"] * PACKETS_MAX))
        assert answer.status == 200


async def test_a_payload_that_is_no_protocol_is_answered_at_once() -> None:
    """The library would wait here until the client fetches what is left for it."""
    sio = SignalingServer(async_mode="aiohttp", cors_allowed_origins=[], monitor_clients=False)
    app = web.Application()
    sio.attach(app)
    async with TestClient(TestServer(app)) as client, asyncio.timeout(10):
        opened = await (await client.get("/socket.io/?EIO=4&transport=polling")).text()
        sid = json.loads(opened[1:])["sid"]
        answer = await client.post(f"/socket.io/?EIO=4&transport=polling&sid={sid}", data="6")
        assert answer.status == 400

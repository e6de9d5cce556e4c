"""A client that polls first, and goes over to a WebSocket while the server waits for it to take what it was sent."""

from __future__ import annotations

import asyncio
import json

import pytest

from server.app import SOCKETS
from tests.doors.conftest import House
from tests.doors.serverprocess import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_what_follows_the_greeting_comes_after_an_upgrade_too(rest: House) -> None:
    ann, bob = await rest.person("ann"), await rest.person("bob")
    path = f"{rest.url}/socket.io/?EIO=4&transport="
    async with rest.http.get(path + "polling") as answer:
        sid = json.loads((await answer.text())[1:])["sid"]
    hello = "40" + json.dumps({"token": ann.token})
    async with rest.http.post(f"{path}polling&sid={sid}", data=hello) as answer:
        assert answer.status == 200
    # It fetches nothing of that, so the server waits for it.
    (connection,) = rest.app[SOCKETS]._by_sid.values()
    await eventually(lambda: connection.waits is not None)
    async with rest.http.ws_connect(f"{path}websocket&sid={sid}") as socket:
        await socket.send_str("2probe")
        assert (await socket.receive()).data == "3probe"
        await socket.send_str("5")
        said = await bob.post("/api/chat/messages", {"to": ann.id, "text": "hello", "opId": "1"})
        assert said.status in (200, 201), said.body
        heard = []
        async with asyncio.timeout(10):
            while "CHAT_MESSAGE" not in heard:
                frame = (await socket.receive()).data
                if frame.startswith("42"):
                    heard.append(json.loads(frame[2:])[0])
        assert heard[0] == "SYNC"

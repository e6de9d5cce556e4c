"""A websocket that speaks Engine.IO by hand: for what no client of ours would write."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp

from tests.doors.conftest import House
from tests.doors.phones import check_ack


class Wire:
    """A websocket that speaks Engine.IO by hand."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.send_str = socket.send_str
        self.send_bytes = socket.send_bytes

    async def message(self) -> str | None:
        """The next text frame that is no ping (which it answers); None when the socket is closed."""
        async with asyncio.timeout(20):
            while True:
                got = await self._socket.receive()
                if got.type is not aiohttp.WSMsgType.TEXT or got.data == "1":
                    return None
                if got.data == "2":
                    await self._socket.send_str("3")
                    continue
                return str(got.data)

    async def ack(self, number: int, *, or_closed: bool = False) -> Any:
        """The ack of that number."""
        while (said := await self.message()) is not None:
            if said.startswith(f"43{number}["):
                (ack,) = json.loads(said[len(f"43{number}") :])
                check_ack(ack)
                return ack
        assert or_closed, "the connection was closed"
        return None

    async def refused_connect(self) -> str:
        """The code of the refused connect."""
        while (said := await self.message()) is not None:
            if said.startswith("44{"):
                return str(json.loads(said[2:])["data"]["code"])
        raise AssertionError("closed without a word")


class raw:
    """A connected socket of ``token``; without one, not connected to any namespace yet."""

    def __init__(self, house: House, token: str | None) -> None:
        self._house, self._token = house, token

    async def __aenter__(self) -> Wire:
        url = self._house.url + "/socket.io/?EIO=4&transport=websocket"
        self._socket = await self._house.http.ws_connect(url, max_msg_size=0)
        wire = Wire(self._socket)
        assert (await wire.message() or "").startswith("0{")
        if self._token is not None:
            await wire.send_str("40" + json.dumps({"token": self._token}))
            assert (await wire.message() or "").startswith("40")
        return wire

    async def __aexit__(self, *_: object) -> None:
        await self._socket.close()

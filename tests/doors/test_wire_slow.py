"""A client that does not read costs a bounded amount of memory (E65)."""

from __future__ import annotations

import asyncio
import json

import pytest

from models.ports import Letter
from server.app import SOCKETS
from server.protocol import WAITING_MAX
from tests.doors.conftest import House

pytestmark = pytest.mark.asyncio(loop_scope="module")

LETTER_BYTES = 64 * 1024


async def test_e65_a_client_that_never_reads_is_cut_off_and_everybody_else_goes_on(house: House) -> None:
    deaf, well = await asyncio.gather(house.person("deaf"), house.person("well"))
    phone = await well.phone("well")
    url = house.url + "/socket.io/?EIO=4&transport=websocket"
    async with house.http.ws_connect(url, autoping=False, max_msg_size=0) as socket:
        await socket.receive()
        await socket.send_str("40" + json.dumps({"token": deaf.token, "deviceId": "deaf"}))
        assert (await socket.receive()).data.startswith("40")
        assert (await socket.receive()).data.startswith('42["SYNC"')
        doors = house.app[SOCKETS]
        letter = Letter(user_id=deaf.id, event="CALL_UPDATED", payload={"filler": "x" * LETTER_BYTES})
        told = 0
        while doors.online(deaf.id):
            await doors.deliver([letter])
            await asyncio.sleep(0)
            told += 1
            assert told < 4 * WAITING_MAX, "it would go on for ever"
    assert await phone.ask("CALL_SYNC") == {"calls": []}

"""SIGTERM and SIGINT: everybody is sent away to come back, and nothing is lost; E39, a rolling restart."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests import databases
from tests.doors.phones import Exchange, Phone
from tests.doors.pyphone import ANSWER, Pair, PyPhone
from tests.doors.serverprocess import ServerProcess, eventually

# The official client's own way of coming back, in less than its usual seconds.
COMING_BACK = {"reconnection": True, "reconnectionDelay": 100, "reconnectionDelayMax": 300}


@pytest.fixture
async def database(mongo_uri: str) -> AsyncIterator[str]:
    async with databases.lent(mongo_uri) as name:
        yield name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_drains_the_server_and_the_official_client_comes_back_to_the_next_one(
    mongo_uri: str, database: str, tmp_path: Path, exchange: Exchange, number: signal.Signals
) -> None:
    server = ServerProcess(tmp_path / "server", mongo_uri=mongo_uri, database=database)
    await asyncio.to_thread(server.start)
    pair = Pair(server.address)
    phones: list[Phone] = []
    try:
        for person in pair.both:
            await person.register()
            phones.append(Phone(exchange, f"{person.username}/drained"))
            await phones[-1].open(
                server.address, auth={"token": person.token, "deviceId": "js"}, **COMING_BACK
            )
            await phones[-1].happens("SYNC")
        call = await phones[0].ask("CALL_REQUEST", to=pair.callee.id, type="audio")
        await phones[1].ask("CALL_ACCEPT", callId=call["id"])

        loop = asyncio.get_running_loop()
        began = loop.time()
        server.signal(number)
        assert await asyncio.to_thread(server.ended) == 0
        assert loop.time() - began < 10
        for phone in phones:
            assert (await phone.happens("error"))["error"]["code"] == "SERVER_DRAINING"

        await asyncio.to_thread(server.start)
        for phone in phones:
            sync = await phone.happens("SYNC")
            assert [(one["id"], one["state"]) for one in sync["calls"]] == [(call["id"], "active")]
        ended = await phones[1].ask("CALL_ENDED", callId=call["id"])
        assert ended["endReason"] == "completed"
        await phones[0].happens("CALL_ENDED")
    finally:
        for phone in phones:
            await phone.forget()
        await pair.leave()
        await asyncio.to_thread(server.stop)


async def test_a_client_that_neither_reads_nor_closes_holds_no_drain_up(
    mongo_uri: str, database: str, tmp_path: Path
) -> None:
    server = ServerProcess(tmp_path / "server", mongo_uri=mongo_uri, database=database)
    await asyncio.to_thread(server.start)
    try:
        async with PyPhone(server.address) as person:
            await person.register()
            address = f"{server.address}/socket.io/?EIO=4&transport=websocket"
            async with person.http.ws_connect(address, autoclose=False, autoping=False) as deaf:
                await deaf.receive()  # the transport is open
                await deaf.send_str("40" + json.dumps({"token": person.token, "deviceId": "deaf"}))
                assert (await deaf.receive()).data.startswith("40")  # connected; from here on nobody listens
                loop = asyncio.get_running_loop()
                began = loop.time()
                assert await asyncio.to_thread(server.drain) == 0
                assert loop.time() - began < 10
    finally:
        await asyncio.to_thread(server.stop)


async def test_e39_one_of_two_processes_is_drained_and_no_call_ends_and_no_event_is_lost_or_doubled(
    mongo_uri: str, database: str, tmp_path: Path
) -> None:
    secret = {"JWT_SECRET": "the same for both processes of a rolling restart"}
    old, new = (
        ServerProcess(tmp_path / name, mongo_uri=mongo_uri, database=database, **secret)
        for name in ("old", "new")
    )
    pairs: list[Pair] = []
    try:
        # Both at once on a database that is not there yet.
        starts = (asyncio.to_thread(server.start) for server in (old, new))
        faults = [
            one for one in await asyncio.gather(*starts, return_exceptions=True) if isinstance(one, Exception)
        ]
        assert faults == []
        pairs += [Pair(old.address) for _ in range(3)]
        talking, ringing, accepted = pairs
        for pair in pairs:
            await pair.arrive()
            # The callee is at the other process from the beginning: the two sides meet through the database.
            await pair.callee.away()
            pair.callee.address = new.address
            await pair.callee.connect()
        await talking.bring_to("active")
        await ringing.bring_to("ringing")
        await accepted.bring_to("accepted")

        # As a load balancer does: the drained one gets no new connections, so its phones come back to the other.
        drained = asyncio.to_thread(old.drain)
        waiting = asyncio.ensure_future(drained)
        for pair in pairs:
            await eventually(lambda pair=pair: pair.caller.all("error"), within=20, what="sent away")
            await pair.caller.away()
            pair.caller.address = new.address
            await pair.caller.connect()
            if pair is not ringing:
                await pair.caller.ask("CALL_RESUME", callId=pair.call_id)
            if pair is talking:
                # Its media went on: a leg that somebody already missed counts as away until it says so.
                await pair.caller.ask("CALL_CONNECTED", callId=pair.call_id)
        assert await waiting == 0

        assert await talking.is_("active")()
        assert await ringing.is_("ringing")()
        await ringing.callee.ask("CALL_ACCEPT", callId=ringing.call_id, answer=ANSWER, reportsMedia=True)
        assert (await ringing.caller.told("CALL_ACCEPT", ringing.call_id))["answer"] == ANSWER
        for pair in (ringing, accepted):
            await pair.connect_media()
        for pair in pairs:
            ended = await pair.caller.ask("CALL_ENDED", callId=pair.call_id)
            assert ended["endReason"] == "completed"
            for phone in pair.both:
                await phone.told("CALL_ENDED", pair.call_id)
                phone.assert_each_once()
                assert len(phone.all("CALL_ENDED")) == 1
            assert len(pair.callee.all("CALL_REQUEST")) == 1
            assert len(pair.caller.all("CALL_ACCEPT")) == 1
    finally:
        for pair in pairs:
            await pair.leave()
        await asyncio.to_thread(old.stop)
        await asyncio.to_thread(new.stop)

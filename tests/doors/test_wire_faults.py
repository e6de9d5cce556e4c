"""When things go wrong on our side: an answer that says whether to try again, and trying again goes well."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from handlers.registry import catalogue
from server.app import DATABASE, SOCKETS, TASKS
from tests.doors.conftest import House, open_house
from tests.doors.line import DatabaseLine
from tests.doors.phones import Exchange, Phone
from tests.doors.talk import answer, candidate, offer, pair, talk

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("still_serves"),
]


async def test_e27_a_fault_of_our_own_is_answered_and_the_same_thing_again_goes_well(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, a, bob, b = await pair(house)
    door = catalogue.events["CALL_REQUEST"]

    async def broken(ctx: Any, ask: Any) -> Any:
        raise RuntimeError("a fault of the test's")

    broken.__name__ = door.handler.__name__
    ask = {"to": bob.id, "type": "audio", "opId": "27"}
    with monkeypatch.context() as patch:
        patch.setitem(catalogue.events, "CALL_REQUEST", replace(door, handler=broken))
        no = (await a.ack("CALL_REQUEST", ask))["error"]
        assert no["code"] == "INTERNAL"
        assert no["retryAfterMs"] > 0
        assert "fault of the test" not in json.dumps(no)
        await a.tell("CALL_REQUEST", ask)
        assert (await a.happens("error"))["error"]["code"] == "INTERNAL"
    first = await a.ask("CALL_REQUEST", ask)
    assert await a.ask("CALL_REQUEST", ask) == first
    await b.settled()
    assert b.names().count("CALL_REQUEST") == 1


async def test_e27_with_the_database_away_everything_is_refused_for_a_while_and_then_goes_on(
    mongo_uri: str, exchange: Exchange
) -> None:
    async with DatabaseLine(mongo_uri) as line, open_house(line.uri, exchange) as house:
        ada, a, bob, b = await pair(house)
        ask = {"to": bob.id, "type": "audio", "opId": "27"}
        line.cut()
        c, *acks, away, sick = await asyncio.gather(
            ada.dial("c"),
            a.ack("CALL_REQUEST", ask),
            a.ack("CALL_SYNC", {}),
            b.ack("CALL_ACCEPT", {"callId": "x"}),
            ada.get("/api/calls/history"),
            house.send("GET", "/health"),
        )
        for ack in acks:
            assert ack["error"]["code"] == "DATABASE_AWAY"
            assert ack["error"]["retryAfterMs"] > 0
        assert (await c.happens("*connect_error"))["data"]["code"] == "DATABASE_AWAY"
        away.error(503, "DATABASE_AWAY")
        assert int(away.headers["Retry-After"]) >= 1
        assert (sick.status, sick.body["database"]) == (503, "down")
        assert (await house.send("GET", "/health/live")).status == 200
        line.mend()
        call = await until_ok(a, "CALL_REQUEST", ask)
        assert call["state"] == "ringing"
        assert await a.ask("CALL_REQUEST", ask) == call
        await b.happens("CALL_REQUEST")
        await b.ask("CALL_ACCEPT", callId=call["id"])
        await b.settled()
        assert b.names().count("CALL_REQUEST") == 1


async def until_ok(phone: Phone, event: str, payload: Any) -> Any:
    """What a client does: the same thing again, as long as the answer says that waiting helps."""
    async with asyncio.timeout(30):
        while True:
            ack = await phone.ack(event, payload)
            if ack["ok"]:
                return ack["data"]
            assert "retryAfterMs" in ack["error"], ack


@pytest.mark.parametrize("word", [b"commitTransaction", b"findAndModify", b"call_locks"])
async def test_e27_when_only_the_answer_of_the_database_is_lost_the_retry_finds_what_was_done(
    mongo_uri: str, exchange: Exchange, word: bytes
) -> None:
    async with DatabaseLine(mongo_uri) as line, open_house(line.uri, exchange) as house:
        _, a, bob, b = await pair(house)
        ask = {"to": bob.id, "type": "audio", "opId": "27b"}
        line.lose_answer_to(word)
        asked = asyncio.create_task(a.ack("CALL_REQUEST", ask))
        lost = asyncio.create_task(line.lost.wait())
        await asyncio.wait({asked, lost}, return_when=asyncio.FIRST_COMPLETED)
        lost.cancel()
        line.mend()
        ack = await asked
        assert ack["ok"] or "retryAfterMs" in ack["error"], ack
        call = await until_ok(a, "CALL_REQUEST", ask)
        assert call["state"] == "ringing"
        await b.happens("CALL_REQUEST")
        taken = await until_ok(b, "CALL_ACCEPT", {"callId": call["id"]})
        assert taken["state"] == "active"
        await a.happens("CALL_ACCEPT")
        await b.settled()
        assert b.names().count("CALL_REQUEST") == 1
        history = await bob.get("/api/calls/history")
        assert [one["id"] for one in history.body["items"]] == [call["id"]]


async def test_e28_what_one_client_sends_back_to_back_is_done_in_order_on_a_slow_database(
    mongo_uri: str, exchange: Exchange
) -> None:
    async with DatabaseLine(mongo_uri) as line, open_house(line.uri, exchange) as house:
        _, a, bob, b = await pair(house)
        call_id = await talk(a, b, bob, offer=offer("a1"))
        await b.ask("SESSION_DESCRIPTION", callId=call_id, description=answer("b1"))
        line.delay_seconds = 0.05
        about = {"callId": call_id}
        candidates = [candidate(n) for n in range(20)]
        acks = await a.burst(
            [
                ["SESSION_DESCRIPTION", {**about, "description": offer("a2")}],
                *(["ICE_CANDIDATE", {**about, "candidate": one}] for one in candidates),
                ["CALL_ENDED", about],
                ["ICE_CANDIDATE", {**about, "candidate": candidate(99)}],
            ]
        )
        line.delay_seconds = 0.0
        assert [ack["ok"] for ack in acks] == [True] * 22 + [False]
        assert acks[-1]["error"]["code"] == "CALL_ENDED"
        await b.happens("CALL_ENDED")
        told = [
            (n, args[0]) for n, args in b.log if n in ("SESSION_DESCRIPTION", "ICE_CANDIDATE", "CALL_ENDED")
        ]
        assert [n for n, _ in told] == ["SESSION_DESCRIPTION", *["ICE_CANDIDATE"] * 20, "CALL_ENDED"]
        assert [body["candidate"] for n, body in told if n == "ICE_CANDIDATE"] == candidates


async def test_nothing_is_left_over_when_a_house_has_closed(mongo_uri: str, exchange: Exchange) -> None:
    async with open_house(mongo_uri, exchange) as house:
        _, a, bob, b = await pair(house)
        await talk(a, b, bob)
        app = house.app
    assert not app[TASKS]._running
    assert not app[SOCKETS].sio.eio.sockets
    assert app[DATABASE] is not None

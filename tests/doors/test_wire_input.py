"""No input from a client stops the process or goes without an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from handlers.registry import catalogue
from server.app import DATABASE, SOCKETS, TASKS
from server.packets import FRAME_MAX
from tests.doors.conftest import House, Person, open_house
from tests.doors.line import DatabaseLine
from tests.doors.phones import Exchange, Phone, check_ack, check_error
from tests.doors.talk import answer, candidate, offer, pair, ring, sdp, talk

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVENTS = sorted(catalogue.events)
WRONG = [
    None, 0, -1, 1.5, 10**30, True, False, "", "text", "\x00", "x" * 20_000, [], [[]], [{}], {"": ""},
    {"callId": None}, {"callId": 7}, {"callId": {}}, {"callId": []}, {"callId": ""}, {"callId": "\x00"},
    {"callId": "\ud800"}, {"callId": "x" * 10_000}, {"callId": {"$ne": None}}, {"callId": "$where"},
    {"to": {"$gt": ""}, "type": "audio"}, {"to": "a.b.$c", "type": "audio"}, {"to": "x", "type": ["audio"]},
    {"__proto__": {"callId": "x"}}, {"candidates": "x", "callId": "x"}, {"token": 1}, {"token": "x" * 5000},
    {"callId": "x", "description": 1}, {"callId": "x", "description": {"type": {}, "sdp": []}},
    {"callId": "x", "stats": {"rttMs": "fast"}}, {"callId": "x", "opId": {}}, {"opId": 5}, {"opId": ["a"]},
    {"callId": "x", "candidate": 10**18}, {"to": "x", "text": "\x00", "opId": "\x00"},
    {"$bytes": 10}, {"callId": {"$bytes": 10}}, {"callId": "x", "candidate": {"$bytes": 100}},
]  # fmt: skip


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def still_serves(house: House) -> AsyncIterator[None]:
    """After whatever a test has done: the house takes a call, and holds no connection that nobody holds."""
    before = len(house.phones)
    yield
    used, house.phones[before:] = house.phones[before:], []
    _, a, bob, b = await pair(house)
    await a.ask("CALL_ENDED", callId=await talk(a, b, bob))
    used += house.phones[before:]
    house.phones[before:] = []
    for phone in used:
        await phone.forget()
    async with asyncio.timeout(10):
        while holds(house):
            await house.db.ping()


def holds(house: House) -> list[Any]:
    """Connections that the house still knows, in whichever of its books."""
    sockets = house.app[SOCKETS]
    manager = sockets.sio.manager
    books = [sockets._by_sid, sockets._by_user, manager.pending_disconnect.get("/"), sockets.sio.environ]
    return [book for book in [*books, manager.rooms.get("/", {}).get(None)] if book]


async def one(house: House, name: str = "eve") -> tuple[Person, Phone]:
    person = await house.person(name)
    return person, await person.phone(name)


async def fresh_devices(person: Person, number: int) -> list[Phone]:
    return list(await asyncio.gather(*(person.phone(f"d{n}") for n in range(number))))


# -------------------------------------------------------------------------------------------------- names and shapes


async def test_an_unknown_event_gets_one_ack(house: House) -> None:
    _, e = await one(house)
    for name in ("NO_SUCH_EVENT", "no_such_event", "", "x" * 5000, "💥", "\x00", "__proto__", "constructor"):
        for args in ([], [{}], [None], [1, 2, 3]):
            ack = await e.ack(name, *args)
            assert ack["error"]["code"] == "EVENT_UNKNOWN", name


async def test_e29_an_unknown_event_with_retries_is_answered_once_and_never_sent_again(house: House) -> None:
    eve = await house.person("eve")
    e = await eve.phone("e", retries=3, ackTimeout=10_000, frames=True)
    told = await e.queued("NO_SUCH_EVENT", {"n": 1})
    assert told["error"]["code"] == "EVENT_UNKNOWN"
    bad = await e.queued("CALL_ACCEPT", {"callId": 7})
    assert bad["error"]["code"] == "VALIDATION_FAILED"
    sent = [frame for frame in e.heard("*frame") if "NO_SUCH_EVENT" in frame or "CALL_ACCEPT" in frame]
    assert len(sent) == 2, sent


async def test_forged_names_of_the_transport_are_just_unknown_events(house: House) -> None:
    eve, e = await one(house)
    for name in (
        "connect",
        "disconnect",
        "connect_error",
        "connection",
        "disconnecting",
        "error",
        "*",
        "message",
    ):
        for args in ([], [{"token": "forged"}], [{"HTTP_AUTHORIZATION": "x"}, {}]):
            ack = await e.ack(name, *args) if name not in RESERVED else await forged(e, name, args)
            assert ack["error"]["code"] == "EVENT_UNKNOWN", name
    # The forger is who they were, and is still there.
    assert house.app[SOCKETS].online(eve.id)
    assert await e.ask("CALL_SYNC") == {"calls": []}
    assert e.names().count("SYNC") == 1


# The official client refuses to send these by itself.
RESERVED = {"connect", "connect_error", "disconnect", "disconnecting"}


async def forged(phone: Phone, name: str, args: list[Any]) -> Any:
    """Send what the client would not, without an ack; the refusal comes as ``error``."""
    await phone.frame("2" + json.dumps([name, *args]))
    return await phone.happens("error", lambda told: told["event"] == name)


@pytest.mark.parametrize("event", EVENTS)
async def test_every_event_answers_whatever_shape_it_gets(house: House, event: str) -> None:
    person = await house.person("eve")
    # The devices share the shapes, so that no rate stands in the way.
    phones = await fresh_devices(person, 2)
    half = len(WRONG) // 2
    sent = [[[event, shape] for shape in WRONG[:half]], [[event, shape] for shape in WRONG[half:]]]
    acks = await asyncio.gather(*(phone.burst(part) for phone, part in zip(phones, sent, strict=True)))
    fine = {"CALL_SYNC", "CALL_ENDED"}
    for events, answers in zip(sent, acks, strict=True):
        for (_, shape), ack in zip(events, answers, strict=True):
            assert event in fine or not ack["ok"], (event, str(shape)[:80])
            assert ack["ok"] or ack["error"]["code"] not in ("INTERNAL", "DATABASE_AWAY"), (shape, ack)
    for args in ([{}, {}], [1, 2, 3], [{}, None], [None, None, None], [{}] * 50):
        ack = await phones[0].ack(event, *args)
        assert ack["error"]["code"] == "VALIDATION_FAILED"
    assert (await phones[0].ack(event))["ok"] == (event == "CALL_SYNC")
    # Nothing of it closed a socket.
    for phone in phones:
        assert "*disconnect" not in phone.names()


async def test_an_event_that_asks_for_no_ack_gets_its_refusal_as_error(house: House) -> None:
    _, e = await one(house)
    for event, args, code in [
        ("CALL_ACCEPT", [{}], "VALIDATION_FAILED"),
        ("CALL_ACCEPT", [{"callId": "nothing"}], "CALL_UNKNOWN"),
        ("ICE_CANDIDATE", [{"callId": "nothing", "candidate": None}], "CALL_UNKNOWN"),
        ("ICE_CANDIDATE", [7], "VALIDATION_FAILED"),
        ("NO_SUCH_EVENT", [], "EVENT_UNKNOWN"),
        ("CALL_SYNC", [{}, {}], "VALIDATION_FAILED"),
    ]:
        await e.tell(event, *args)
        told = await e.happens("error")
        assert set(told) == {"error", "event"}
        check_error(told["error"])
        assert (told["event"], told["error"]["code"]) == (event, code)
    await e.tell("CALL_SYNC", {})
    await e.settled()
    assert len(e.heard("error")) == 6, "what goes well is not told"


# ------------------------------------------------------------------------------------------------------- raw frames


def bad_frames(to: str) -> list[tuple[str, str]]:
    """Socket.IO packets with ack id 7 that nobody's client writes, and the code each is refused with."""
    deep = "[" * 40 + "]" * 40
    request = f'"CALL_REQUEST",{{"to":"{to}","type":"audio","x":'
    return [
        (f"27[{request}NaN}}]", "BAD_JSON"),
        (f"27[{request}Infinity}}]", "BAD_JSON"),
        (f"27[{request}-Infinity}}]", "BAD_JSON"),
        (f"27[{request}1", "BAD_JSON"),
        ('27["CALL_SYNC",]', "BAD_JSON"),
        ('27["CALL_SYNC",{}]]', "BAD_JSON"),
        ("27[", "BAD_JSON"),
        ("27[\"CALL_SYNC\",'x']", "BAD_JSON"),
        ('27["\\ud800"]', "BAD_JSON"),
        ('27["CALL_SYNC",{"x":"\\ud800"}]', "BAD_JSON"),
        (f'27["CALL_SYNC",{deep}]', "VALIDATION_FAILED"),
        ('27["CALL_SYNC",' + '{"a":' * 2000 + "1" + "}" * 2000 + "]", "VALIDATION_FAILED"),
        ("27[" * 1 + "[" * 20_000, "VALIDATION_FAILED"),
        ("27[]", "VALIDATION_FAILED"),
        ("27{}", "VALIDATION_FAILED"),
        ('27{"a":1}', "VALIDATION_FAILED"),
        ('27"CALL_SYNC"', "VALIDATION_FAILED"),
        ("27[7]", "VALIDATION_FAILED"),
        ("27[null,{}]", "VALIDATION_FAILED"),
        ('27[["CALL_SYNC"],{}]', "VALIDATION_FAILED"),
        ('27[{"CALL_SYNC":1}]', "VALIDATION_FAILED"),
        ("27[true]", "VALIDATION_FAILED"),
    ]


async def test_frames_that_are_no_good_json_are_refused_by_ack_and_the_connection_lives(house: House) -> None:
    bob = await house.person("bob")
    eve = await house.person("eve")
    async with raw(house, eve.token) as wire:
        for frame, code in bad_frames(bob.id):
            await wire.send_str("4" + frame)
            ack = await wire.ack(7)
            assert (ack["ok"], ack.get("error", {}).get("code")) == (False, code), frame[:60]
        await wire.send_str('427["CALL_SYNC",{}]')
        assert (await wire.ack(7))["ok"]


async def test_nothing_that_a_socket_can_carry_is_left_without_an_answer_or_stops_the_house(
    house: House,
) -> None:
    """Bad namespaces, acks for nothing, other packet types, numbers without end, frames of no protocol."""
    eve = await house.person("eve")
    harmless = [
        "40/admin,", '40/admin,{"token":"x"}', '42/,7["CALL_SYNC",{}]', "41/admin,", '43["nobody asked"]', "43",
        '4399999["nobody asked"]', '437{"x":1}', "3probe", "6", '46-7["binary ack"]', '451-7["CALL_SYNC"]', "450-7[]",
        "3", "5",
    ]  # fmt: skip
    # What the reference server closes a connection for: other things than Socket.IO, or things out of turn.
    deadly = [
        '42/admin,7["CALL_SYNC",{}]', "40", '40{"token":"forged"}', "44", '44{"message":"x"}', "42/" + "n" * 5000,
        "49[]", "4x", "4\x00", '42/a?b=c,7["CALL_SYNC"]', "4" + "1" * 3000, '40{"token":NaN}',
        "40[", "40{{{{", "4" + "0" * 3000, "41", "1",
    ]  # fmt: skip
    either = [
        "4", "42", "9", "45", "451-", "459999999-[]", '42999999999999999999999999["CALL_SYNC",{}]', "2",
        '451-["CALL_SYNC",{"_placeholder":true,"num":5}]', '42-1["CALL_SYNC"]', "4" + "2[" * 1000,
        "42[" + "9" * 5000 + "]",
    ]  # fmt: skip
    for frame in harmless + deadly + either:
        async with raw(house, eve.token) as wire:
            await wire.send_str(frame)
            await wire.send_str('428["CALL_SYNC",{}]')
            ack = await wire.ack(8, or_closed=True)
            assert ack is not None or frame not in harmless, frame[:60]
            assert ack is None or frame not in deadly, frame[:60]
    # The house is none the worse for any of it: `still_serves`.


async def test_binary_is_refused_by_ack(house: House) -> None:
    _, e = await one(house)
    assert (await e.ack("CALL_SYNC", {"$bytes": 1000}))["error"]["code"] == "VALIDATION_FAILED"
    assert (await e.ack("NO_SUCH", {"x": {"$bytes": 5}}))["error"]["code"] in (
        "VALIDATION_FAILED",
        "EVENT_UNKNOWN",
    )
    eve = await house.person("eve")
    async with raw(house, eve.token) as wire:
        await wire.send_bytes(b"\x00\x01 a frame that no packet announced")
        await wire.send_str('428["CALL_SYNC",{}]')
        assert await wire.ack(8, or_closed=True) is None
    # Announced, half sent, then something else: the half is refused, and the line goes on.
    async with raw(house, eve.token) as wire:
        await wire.send_str('452-9["CALL_SYNC",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
        await wire.send_bytes(b"one of two")
        await wire.send_str('428["CALL_SYNC",{}]')
        assert (await wire.ack(9))["error"]["code"] == "VALIDATION_FAILED"
        assert (await wire.ack(8))["ok"]
    # More attachments than anybody has are not waited for.
    async with raw(house, eve.token) as wire:
        await wire.send_str('459999-9["CALL_SYNC"]')
        assert (await wire.ack(9))["error"]["code"] == "VALIDATION_FAILED"
        await wire.send_bytes(b"the first of them")
        assert await wire.message() is None


async def test_whoever_speaks_before_connecting_is_shown_out(house: House) -> None:
    for first in (
        '42["CALL_SYNC",{}]',
        '427["CALL_SYNC",{}]',
        '451-["CALL_SYNC",{"_placeholder":true,"num":0}]',
    ):
        async with raw(house, None) as wire:
            await wire.send_str(first)
            assert await wire.message() is None, first
    for harmless in ("41", '43["x"]', "3"):
        async with raw(house, None) as wire:
            await wire.send_str(harmless)
            await wire.send_str('40{"token":"none"}')
            assert await wire.refused_connect() == "TOKEN_INVALID"


async def test_ack_ids_of_any_size_come_back(house: House) -> None:
    eve = await house.person("eve")
    async with raw(house, eve.token) as wire:
        for number in (0, 1, 2**31, 2**53 - 1):
            await wire.send_str(f'42{number}["CALL_SYNC",{{}}]')
            assert (await wire.ack(number))["ok"]
        # The same id twice is two questions.
        await wire.send_str('425["CALL_SYNC",{}]')
        await wire.send_str('425["NO_SUCH"]')
        assert (await wire.ack(5))["ok"] is not (await wire.ack(5))["ok"]


@pytest.mark.parametrize(
    ("size", "code"),
    [(FRAME_MAX, None), (FRAME_MAX + 1, "PAYLOAD_TOO_LARGE"), (900_000, "PAYLOAD_TOO_LARGE")],
)
async def test_a_frame_may_have_128_kib_and_not_a_byte_more(
    house: House, size: int, code: str | None
) -> None:
    eve = await house.person("eve")
    async with raw(house, eve.token) as wire:
        frame = '27["CALL_SYNC",{"x":"%s"}]'
        await wire.send_str("4" + frame % ("x" * (size - len(frame) + 2)))
        ack = await wire.ack(7)
        assert ack.get("error", {}).get("code") == code
        # In bytes, not in characters.
        await wire.send_str("4" + frame % ("é" * ((size - len(frame) + 3) // 2)))
        assert (await wire.ack(7))["ok"] is (code is None)


async def test_a_frame_beyond_all_measure_closes_its_connection_and_no_other(house: House) -> None:
    eve = await house.person("eve")
    _, other = await one(house)
    async with raw(house, eve.token) as wire:
        await wire.send_str('427["CALL_SYNC",{"x":"' + "x" * 3_000_000 + '"}]')
        assert await wire.ack(7, or_closed=True) is None
    await other.settled()
    async with raw(house, eve.token) as wire:
        await wire.send_str('427["CALL_SYNC",{}]')
        assert (await wire.ack(7))["ok"]


# ------------------------------------------------------------------------------------------------ calls under stress


async def test_e23_descriptions_of_every_bad_kind_are_refused_and_the_line_lives(house: House) -> None:
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob)
    good = sdp()
    whole = good + "a=" + "x" * (64 * 1024 - len(good) - 4) + "\r\n"
    assert len(whole) == 64 * 1024
    cases: list[tuple[Any, str | None]] = [
        (whole, None),
        (whole + "x", "SDP_TOO_LARGE"),
        (good + "é" * 32_768, "SDP_TOO_LARGE"),
        ("x" * 120_000, "SDP_TOO_LARGE"),
        ("v=0\r\n" + "m=audio 9 X 0\r\n" * 4_000, "SDP_INVALID"),
        ("v=0\r\n\x00", "SDP_INVALID"),
        ("not sdp", "SDP_INVALID"),
        ("", "SDP_INVALID"),
        (None, "SDP_INVALID"),
        (7, "SDP_INVALID"),
        ([good], "SDP_INVALID"),
        ({"sdp": good}, "SDP_INVALID"),
    ]
    for text, code in cases:
        ack = await a.ack(
            "SESSION_DESCRIPTION", {"callId": call_id, "description": {"type": "offer", "sdp": text}}
        )
        assert ack.get("error", {}).get("code") == code, str(text)[:40]
    for type_ in ("rollback", "pranswer", "", None, 7, {}):
        about = {"callId": call_id, "description": {"type": type_, "sdp": good}}
        assert (await a.refused("SESSION_DESCRIPTION", about))["code"] == "SDP_INVALID"
    for event in ("CALL_REQUEST", "CALL_ACCEPT", "CALL_RESUME"):
        body = {"to": bob.id, "type": "audio", "callId": call_id}
        bad = {"type": "answer" if event == "CALL_ACCEPT" else "offer", "sdp": "v=0\x00"}
        no = await b.refused(event, {**body, "answer": bad, "offer": bad})
        assert no["code"] == "SDP_INVALID", event
    assert (await b.happens("SESSION_DESCRIPTION"))["description"]["sdp"] == whole
    await b.settled()
    assert b.names().count("SESSION_DESCRIPTION") == 1
    assert (await a.ask("CALL_SYNC"))["calls"][0]["state"] == "active"


async def test_e21_ten_thousand_candidates_are_counted_capped_and_answered(house: House) -> None:
    _, a, bob, b = await pair(house)
    call_id = await ring(a, b, bob)
    for wrong in ([], [7], ["x"], [{"candidate": 7}], [{"candidate": "x" * 5000}], [[]], "x"):
        ack = await a.ack("ICE_CANDIDATE", {"callId": call_id, "candidates": wrong})
        assert ack["ok"] is (wrong == []), wrong
    many = [{"candidate": f"candidate:{n}"} for n in range(10_000)]
    no = await a.ack("ICE_CANDIDATE", {"callId": call_id, "candidates": many[:3000]})
    assert no["error"]["code"] == "VALIDATION_FAILED"
    no = await a.ack("ICE_CANDIDATE", {"callId": call_id, "candidates": many})
    assert no["error"]["code"] == "PAYLOAD_TOO_LARGE", "ten thousand do not fit into a frame"
    assert (await a.ack("ICE_CANDIDATE", {"callId": call_id, "candidates": many[:256]}))["ok"]
    no = await a.ack("ICE_CANDIDATE", {"callId": call_id, "candidates": many[:300][256:]})
    assert (no["error"]["code"], no["error"]["details"]) == ("TOO_MANY_CANDIDATES", {"held": 256})
    await b.ask("CALL_ACCEPT", callId=call_id)
    await a.ask("SESSION_DESCRIPTION", callId=call_id, description=offer())
    await b.happens("ICE_CANDIDATE", lambda told: told["candidate"] == many[255])
    assert [told["candidate"] for told in b.heard("ICE_CANDIDATE")] == many[:256]


async def test_relayed_signaling_has_its_own_rate_of_50_a_second_with_a_burst_of_200(house: House) -> None:
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob, offer=offer())
    await b.ask("SESSION_DESCRIPTION", callId=call_id, description=answer())
    acks = await a.burst(
        [["ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(n)}] for n in range(400)]
    )
    passed = [ack["ok"] for ack in acks]
    # A slow machine gives some tokens back while it works.
    assert 200 <= sum(passed) < 400
    assert all(passed[:200])
    no = next(ack["error"] for ack in acks if not ack["ok"])
    assert no["code"] == "RATE_LIMITED"
    assert 0 < no["retryAfterMs"] <= 1000
    # Hanging up is another lane, and another rate.
    assert (await a.ask("CALL_ENDED", callId=call_id))["state"] == "ended"
    await b.happens("CALL_ENDED")
    assert len(b.heard("ICE_CANDIDATE")) == sum(passed)


async def test_events_have_a_rate_of_10_a_second_with_a_burst_of_100_for_each_device(house: House) -> None:
    eve, e = await one(house)
    acks = await e.burst([["NO_SUCH_EVENT" if n % 2 else "CALL_UPGRADE", {}] for n in range(200)])
    codes = [ack["error"]["code"] for ack in acks]
    assert "RATE_LIMITED" not in codes[:100]
    assert 50 < codes.count("RATE_LIMITED") <= 100
    assert all(ack["error"]["retryAfterMs"] > 0 for ack in acks if ack["error"]["code"] == "RATE_LIMITED")
    other = await eve.phone("another device")
    assert (await other.ack("CALL_SYNC", {}))["ok"]


# ------------------------------------------------------------------------------------------------ when things go wrong


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


# ------------------------------------------------------------------------------------------------ a wire of our own


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

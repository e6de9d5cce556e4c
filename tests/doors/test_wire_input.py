"""No event of a client stops the process or goes without an answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from handlers.registry import catalogue
from server.app import SOCKETS
from tests.doors.conftest import House, Person
from tests.doors.phones import Phone, check_error
from tests.doors.talk import answer, candidate, offer, pair, ring, sdp, talk

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("still_serves"),
]

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


async def one(house: House, name: str = "eve") -> tuple[Person, Phone]:
    person = await house.person(name)
    return person, await person.phone(name)


async def fresh_devices(person: Person, number: int) -> list[Phone]:
    return list(await asyncio.gather(*(person.phone(f"d{n}") for n in range(number))))


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
    fine = {"CALL_SYNC", "CALL_ENDED", "CHAT_STOP_TYPING"}  # they end what may not be there, or ask for all
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

"""The story of a one-to-one call (CONTRACT §2.1), told by phones with the official client."""

from __future__ import annotations

import asyncio

import pytest

from tests.doors.conftest import House
from tests.doors.talk import (
    CALL_FIELDS,
    PRICE_FIELDS,
    USER_FIELDS,
    answer,
    candidate,
    offer,
    pair,
    ring,
    talk,
)

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("rising"),
]


async def test_a_call_from_the_request_to_the_hang_up(house: House) -> None:
    ada, a, bob, b = await pair(house)

    call = await a.ask(
        "CALL_REQUEST", {"to": bob.id, "type": "audio", "offer": offer(), "reportsMedia": True, "opId": "1"}
    )
    assert set(call) == CALL_FIELDS
    assert set(call["caller"]) == set(call["callee"]) == USER_FIELDS
    assert set(call["price"]) == PRICE_FIELDS
    assert (call["state"], call["version"], call["caller"]["id"], call["callee"]["id"]) == (
        "ringing",
        1,
        ada.id,
        bob.id,
    )
    assert call["ringingAt"] is None
    assert (call["price"]["ratePerMinuteMinor"], call["costMinor"]) == (0, 0)

    rung = await b.happens("CALL_REQUEST")
    assert rung["from"]["id"] == ada.id
    assert set(rung["from"]) == USER_FIELDS
    assert (rung["type"], rung["offer"], rung["version"]) == ("audio", offer(), 1)
    assert rung["expiresInMs"] == 45_000
    assert rung["price"] == call["price"]

    # Candidates before the callee can use them are held, in order.
    for number in (1, 2):
        await a.ask("ICE_CANDIDATE", callId=call["id"], candidate=candidate(number))
    rings = await b.ask("CALL_RINGING", callId=call["id"])
    assert rings["ringingAt"] is not None
    told = await a.happens("CALL_RINGING")
    assert (told["callId"], told["from"]["id"], told["call"]["version"]) == (call["id"], bob.id, 2)
    await b.settled()
    assert b.heard("ICE_CANDIDATE") == []

    await house.pass_(2)
    accepted = await b.ask("CALL_ACCEPT", callId=call["id"], answer=answer(), reportsMedia=True)
    assert accepted["state"] == "accepted", "both report media, and none flows yet"
    told = await a.happens("CALL_ACCEPT")
    assert (told["answer"], told["from"]["id"], told["call"]["state"]) == (answer(), bob.id, "accepted")
    for number in (1, 2):
        assert (await b.happens("ICE_CANDIDATE"))["candidate"] == candidate(number)
    await b.ask("ICE_CANDIDATE", callId=call["id"], candidates=[candidate(3), candidate(4), None])
    got = [await a.happens("ICE_CANDIDATE") for _ in range(3)]
    assert [one["candidate"] for one in got] == [candidate(3), candidate(4), None]
    assert {(one["callId"], one["from"]) for one in got} == {(call["id"], bob.id)}

    assert (await a.ask("CALL_CONNECTED", callId=call["id"]))["state"] == "accepted"
    await house.pass_(1)
    assert (await b.ask("CALL_CONNECTED", callId=call["id"]))["state"] == "active"
    for phone in (a, b):
        told = await phone.happens("CALL_UPDATED")
        assert told["call"]["state"] == "active"
    active_at = told["call"]["activeAt"]

    await house.pass_(61.4)
    ended = await a.ask("CALL_ENDED", callId=call["id"], reason="had enough")
    assert (ended["state"], ended["endReason"], ended["endedBy"]) == ("ended", "completed", ada.id)
    assert ended["activeAt"] == active_at
    for phone in (a, b):
        told = await phone.happens("CALL_ENDED")
        assert (told["callId"], told["reason"], told["endedBy"]) == (call["id"], "completed", ada.id)
        assert told["durationSeconds"] == told["call"]["durationSeconds"] == 61
        assert told["cost"] == {"amountMinor": 0, "currency": "NGN"}
        assert told["call"] == ended


async def test_without_promises_of_media_a_call_is_active_at_the_accept(house: House) -> None:
    _, a, bob, b = await pair(house)
    call_id = await ring(a, b, bob)
    accepted = await b.ask("CALL_ACCEPT", callId=call_id)
    assert (accepted["state"], accepted["activeAt"]) == ("active", accepted["acceptedAt"])
    assert (await a.happens("CALL_ACCEPT"))["call"]["state"] == "active"


async def test_an_offer_may_come_late_and_candidates_wait_for_it(house: House) -> None:
    ada, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob)
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(1))
    await b.settled()
    assert b.heard("ICE_CANDIDATE") == []
    await a.ask("SESSION_DESCRIPTION", callId=call_id, description=offer())
    told = await b.happens("SESSION_DESCRIPTION")
    assert (told["callId"], told["from"], told["description"]) == (call_id, ada.id, offer())
    assert (await b.happens("ICE_CANDIDATE"))["candidate"] == candidate(1)
    await b.ask("SESSION_DESCRIPTION", callId=call_id, description=answer())
    assert (await a.happens("SESSION_DESCRIPTION"))["description"] == answer()
    assert b.names().index("SESSION_DESCRIPTION") < b.names().index("ICE_CANDIDATE")


async def test_an_offer_that_comes_while_it_rings_reaches_the_device_that_accepts(house: House) -> None:
    _, a, bob, b = await pair(house)
    call_id = await ring(a, b, bob)
    await a.ask("SESSION_DESCRIPTION", callId=call_id, description=offer())
    await b.settled()
    assert b.heard("SESSION_DESCRIPTION") == [], "nothing goes to a device that has not accepted"
    await b.ask("CALL_ACCEPT", callId=call_id)
    assert (await b.happens("SESSION_DESCRIPTION"))["description"] == offer()


async def test_e24_both_renegotiate_at_once_and_one_negotiation_wins(house: House) -> None:
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob, offer=offer("a1"))
    from_a, from_b = await asyncio.gather(
        a.ack("SESSION_DESCRIPTION", {"callId": call_id, "description": offer("a2")}),
        b.ack("SESSION_DESCRIPTION", {"callId": call_id, "description": offer("b2")}),
    )
    assert from_a["ok"], "the caller is impolite"
    assert (await b.happens("SESSION_DESCRIPTION"))["description"] == offer("a2")
    if not from_b["ok"]:
        assert from_b["error"]["code"] == "CALL_GLARE"
        assert from_b["error"]["retryAfterMs"] > 0
    await b.ask("SESSION_DESCRIPTION", callId=call_id, description=answer("b3"))
    assert await a.happens("SESSION_DESCRIPTION", lambda told: told["description"] == answer("b3"))


async def test_video_is_asked_for_consented_to_and_then_allowed(house: House) -> None:
    ada, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob)
    no = await a.refused("SESSION_DESCRIPTION", callId=call_id, description=offer("a2", "audio video"))
    assert no["code"] == "CALL_UPGRADE_REQUIRED", "E26: no video in a call that is priced as audio"
    await a.ask("CALL_UPGRADE", callId=call_id, type="video")
    asked = await b.happens("CALL_UPGRADE")
    assert (asked["type"], asked["from"]["id"], asked["call"]["type"]) == ("video", ada.id, "audio")
    await b.ask("CALL_UPGRADE_REJECT", callId=call_id)
    assert (await a.happens("CALL_UPGRADE_REJECT"))["call"]["type"] == "audio"
    await b.ask("CALL_UPGRADE", callId=call_id, type="video")
    await a.happens("CALL_UPGRADE")
    assert (await a.ask("CALL_UPGRADE_ACCEPT", callId=call_id))["type"] == "video"
    assert (await b.happens("CALL_UPGRADE_ACCEPT"))["call"]["type"] == "video"
    assert (await b.happens("CALL_UPDATED", lambda told: told["call"]["type"] == "video"))[
        "callId"
    ] == call_id
    await a.ask("SESSION_DESCRIPTION", callId=call_id, description=offer("a3", "audio video"))
    await b.happens("SESSION_DESCRIPTION")


@pytest.mark.parametrize(
    ("event", "fields", "notice", "reason"),
    [
        ("CALL_REJECT", {}, "CALL_REJECT", "declined"),
        ("CALL_REJECT", {"reason": "declined"}, "CALL_REJECT", "declined"),
        ("CALL_REJECT", {"reason": "busy"}, "CALL_BUSY", "busy"),
        ("CALL_BUSY", {}, "CALL_BUSY", "busy"),
        ("CALL_ENDED", {}, "CALL_REJECT", "declined"),
    ],
)
async def test_a_callee_says_no(
    house: House, event: str, fields: dict[str, str], notice: str, reason: str
) -> None:
    _, a, bob, b = await pair(house)
    other = await bob.phone("b2")
    call_id = await ring(a, b, bob)
    await other.happens("CALL_REQUEST")
    ended = await b.ask(event, {"callId": call_id, **fields})
    assert (ended["state"], ended["endReason"], ended["endedBy"]) == ("ended", reason, bob.id)
    told = await a.happens(notice)
    assert (told["callId"], told["reason"], told["from"]["id"]) == (call_id, reason, bob.id)
    assert told["call"]["state"] == "ended"
    told = await other.happens("CALL_ANSWERED_ELSEWHERE")
    assert (told["callId"], told["by"]) == (call_id, "reject")
    await b.settled()
    assert "CALL_ANSWERED_ELSEWHERE" not in b.names(), "the device that says it need not be told"
    again = await b.ask(event, {"callId": call_id, **fields})
    assert again == ended, "safe to repeat"
    await a.settled()
    assert a.names().count(notice) == 1
    # Both are free again.
    await ring(a, b, bob)


@pytest.mark.parametrize("rang", [True, False])
async def test_nobody_answers(house: House, rang: bool) -> None:
    _, a, bob, b = await pair(house)
    call_id = await ring(a, b, bob)
    if rang:
        await b.ask("CALL_RINGING", callId=call_id)
    await house.pass_(44.9)
    assert (await a.ask("CALL_SYNC"))["calls"][0]["state"] == "ringing"
    await house.pass_(0.2)
    reason = "no_answer" if rang else "unreachable"
    for phone in (a, b):
        told = await phone.happens("CALL_TIMEOUT")
        assert (told["callId"], told["reason"], told["call"]["endReason"]) == (call_id, reason, reason)
    no = await b.refused("CALL_ACCEPT", callId=call_id)
    assert (no["code"], no["details"]["endReason"]) == ("CALL_ENDED", reason)
    missed = await bob.get("/api/calls/history?status=missed")
    assert [one["id"] for one in missed.body["items"]] == [call_id]


async def test_a_caller_cancels(house: House) -> None:
    ada, a, bob, b = await pair(house)
    call_id = await ring(a, b, bob)
    ended = await a.ask("CALL_ENDED", callId=call_id)
    assert (ended["endReason"], ended["endedBy"]) == ("cancelled", ada.id)
    told = await b.happens("CALL_ENDED")
    assert (told["reason"], told["endedBy"], told["durationSeconds"]) == ("cancelled", ada.id, 0)


async def test_e07_a_cancel_that_overtakes_its_request_rings_nowhere(house: House) -> None:
    _, a, bob, b = await pair(house)
    await a.ask("CALL_ENDED", opId="tap-7")
    call = await a.ask("CALL_REQUEST", to=bob.id, type="audio", opId="tap-7")
    assert (call["state"], call["endReason"]) == ("ended", "cancelled")
    await b.settled()
    assert "CALL_REQUEST" not in b.names()
    await ring(a, b, bob)


async def test_e08_a_request_that_is_repeated_rings_once(house: House) -> None:
    _, a, bob, b = await pair(house)
    ask = {"to": bob.id, "type": "audio", "opId": "tap-8"}
    first = await a.ask("CALL_REQUEST", ask)
    assert await a.ask("CALL_REQUEST", ask) == first
    # At the same time: whichever comes first is done, and the other says so.
    acks = await a.burst([["CALL_REQUEST", {**ask, "opId": "x"}]] * 2)
    done = [ack["data"]["id"] for ack in acks if ack["ok"]]
    assert len(set(done)) == 1
    assert {ack["error"]["code"] for ack in acks if not ack["ok"]} <= {"IDEMPOTENCY_IN_FLIGHT"}
    await b.settled()
    ids = [told["callId"] for told in b.heard("CALL_REQUEST")]
    assert len(ids) == len(set(ids)) == 2


async def test_e09_the_same_op_id_with_another_payload_is_refused(house: House) -> None:
    _, a, bob, b = await pair(house)
    await a.ask("CALL_REQUEST", to=bob.id, type="audio", opId="tap-9")
    no = await a.refused("CALL_REQUEST", to=bob.id, type="video", opId="tap-9")
    assert no["code"] == "IDEMPOTENCY_MISMATCH"
    await b.settled()
    assert b.names().count("CALL_REQUEST") == 1

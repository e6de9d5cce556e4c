"""The story of a one-to-one call (CONTRACT §2.1), told by phones with the official client."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.doors.conftest import House, Person
from tests.doors.phones import Phone

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALL_FIELDS = {
    *(
        "id",
        "type",
        "state",
        "version",
        "caller",
        "callee",
        "createdAt",
        "ringingAt",
        "acceptedAt",
        "activeAt",
    ),
    *(
        "endedAt",
        "endReason",
        "endedBy",
        "durationSeconds",
        "billedSeconds",
        "price",
        "costMinor",
        "endsInMs",
    ),
    "quality",
}
USER_FIELDS = {
    "id",
    "username",
    "displayName",
    "avatarUrl",
    "presence",
    "ratePerMinuteMinor",
    "currency",
}
PRICE_FIELDS = {
    *(
        "ratePerMinuteMinor",
        "currency",
        "firstBlockSeconds",
        "blockSeconds",
        "connectFeeMinor",
        "minimumMinor",
    ),
}


def sdp(ufrag: str = "aaaa", media: str = "audio") -> str:
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0"]
    for kind in media.split():
        lines += [f"m={kind} 9 UDP/TLS/RTP/SAVPF 96", "c=IN IP4 0.0.0.0", f"a=ice-ufrag:{ufrag}"]
    return "\r\n".join(lines) + "\r\n"


def offer(ufrag: str = "aaaa", media: str = "audio") -> dict[str, str]:
    return {"type": "offer", "sdp": sdp(ufrag, media)}


def answer(ufrag: str = "bbbb", media: str = "audio") -> dict[str, str]:
    return {"type": "answer", "sdp": sdp(ufrag, media)}


def candidate(number: int = 1, ufrag: str | None = None) -> dict[str, Any]:
    line = f"candidate:{number} 1 udp 2113937151 192.0.2.{number % 250} 5{number:04d} typ host"
    found: dict[str, Any] = {"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0}
    return {**found, "usernameFragment": ufrag} if ufrag else found


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def snapshots_rise(house: House) -> AsyncIterator[None]:
    """What holds in every story: a call's versions never fall, and a person's numbers rise."""
    before = len(house.phones)
    yield
    for phone in house.phones[before:]:
        versions: dict[str, int] = defaultdict(int)
        last = 0
        for name, args in phone.log:
            told = args[0] if args and isinstance(args[0], dict) else {}
            if name == "*connect":
                last = 0  # a replay begins where the device said
            if "logSeq" in told:
                assert told["logSeq"] > last, f"{phone.name}: {name} {told['logSeq']} after {last}"
                last = told["logSeq"]
            if isinstance(told.get("call"), dict):
                call = told["call"]
                assert call["version"] >= versions[call["id"]], f"{phone.name}: an older snapshot by {name}"
                versions[call["id"]] = call["version"]
    for phone in house.phones[before:]:
        await phone.forget()


async def pair(house: House) -> tuple[Person, Phone, Person, Phone]:
    ada, bob = await asyncio.gather(house.person("ada"), house.person("bob"))
    a, b = await asyncio.gather(ada.phone("a"), bob.phone("b"))
    return ada, a, bob, b


async def ring(caller: Phone, callee: Phone, to: Person, **fields: Any) -> str:
    """A call that rings; its id."""
    call = await caller.ask("CALL_REQUEST", {"to": to.id, "type": "audio", **fields})
    await callee.happens("CALL_REQUEST", lambda told: told["callId"] == call["id"])
    return str(call["id"])


async def talk(caller: Phone, callee: Phone, to: Person, **fields: Any) -> str:
    """A call that is active; its id."""
    call_id = await ring(caller, callee, to, **fields)
    call = await callee.ask("CALL_ACCEPT", callId=call_id)
    assert call["state"] == "active"
    await caller.happens("CALL_ACCEPT")
    return call_id


# ------------------------------------------------------------------------------------------------ the story itself


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
    ada, a, bob, b = await pair(house)
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
    ada, a, bob, b = await pair(house)
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


async def test_e7_a_cancel_that_overtakes_its_request_rings_nowhere(house: House) -> None:
    _, a, bob, b = await pair(house)
    await a.ask("CALL_ENDED", opId="tap-7")
    call = await a.ask("CALL_REQUEST", to=bob.id, type="audio", opId="tap-7")
    assert (call["state"], call["endReason"]) == ("ended", "cancelled")
    await b.settled()
    assert "CALL_REQUEST" not in b.names()
    await ring(a, b, bob)


async def test_e8_a_request_that_is_repeated_rings_once(house: House) -> None:
    _, a, bob, b = await pair(house)
    ask = {"to": bob.id, "type": "audio", "opId": "tap-8"}
    first = await a.ask("CALL_REQUEST", ask)
    assert await a.ask("CALL_REQUEST", ask) == first
    one, two = await a.burst([["CALL_REQUEST", {**ask, "opId": "x"}], ["CALL_REQUEST", {**ask, "opId": "x"}]])
    assert one["ok"]
    assert one == two or two["error"]["code"] == "IDEMPOTENCY_IN_FLIGHT"
    await b.settled()
    ids = [told["callId"] for told in b.heard("CALL_REQUEST")]
    assert len(ids) == len(set(ids)) == 2


async def test_e9_the_same_op_id_with_another_payload_is_refused(house: House) -> None:
    _, a, bob, b = await pair(house)
    await a.ask("CALL_REQUEST", to=bob.id, type="audio", opId="tap-9")
    no = await a.refused("CALL_REQUEST", to=bob.id, type="video", opId="tap-9")
    assert no["code"] == "IDEMPOTENCY_MISMATCH"
    await b.settled()
    assert b.names().count("CALL_REQUEST") == 1


# ------------------------------------------------------------------------------------------------- several devices


async def test_e1_two_devices_accept_in_the_same_moment_and_one_has_the_call(house: House) -> None:
    _, a, bob, b1 = await pair(house)
    b2 = await bob.phone("b2")
    call_id = await ring(a, b1, bob)
    await b2.happens("CALL_REQUEST")
    acks = await asyncio.gather(*(b.ack("CALL_ACCEPT", {"callId": call_id}) for b in (b1, b2)))
    won, lost = (b1, b2) if acks[0]["ok"] else (b2, b1)
    assert [ack["ok"] for ack in acks].count(True) == 1
    no = next(ack["error"] for ack in acks if not ack["ok"])
    assert no["code"] == "CALL_ANSWERED_ELSEWHERE"
    told = await lost.happens("CALL_ANSWERED_ELSEWHERE")
    assert (told["callId"], told["by"]) == (call_id, "accept")
    await a.happens("CALL_ACCEPT")
    await a.settled()
    await won.settled()
    assert a.names().count("CALL_ACCEPT") == 1
    assert "CALL_ANSWERED_ELSEWHERE" not in won.names()


async def test_descriptions_and_candidates_go_to_the_device_that_has_the_call_and_to_no_other(
    house: House,
) -> None:
    ada, a, bob, b1 = await pair(house)
    a2, b2 = await asyncio.gather(ada.phone("a2"), bob.phone("b2"))
    call_id = await ring(a, b1, bob, offer=offer())
    await b1.ask("CALL_ACCEPT", callId=call_id, answer=answer())
    assert (await a.happens("CALL_ACCEPT"))["answer"] == answer()
    assert "answer" not in await a2.happens("CALL_ACCEPT")
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(1))
    await b1.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(2))
    await b1.ask("SESSION_DESCRIPTION", callId=call_id, description=offer("b2"))
    await a.happens("SESSION_DESCRIPTION")
    await b1.happens("ICE_CANDIDATE")
    for other in (a2, b2):
        await other.settled()
        assert not {"ICE_CANDIDATE", "SESSION_DESCRIPTION"} & set(other.names())


async def test_e6_a_late_decline_of_another_device_does_not_end_the_call(house: House) -> None:
    _, a, bob, b1 = await pair(house)
    b2 = await bob.phone("b2")
    call_id = await ring(a, b1, bob)
    await b1.ask("CALL_ACCEPT", callId=call_id)
    assert (await b2.refused("CALL_REJECT", callId=call_id))["code"] == "CALL_ANSWERED_ELSEWHERE"
    assert (await a.ask("CALL_SYNC"))["calls"][0]["state"] == "active"


async def test_e14_only_the_callee_rings_accepts_and_declines(house: House) -> None:
    _, a, bob, b = await pair(house)
    eve = await house.person("eve")
    e = await eve.phone("e")
    call_id = await ring(a, b, bob)
    for event in ("CALL_RINGING", "CALL_ACCEPT", "CALL_REJECT", "CALL_BUSY"):
        assert (await a.refused(event, callId=call_id))["code"] == "CALL_WRONG_SIDE"
        assert (await e.refused(event, callId=call_id))["code"] == "CALL_UNKNOWN"
    assert (await a.ask("CALL_SYNC"))["calls"][0]["version"] == 1


async def test_e22_strangers_and_other_devices_signal_nothing(house: House) -> None:
    ada, a, bob, b = await pair(house)
    eve = await house.person("eve")
    e, a2 = await asyncio.gather(eve.phone("e"), ada.phone("a2"))
    call_id = await talk(a, b, bob, offer=offer())
    about = {"callId": call_id}
    signals = [
        ("SESSION_DESCRIPTION", {**about, "description": offer("evil")}),
        ("SESSION_DESCRIPTION", {**about, "description": answer("evil")}),
        ("ICE_CANDIDATE", {**about, "candidate": candidate(66)}),
        ("CALL_CONNECTED", about),
        ("CALL_QUALITY", {**about, "stats": {}}),
        ("CALL_UPGRADE", {**about, "type": "video"}),
    ]
    for event, payload in signals:
        assert (await e.refused(event, payload))["code"] == "CALL_UNKNOWN"
        assert (await a2.refused(event, payload))["code"] == "CALL_ANSWERED_ELSEWHERE"
    assert (await e.refused("CALL_ENDED", about))["code"] == "CALL_UNKNOWN"
    # An identity in the payload decides nothing.
    assert (await e.refused("CALL_ENDED", {**about, "from": ada.id, "userId": ada.id}))[
        "code"
    ] == "CALL_UNKNOWN"
    await b.settled()
    assert not {"SESSION_DESCRIPTION", "ICE_CANDIDATE", "CALL_UPGRADE"} & set(b.names())


async def test_e36_a_call_is_taken_over_by_another_device_without_ping_pong(house: House) -> None:
    ada, a, bob, b = await pair(house)
    a2 = await ada.phone("a2")
    call_id = await talk(a, b, bob, offer=offer("a1"))
    await b.ask("SESSION_DESCRIPTION", callId=call_id, description=answer("b1"))
    taken = await a2.ask("CALL_RESUME", callId=call_id)
    assert taken["state"] == "active"
    told = await a.happens("CALL_ANSWERED_ELSEWHERE")
    assert (told["callId"], told["by"]) == (call_id, "takeover")
    # E37: what the old device still says of the call is refused.
    no = await a.refused("SESSION_DESCRIPTION", callId=call_id, description=offer("a9"))
    assert no["code"] == "CALL_ANSWERED_ELSEWHERE"
    await a2.ask("SESSION_DESCRIPTION", callId=call_id, description=offer("a2"))
    await b.happens("SESSION_DESCRIPTION")
    await b.ask("SESSION_DESCRIPTION", callId=call_id, description=answer("b2"))
    assert (await a2.happens("SESSION_DESCRIPTION"))["description"] == answer("b2")
    await a.settled()
    assert a.names().count("CALL_ANSWERED_ELSEWHERE") == 1
    # A person hangs up from whichever device.
    assert (await a.ask("CALL_ENDED", callId=call_id))["endReason"] == "completed"


# -------------------------------------------------------------------------------------------- meeting in the middle


async def test_e4_two_people_call_each_other_at_once_and_are_in_one_call(house: House) -> None:
    ada, a, bob, b = await pair(house)
    one, two = await asyncio.gather(
        a.ask("CALL_REQUEST", to=bob.id, type="audio", offer=offer("aa")),
        b.ask("CALL_REQUEST", to=ada.id, type="audio", offer=offer("bb")),
    )
    assert one["id"] == two["id"]
    first, second = (a, b) if one["caller"]["id"] == ada.id else (b, a)
    assert (await first.happens("CALL_ACCEPT"))["call"]["state"] == "active"
    # The offer of the one whose call it is goes to the other, who answers it.
    theirs = offer("aa") if first is a else offer("bb")
    assert (await second.happens("SESSION_DESCRIPTION"))["description"] == theirs
    await second.ask("SESSION_DESCRIPTION", callId=one["id"], description=answer())
    assert (await first.happens("SESSION_DESCRIPTION"))["description"] == answer()
    for person in (ada, bob):
        assert len((await person.get("/api/calls/history")).body["items"]) == 1


async def test_e5_two_people_call_a_third_and_one_finds_them_busy(house: House) -> None:
    ada, a, bob, b = await pair(house)
    cid = await house.person("cid")
    c = await cid.phone("c")
    acks = await asyncio.gather(*(x.ack("CALL_REQUEST", {"to": bob.id, "type": "audio"}) for x in (a, c)))
    assert [ack["ok"] for ack in acks].count(True) == 1
    busy = next(ack["error"] for ack in acks if not ack["ok"])
    assert busy["code"] == "CALL_BUSY"
    await b.settled()
    assert b.names().count("CALL_REQUEST") == 1
    missed = (await bob.get("/api/calls/history?status=missed")).body["items"]
    assert [(one["id"], one["endReason"]) for one in missed] == [(busy["details"]["callId"], "busy")]


async def test_e17_a_second_caller_finds_a_talking_person_busy_and_disturbs_nothing(house: House) -> None:
    _, a, bob, b = await pair(house)
    c = await (await house.person("cid")).phone("c")
    call_id = await talk(a, b, bob)
    assert (await c.refused("CALL_REQUEST", to=bob.id, type="audio"))["code"] == "CALL_BUSY"
    no = await a.refused("CALL_REQUEST", to=(await house.person("dan")).id, type="audio")
    assert (no["code"], no["details"]["callId"]) == ("CALL_IN_PROGRESS", call_id)
    live = (await b.ask("CALL_SYNC"))["calls"]
    assert live[0]["id"] == call_id
    assert live[0]["state"] == "active"


async def test_calls_to_oneself_to_nobody_and_between_blocked_people_are_refused(house: House) -> None:
    ada, a, bob, b = await pair(house)
    assert (await a.refused("CALL_REQUEST", to=ada.id, type="audio"))["code"] == "SELF_NOT_ALLOWED"
    assert (await a.refused("CALL_REQUEST", to="nobody", type="audio"))["code"] == "USER_UNKNOWN"
    assert (await ada.send("PUT", f"/api/users/{bob.id}/block")).status == 204
    assert (await a.refused("CALL_REQUEST", to=bob.id, type="audio"))["code"] == "USER_BLOCKED"
    assert (await b.refused("CALL_REQUEST", to=ada.id, type="audio"))["code"] == "USER_UNAVAILABLE"
    assert (await ada.send("DELETE", f"/api/users/{bob.id}/block")).status == 204
    await ring(a, b, bob)


async def test_e16_a_block_while_it_rings_looks_like_nobody_at_home(house: House) -> None:
    ada, a, bob, b = await pair(house)
    b2 = await bob.phone("b2")
    await ring(a, b, bob)
    assert (await bob.send("PUT", f"/api/users/{ada.id}/block")).status == 204
    for phone in (a, b, b2):
        assert (await phone.happens("CALL_TIMEOUT"))["reason"] == "no_answer"


async def test_a_block_in_the_middle_of_a_call_ends_it(house: House) -> None:
    ada, a, bob, b = await pair(house)
    await talk(a, b, bob)
    assert (await bob.send("PUT", f"/api/users/{ada.id}/block")).status == 204
    for phone in (a, b):
        assert (await phone.happens("CALL_ENDED"))["reason"] == "policy"


async def test_e54_ringing_somebody_again_and_again_is_limited(house: House) -> None:
    _, a, bob, b = await pair(house)
    for _ in range(6):
        await a.ask("CALL_ENDED", callId=await ring(a, b, bob))
    no = await a.refused("CALL_REQUEST", to=bob.id, type="audio")
    assert no["code"] == "RATE_LIMITED"
    assert 0 < no["retryAfterMs"] <= 60_000
    await b.settled()
    assert b.names().count("CALL_REQUEST") == 6
    await house.pass_(61)
    await ring(a, b, bob)


# ----------------------------------------------------------------------------------- connections that come and go


async def test_e30_a_phone_that_loses_its_network_resumes_and_the_call_goes_on(house: House) -> None:
    ada, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob, offer=offer("a1"))
    await b.ask("SESSION_DESCRIPTION", callId=call_id, description=answer("b1"))
    await house.pass_(10)
    await a.kill()
    told = await b.happens("CALL_UPDATED", lambda told: told["call"]["state"] == "reconnecting")
    assert told["callId"] == call_id
    await house.pass_(20)
    await a.connect()
    sync = await a.happens("SYNC")
    assert [(one["id"], one["state"]) for one in sync["calls"]] == [(call_id, "reconnecting")]
    back = await a.ask("CALL_RESUME", callId=call_id, offer=offer("a2"))
    assert (back["id"], back["state"]) == (call_id, "active")
    await b.happens("CALL_UPDATED", lambda told: told["call"]["state"] == "active")
    assert (await b.happens("SESSION_DESCRIPTION"))["description"] == offer("a2")
    await house.pass_(5)
    ended = await b.ask("CALL_ENDED", callId=call_id)
    assert ended["billedSeconds"] == 15, "the gap is not billed"
    detail = (await ada.get(f"/api/calls/{call_id}")).body["call"]
    assert len(detail["intervals"]) == 2


async def test_e31_a_phone_that_stays_away_ends_the_call_once(house: House) -> None:
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob)
    await a.kill()
    await b.happens("CALL_UPDATED", lambda told: told["call"]["state"] == "reconnecting")
    await house.pass_(31)
    told = await b.happens("CALL_ENDED")
    assert (told["callId"], told["reason"]) == (call_id, "connection_lost")
    await b.settled()
    assert b.names().count("CALL_ENDED") == 1
    await a.connect()
    sync = await a.happens("SYNC")
    assert [(one["id"], one["endReason"]) for one in sync["calls"]] == [(call_id, "connection_lost")]


@pytest.mark.parametrize(("away", "state"), [(10, "ringing"), (16, "caller_lost")])
async def test_e15_a_caller_who_is_lost_while_it_rings(house: House, away: int, state: str) -> None:
    ada, a, bob, b = await pair(house)
    call_id = await ring(a, b, bob)
    await a.kill()
    await house.http.get(house.url + "/health/live")
    await until_lost(house, call_id)
    await house.pass_(away)
    if state == "caller_lost":
        assert (await b.happens("CALL_ENDED"))["reason"] == "caller_lost"
        return
    await a.connect()
    await a.happens("SYNC")
    await house.pass_(10)
    assert (await b.ask("CALL_ACCEPT", callId=call_id))["state"] == "active"
    await a.happens("CALL_ACCEPT")


async def until_lost(house: House, call_id: str) -> None:
    """Until the server knows that the caller's socket is gone: nobody is told while it rings."""
    async with asyncio.timeout(10):
        while house.services.calls.board.call(call_id).caller_leg.lost_at is None:
            await house.db.ping()


async def test_e34_an_app_that_was_killed_calls_the_same_person_again_at_once(house: House) -> None:
    ada, a, bob, b = await pair(house)
    old = await talk(a, b, bob)
    await a.kill()
    await b.happens("CALL_UPDATED")
    fresh = await ada.phone("a")
    new = await ring(fresh, b, bob)
    assert new != old
    assert (await b.happens("CALL_ENDED"))["callId"] == old


async def test_e35_an_app_that_never_comes_back_keeps_nobody_busy(house: House) -> None:
    _, a, bob, b = await pair(house)
    c = await (await house.person("cid")).phone("c")
    await talk(a, b, bob)
    await a.kill()
    await b.happens("CALL_UPDATED")
    await house.pass_(45)
    await b.happens("CALL_ENDED")
    await ring(c, b, bob)


async def test_e32_while_the_other_side_reports_media_a_lost_socket_ends_nothing(house: House) -> None:
    """E42 as well: a locked screen stops an app's heartbeat, not its media."""
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob)
    stats = {"rttMs": 40, "inbound": {"bitrateKbps": 32}}
    await b.ask("CALL_QUALITY", callId=call_id, stats=stats)
    await a.kill()
    for _ in range(6):
        await house.pass_(10)
        await b.ask("CALL_QUALITY", callId=call_id, stats=stats)
    assert (await b.ask("CALL_SYNC"))["calls"][0]["state"] == "active"
    ended = await b.ask("CALL_ENDED", callId=call_id)
    assert ended["billedSeconds"] == 60


async def test_e33_media_that_stops_asks_for_an_ice_restart_and_is_not_billed(house: House) -> None:
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob)
    await b.ask("CALL_QUALITY", callId=call_id, stats={"inbound": {"bitrateKbps": 32}})
    await house.pass_(5)
    await b.ask("CALL_QUALITY", callId=call_id, stats={"inbound": {"bitrateKbps": 0}})
    for phone in (a, b):
        told = await phone.happens("CALL_UPDATED", lambda told: told["call"]["state"] == "reconnecting")
        assert told["restartIce"] is True
    await house.pass_(5)
    await b.ask("CALL_CONNECTED", callId=call_id)
    await a.happens("CALL_UPDATED", lambda told: told["call"]["state"] == "active")


async def test_a_call_that_gets_no_media_fails_and_one_that_is_too_long_ends(house: House) -> None:
    _, a, bob, b = await pair(house)
    call_id = await ring(a, b, bob, reportsMedia=True)
    await b.ask("CALL_ACCEPT", callId=call_id, reportsMedia=True)
    await house.pass_(31)
    for phone in (a, b):
        told = await phone.happens("CALL_ENDED")
        assert (told["reason"], told["endedBy"], told["durationSeconds"]) == ("connect_failed", None, 0)
    call_id = await talk(a, b, bob)
    await house.pass_(14_401)
    for phone in (a, b):
        told = await phone.happens("CALL_ENDED", lambda told, i=call_id: told["callId"] == i)
        assert (told["reason"], told["durationSeconds"]) == ("max_duration", 14_400)


async def test_quality_is_kept_with_the_call_for_each_side(house: House) -> None:
    ada, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob)
    good = {
        "rttMs": 42.5,
        "inbound": {"bitrateKbps": 800, "jitterMs": 4, "lossPercent": 0.1},
        "outbound": {"bitrateKbps": 700},
    }
    assert await a.ask("CALL_QUALITY", callId=call_id, stats=good) == {}
    await b.ask("CALL_QUALITY", callId=call_id, stats={"rttMs": 41, "unknown": "ignored"})
    call = (await ada.get(f"/api/calls/{call_id}")).body["call"]
    assert call["quality"] == {"caller": good, "callee": {"rttMs": 41}}
    no = await a.refused("CALL_QUALITY", callId=call_id, stats={"rttMs": -1})
    assert no["code"] == "VALIDATION_FAILED"


async def test_call_sync_gives_the_live_call_and_those_that_have_just_ended(house: House) -> None:
    _, a, bob, b = await pair(house)
    assert await a.ask("CALL_SYNC") == {"calls": []}
    first = await ring(a, b, bob)
    await a.ask("CALL_ENDED", callId=first)
    await house.pass_(1)
    second = await ring(a, b, bob)
    calls = (await b.ask("CALL_SYNC"))["calls"]
    assert {(one["id"], one["state"]) for one in calls} == {(first, "ended"), (second, "ringing")}
    assert all(set(one) == CALL_FIELDS for one in calls)
    await a.ask("CALL_ENDED", callId=second)
    await house.pass_(301)
    assert await b.ask("CALL_SYNC") == {"calls": []}


async def test_e40_hanging_up_an_ended_or_unknown_call_clears_the_screen(house: House) -> None:
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob)
    ended = await a.ask("CALL_ENDED", callId=call_id)
    assert await b.ask("CALL_ENDED", callId=call_id) == ended
    assert await a.ask("CALL_ENDED", callId=call_id) == ended
    assert (await a.refused("CALL_ENDED", callId="no-such-call"))["code"] == "CALL_UNKNOWN"
    for event in ("CALL_ACCEPT", "CALL_RINGING", "CALL_CONNECTED", "CALL_RESUME"):
        no = await b.refused(event, callId=call_id)
        assert (no["code"], no["details"]["endReason"]) == ("CALL_ENDED", "completed")
    no = await a.refused("ICE_CANDIDATE", callId=call_id, candidate=candidate())
    assert no["code"] == "CALL_ENDED"


async def test_events_are_heard_in_small_letters_and_answered_in_capitals(house: House) -> None:
    _, a, bob, b = await pair(house)
    call = await a.ask("call_request", to=bob.id, type="video", offer=offer(media="audio video"))
    rung = await b.happens("CALL_REQUEST")
    assert rung["type"] == "video"
    await b.ask("call_ringing", callId=call["id"])
    await a.happens("CALL_RINGING")
    await b.ask("call_accept", callId=call["id"], answer=answer(media="audio video"))
    await a.happens("CALL_ACCEPT")
    await a.ask("ice_candidate", callId=call["id"], candidate=candidate())
    await b.happens("ICE_CANDIDATE")
    assert (await b.ask("call_sync"))["calls"][0]["id"] == call["id"]
    await b.ask("call_ended", callId=call["id"])
    await a.happens("CALL_ENDED")
    # Neither in between nor in another case: those names nobody has documented.
    assert (await a.refused("Call_Request", to=bob.id, type="audio"))["code"] == "EVENT_UNKNOWN"


async def test_candidates_of_an_old_negotiation_are_dropped_and_of_a_future_one_held(house: House) -> None:
    """E21: before the offer, of an older negotiation, twice."""
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob, offer=offer("gen1"))
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(2, "gen2"))
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(2, "gen2"))
    await b.settled()
    assert b.heard("ICE_CANDIDATE") == []
    await a.ask("SESSION_DESCRIPTION", callId=call_id, description=offer("gen2"))
    await b.happens("ICE_CANDIDATE")
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(1, "gen1"))
    await b.settled()
    assert [told["candidate"]["usernameFragment"] for told in b.heard("ICE_CANDIDATE")] == ["gen2"]


# ------------------------------------------------------------------------------------------- both doors in one call


async def test_a_phone_that_sleeps_declines_by_rest_and_every_ring_stops(house: House) -> None:
    _, a, bob, b = await pair(house)
    call_id = await ring(a, b, bob)
    done = await bob.post("/api/calls/reject", {"callId": call_id})
    assert (done.status, done.body["call"]["endReason"]) == (200, "declined")
    assert (await b.happens("CALL_ANSWERED_ELSEWHERE"))["by"] == "reject"
    assert (await a.happens("CALL_REJECT"))["reason"] == "declined"


async def test_a_call_requested_by_rest_rings_sockets_and_is_taken_there(house: House) -> None:
    ada, bob = await asyncio.gather(house.person("ada"), house.person("bob"))
    b = await bob.phone("b")
    made = await ada.post("/api/calls/initiate", {"to": bob.id, "type": "audio", "offer": offer()})
    assert made.status == 201
    call_id = made.body["call"]["id"]
    assert (await b.happens("CALL_REQUEST"))["offer"] == offer()
    await b.ask("CALL_ACCEPT", callId=call_id, answer=answer())
    await b.ask("ICE_CANDIDATE", callId=call_id, candidates=[candidate(1), candidate(2), ""])
    polled = (await ada.get(f"/api/calls/{call_id}/signals")).body["items"]
    assert [(one["kind"], one["from"]) for one in polled] == [("description", bob.id)] + [
        ("candidate", bob.id)
    ] * 3
    assert [one["signal"] for one in polled] == [answer(), candidate(1), candidate(2), ""]
    numbers = [one["number"] for one in polled]
    assert numbers == sorted(set(numbers))
    rest = (await ada.get(f"/api/calls/{call_id}/signals?after={numbers[1]}")).body["items"]
    assert [one["number"] for one in rest] == numbers[2:]
    assert (await ada.post("/api/calls/signal", {"callId": call_id, "candidate": candidate(9)})).status == 204
    assert (await b.happens("ICE_CANDIDATE"))["candidate"] == candidate(9)
    # No socket, no lease: time alone does not end the call of a client that polls.
    await house.pass_(120)
    assert (await ada.get(f"/api/calls/{call_id}")).body["call"]["state"] == "active"
    assert (await ada.post("/api/calls/end", {"callId": call_id})).body["call"]["endReason"] == "completed"
    assert (await b.happens("CALL_ENDED"))["endedBy"] == ada.id


async def test_two_clients_without_sockets_make_a_whole_call_by_polling(house: House) -> None:
    ada, bob = await asyncio.gather(house.person("ada"), house.person("bob"))
    made = await ada.post("/calls", {"receiverId": bob.id, "callType": "audio", "offer": offer("a1")})
    call_id = made.body["call"]["id"]
    coming = (await bob.get("/api/calls/history?status=live")).body["items"]
    assert [(one["id"], one["state"]) for one in coming] == [(call_id, "ringing")]
    seen = (await bob.get(f"/api/calls/{call_id}/signals")).body["items"]
    assert [one["signal"] for one in seen] == [offer("a1")]
    # Candidates of the caller wait until the callee has a leg.
    assert (
        await ada.post("/api/calls/signal", {"sessionId": call_id, "candidate": candidate(1)})
    ).status == 204
    taken = await bob.send("PATCH", f"/api/calls/{call_id}/answer", {"answer": answer("b1")})
    assert (taken.status, taken.body["call"]["state"]) == (200, "active")
    assert (await bob.post("/api/calls/signal", {"callId": call_id, "candidate": candidate(2)})).status == 204
    for person, expected in ((ada, [answer("b1"), candidate(2)]), (bob, [candidate(1)])):
        got = (await person.get(f"/api/calls/{call_id}/signals")).body["items"]
        assert [one["signal"] for one in got] == expected, person.username
    restart = {"callId": call_id, "description": offer("b2")}
    assert (await bob.post("/api/calls/signal", restart)).status == 204
    last = (await ada.get(f"/api/calls/{call_id}/signals?after=2")).body["items"]
    assert [one["signal"] for one in last] == [offer("b2")]
    done = await ada.send("PATCH", f"/calls/{call_id}/end")
    assert done.body["call"]["endReason"] == "completed"
    assert (await bob.get(f"/api/calls/{call_id}")).body["call"]["state"] == "ended"

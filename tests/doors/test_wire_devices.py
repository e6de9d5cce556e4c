"""Several devices, people who call at the same time, and both doors in one call."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from server.app import SOCKETS
from server.metrics import REGISTRY
from tests.doors.conftest import House
from tests.doors.talk import answer, candidate, offer, pair, ring, talk

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("rising"),
]


async def test_e01_two_devices_accept_in_the_same_moment_and_one_has_the_call(house: House) -> None:
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


async def test_e06_a_late_decline_of_another_device_does_not_end_the_call(house: House) -> None:
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


async def test_e22_what_a_stranger_reaches_for_stands_in_the_log_also_on_the_relayed_path(
    house: House,
) -> None:
    _, a, bob, b = await pair(house)
    eve = await house.person("eve")
    e = await eve.phone("e")
    call_id = await talk(a, b, bob, offer=offer())

    def counted(outcome: str) -> float:
        house.app[SOCKETS].relayed.carry()
        door = {"door": "ICE_CANDIDATE", "outcome": outcome}
        return REGISTRY.get_sample_value("ringmeter_requests_total", door) or 0

    well, refused = counted("ok"), counted("CALL_UNKNOWN")
    with structlog.testing.capture_logs() as lines:
        await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(1))
        assert (await e.refused("ICE_CANDIDATE", callId=call_id, candidate=candidate(66)))[
            "code"
        ] == "CALL_UNKNOWN"
    assert (counted("ok"), counted("CALL_UNKNOWN")) == (well + 1, refused + 1)
    (audit,) = [line for line in lines if line["event"] == "refused"]
    assert (audit["door"], audit["code"], audit["user_id"]) == ("ICE_CANDIDATE", "CALL_UNKNOWN", eve.id)


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


async def test_e04_two_people_call_each_other_at_once_and_are_in_one_call(house: House) -> None:
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


async def test_e05_two_people_call_a_third_and_one_finds_them_busy(house: House) -> None:
    _, a, bob, b = await pair(house)
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

"""Connections that come and go in a call, media that stops, and calls looked at later."""

from __future__ import annotations

import asyncio

import pytest

from tests.doors.conftest import House
from tests.doors.talk import CALL_FIELDS, answer, candidate, offer, pair, ring, talk

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("rising"),
]


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
    _, a, bob, b = await pair(house)
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

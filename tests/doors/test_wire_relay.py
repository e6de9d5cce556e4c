"""Candidates take the shortest way that is in order, and each way gives the same answer and tells the same."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import WSMsgType

from server.app import SOCKETS, TASKS, WIRED
from server.packets import FRAME_MAX
from server.relay import Relay
from tests.doors.conftest import House
from tests.doors.phones import Phone
from tests.doors.talk import answer, candidate, offer, pair, ring, talk

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("still_serves"),
]


@pytest.fixture
def shortest(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each frame with an event: whether it took the shortest way."""
    took: list[bool] = []
    forward = Relay.forward

    def watched(self: Relay, sender: Any, data: bytes) -> bool:
        done = forward(self, sender, data)
        if b"ICE_CANDIDATE" in data[:24]:
            took.append(done)
        return done

    monkeypatch.setattr(Relay, "forward", watched)
    return took


async def by_hand(phone: Phone, call_id: str, body: str, ack: str = "") -> None:
    """A candidate in the very text that a test wants."""
    await phone.frame(f'2{ack}["ICE_CANDIDATE",{{"callId":"{call_id}","candidate":{body}}}]')


async def test_a_candidate_goes_within_the_callback_it_came_in_and_makes_no_task(
    house: House, shortest: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob, offer=offer())
    made: list[str] = []
    spawn = house.app[TASKS].spawn
    monkeypatch.setattr(house.app[TASKS], "spawn", lambda work, name: made.append(name) or spawn(work, name))
    for n in range(3):
        assert await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(n)) == {}
        told = await b.happens("ICE_CANDIDATE")
        assert told == {"callId": call_id, "from": told["from"], "candidate": candidate(n)}
    assert shortest == [True] * 3
    assert "event" not in made


@pytest.mark.parametrize(
    "body",
    [
        "null",
        '""',
        '{"candidate":""}',
        json.dumps(candidate(1)),
        json.dumps({**candidate(1), "sdpMid": None, "sdpMLineIndex": 3}),
        json.dumps({**candidate(1), "extra": "left out", "more": {"deep": [1]}}),
        json.dumps({"candidate": "candidate:1 ünï 💥"}, ensure_ascii=False),
        json.dumps({"candidate": "candidate:1 ünï 💥"}),
        '{"candidate":"first","candidate":"second"}',
        '{"candidate":"tab\\tand\\nline"}',
        # refused
        "7",
        "[]",
        "true",
        '"text"',
        "{}",
        '{"candidate":7}',
        '{"candidate":"\\u0000"}',
        json.dumps({"candidate": "x" * 5000}),
        json.dumps({"candidate": "x", "sdpMid": 7}),
        json.dumps({"candidate": "x", "sdpMLineIndex": -1}),
        json.dumps({"candidate": "x", "sdpMLineIndex": True}),
        json.dumps({"candidate": "x", "usernameFragment": "y" * 300}),
        # no JSON, or more than the candidate
        "{",
        "NaN",
        '"x"}]["y"',
    ],
)
async def test_the_shortest_way_says_and_tells_what_the_longer_one_does(house: House, body: str) -> None:
    """The longer way is taken with the fields in the other order; both forms are what a client may send."""
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob, offer=offer())
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(50))
    await b.happens("ICE_CANDIDATE")
    acks: list[Any] = []
    for text in (
        f'["ICE_CANDIDATE",{{"callId":"{call_id}","candidate":{body}}}]',
        f'["ICE_CANDIDATE",{{"candidate":{body},"callId":"{call_id}"}}]',
    ):
        async with asyncio.timeout(10):
            await a.frame(f"2{text}")
            await a.ask("CALL_SYNC")
        said = [(told["event"], told["error"]["code"]) for told in a.heard("error")]
        acks.append(said[len(acks[0]) if acks else 0 :])
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(51))
    await b.happens("ICE_CANDIDATE", lambda told: told["candidate"] == candidate(51))
    told = [one["candidate"] for one in b.heard("ICE_CANDIDATE")][1:-1]
    assert acks[0] == acks[1]
    assert len(told) in (0, 2)
    assert not told or told[0] == told[1]
    assert bool(told) is not bool(acks[0])


@pytest.mark.parametrize("more", ['"callId":"another"', '"candidates":[]', '"candidate":null', '"x":1'])
async def test_what_says_more_than_a_candidate_takes_the_longer_way(
    house: House, shortest: list[bool], more: str
) -> None:
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob, offer=offer())
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(1))
    await by_hand(a, call_id, f"{json.dumps(candidate(2))},{more}")
    await a.settled()
    assert shortest == [True, False]


async def test_after_each_change_of_the_call_the_way_is_looked_for_anew(
    house: House, shortest: list[bool]
) -> None:
    _, a, bob, b = await pair(house)
    call_id = await ring(a, b, bob, offer=offer("aaaa"))
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(1, "aaaa"))  # held: nobody has answered
    assert shortest == [False]
    await b.ask("CALL_ACCEPT", callId=call_id, answer=answer("bbbb"))
    assert (await b.happens("ICE_CANDIDATE"))["candidate"] == candidate(1, "aaaa")
    await a.happens("CALL_ACCEPT")
    assert await b.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(7, "bbbb")) == {}
    assert (await a.happens("ICE_CANDIDATE"))["from"] == bob.id
    assert shortest.pop() is True
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(2, "aaaa"))
    await a.ask("SESSION_DESCRIPTION", callId=call_id, description=offer("cccc"))
    await b.happens("SESSION_DESCRIPTION")
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(3, "aaaa"))  # of the negotiation before
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(4, "cccc"))
    assert shortest[1:] == [True, False, True]
    told = [one["candidate"] for one in b.heard("ICE_CANDIDATE")]
    await b.happens("ICE_CANDIDATE", lambda one: one["candidate"] == candidate(4, "cccc"))
    assert candidate(3, "aaaa") not in told

    other = await bob.phone("other")
    await other.ask("CALL_RESUME", callId=call_id, takeover=True)
    no = await b.refused("ICE_CANDIDATE", callId=call_id, candidate=candidate(5))
    assert no["code"] == "CALL_ANSWERED_ELSEWHERE"
    await a.ask("CALL_ENDED", callId=call_id)
    no = await a.refused("ICE_CANDIDATE", callId=call_id, candidate=candidate(6, "cccc"))
    assert no["code"] == "CALL_ENDED"


async def test_a_relayed_candidate_counts_against_the_rate_like_any_other(house: House) -> None:
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob, offer=offer())
    events = [["ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(n)}] for n in range(260)]
    acks = await a.burst(events)
    refused = [ack["error"]["code"] for ack in acks if not ack["ok"]]
    assert refused
    assert set(refused) == {"RATE_LIMITED"}
    assert acks[0]["ok"]


async def test_a_device_that_is_being_caught_up_gets_candidates_after_what_goes_before(
    house: House, shortest: list[bool]
) -> None:
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob, offer=offer())
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(1))
    (connection,) = [c for c in house.app[SOCKETS]._by_user[bob.id].values() if c.ctx.device_id == "b"]
    connection.pending = []
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(2))
    assert shortest == [True, False]
    await house.app[SOCKETS]._telling.catch_up(connection)
    assert (await b.happens("ICE_CANDIDATE", lambda one: one["candidate"] == candidate(2)))[
        "callId"
    ] == call_id


async def test_nothing_overtakes_a_description_that_came_before_it(
    house: House, shortest: list[bool]
) -> None:
    """Also where they come in one read, and where the candidate does not say what it belongs to."""
    ada, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob, offer=offer())
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(1))
    (connection,) = house.app[SOCKETS]._by_user[ada.id].values()
    for event in (
        ["SESSION_DESCRIPTION", {"callId": call_id, "description": offer("cccc")}],
        ["ICE_CANDIDATE", {"callId": call_id, "candidate": candidate(2)}],
    ):
        assert connection.wire is not None
        connection.wire.frame(WSMsgType.TEXT, b"42" + json.dumps(event, separators=(",", ":")).encode())
    assert shortest == [True, False]
    await b.happens("ICE_CANDIDATE", lambda told: told["candidate"] == candidate(2))
    told = [name for name in b.names() if name in ("SESSION_DESCRIPTION", "ICE_CANDIDATE")]
    assert told == ["ICE_CANDIDATE", "SESSION_DESCRIPTION", "ICE_CANDIDATE"]


async def test_a_call_that_has_ended_has_no_way_left(house: House, shortest: list[bool]) -> None:
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob, offer=offer())
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(1))
    await b.ask("CALL_ENDED", callId=call_id)
    no = await a.refused("ICE_CANDIDATE", callId=call_id, candidate=candidate(2))
    assert no["code"] == "CALL_ENDED"
    assert shortest == [True, False]


async def test_a_candidate_waits_for_a_request_that_is_in_the_lane_of_its_call(
    house: House, shortest: list[bool]
) -> None:
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob, offer=offer())
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(1))
    async with house.app[WIRED].funnel.lanes.turn(call_id):
        await by_hand(a, call_id, json.dumps(candidate(2)))
        await a.settled()
        await b.settled()
        assert len(b.heard("ICE_CANDIDATE")) == 1
    await b.happens("ICE_CANDIDATE", lambda told: told["candidate"] == candidate(2))
    assert shortest == [True, False]


async def test_a_candidate_in_too_large_a_frame_is_refused_however_it_comes(house: House) -> None:
    _, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob, offer=offer())
    await a.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(1))
    await by_hand(a, call_id, json.dumps(candidate(2)) + " " * FRAME_MAX)
    assert (await a.happens("error"))["error"]["code"] == "PAYLOAD_TOO_LARGE"
    await b.settled()
    assert len(b.heard("ICE_CANDIDATE")) == 1


async def test_a_device_that_looks_for_its_way_again_and_again_has_one(house: House) -> None:
    ada, a, bob, b = await pair(house)
    call_id = await talk(a, b, bob, offer=offer())
    board = house.services.calls.board
    routes = [board.route(call_id, ada.id, "a") for _ in range(10)]
    assert [route.open for route in routes] == [False] * 9 + [True]
    assert len(board._lines[call_id].routes) == 1
    await a.ask("CALL_ENDED", callId=call_id)
    assert not routes[-1].open

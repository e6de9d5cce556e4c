"""Calls by REST (CONTRACT §3.3): every route, its other names, its shapes and its refusals."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.doors.conftest import House, Person, Reply
from tests.doors.talk import CALL_FIELDS, answer, candidate, offer

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def two(rest: House) -> tuple[Person, Person]:
    ada, bob = await asyncio.gather(rest.person("ada"), rest.person("bob"))
    return ada, bob


def call_of(reply: Reply, status: int = 200, more: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The call in an answer, which is one of exactly the documented shape."""
    assert reply.status == status, reply.body
    assert set(reply.body) == {"call"}
    assert set(reply.body["call"]) == CALL_FIELDS | more
    return dict(reply.body["call"])


async def ring(ada: Person, bob: Person, **fields: Any) -> str:
    made = await ada.post("/api/calls", {"to": bob.id, "type": "audio", **fields})
    return str(call_of(made, 201)["id"])


@pytest.mark.parametrize("path", ["/api/calls/initiate", "/api/calls", "/calls"])
@pytest.mark.parametrize("names", [("to", "type"), ("receiverId", "callType")])
async def test_a_call_is_requested(rest: House, path: str, names: tuple[str, str]) -> None:
    ada, bob = await two(rest)
    call = call_of(await ada.post(path, {names[0]: bob.id, names[1]: "video", "from": "someone else"}), 201)
    assert (call["state"], call["type"], call["caller"]["id"]) == ("ringing", "video", ada.id)
    busy = (await ada.post(path, {names[0]: (await rest.person("cid")).id, names[1]: "video"})).error(
        409, "CALL_IN_PROGRESS"
    )
    assert busy["details"] == {"callId": call["id"]}
    (await (await rest.person("dan")).post(path, {names[0]: bob.id, names[1]: "audio"})).error(
        409, "CALL_BUSY"
    )


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "VALIDATION_FAILED"),
        ({"to": 7, "type": "audio"}, 400, "VALIDATION_FAILED"),
        ({"to": "x"}, 400, "VALIDATION_FAILED"),
        ({"to": "x", "type": "fax"}, 400, "VALIDATION_FAILED"),
        ({"to": "x", "type": "audio", "reportsMedia": "perhaps"}, 400, "VALIDATION_FAILED"),
        ({"to": "x", "type": "audio", "offer": "v=0"}, 400, "VALIDATION_FAILED"),
        ({"to": "x", "type": "audio", "offer": {"type": "offer", "sdp": "hello"}}, 400, "SDP_INVALID"),
        ({"to": "x", "type": "audio", "offer": {"type": "answer", "sdp": "v=0"}}, 400, "SDP_INVALID"),
        (
            {"to": "x", "type": "audio", "offer": {"type": "offer", "sdp": "v=0" * 30_000}},
            413,
            "SDP_TOO_LARGE",
        ),
        ({"to": "x", "type": "audio", "offer": offer(media="audio video")}, 409, "CALL_UPGRADE_REQUIRED"),
        ({"to": "nobody", "type": "audio"}, 404, "USER_UNKNOWN"),
    ],
)
async def test_a_request_that_cannot_be_is_refused(rest: House, body: Any, status: int, code: str) -> None:
    ada = await rest.person("ada")
    no = (await ada.post("/api/calls/initiate", body)).error(status, code)
    if code == "VALIDATION_FAILED":
        assert all(isinstance(said, list) for said in no["details"].values())


@pytest.mark.parametrize("name", ["callId", "sessionId", "id"])
async def test_accepting_signalling_and_ending_by_body(rest: House, name: str) -> None:
    ada, bob = await two(rest)
    call_id = await ring(ada, bob, offer=offer())
    about = {name: call_id}
    (await ada.post("/api/calls/accept", about)).error(403, "CALL_WRONG_SIDE")
    accepted = call_of(await bob.post("/api/calls/accept", {**about, "answer": answer()}))
    assert accepted["state"] == "active"
    for signal in ({"candidate": candidate()}, {"candidates": [candidate(2), None]}, {"candidate": ""}):
        sent = await ada.post("/api/calls/signal", {**about, **signal})
        assert (sent.status, sent.body) == (204, "")
    assert (await ada.post("/api/calls/signal", {**about, "description": offer("a2")})).status == 204
    (await ada.post("/api/calls/signal", about)).error(400, "VALIDATION_FAILED")
    (await ada.post("/api/calls/signal", {**about, "candidate": 7})).error(400, "VALIDATION_FAILED")
    (await bob.post("/api/calls/reject", about)).error(409, "CALL_WRONG_STATE")
    ended = call_of(await bob.post("/api/calls/end", {**about, "reason": "bye"}))
    assert (ended["endReason"], ended["endedBy"]) == ("completed", bob.id)
    assert call_of(await ada.post("/api/calls/end", about)) == ended
    no = (await ada.post("/api/calls/signal", {**about, "candidate": candidate()})).error(409, "CALL_ENDED")
    assert no["details"]["endReason"] == "completed"


@pytest.mark.parametrize("base", ["/api/calls", "/calls"])
async def test_answering_and_ending_by_path(rest: House, base: str) -> None:
    ada, bob = await two(rest)
    call_id = await ring(ada, bob)
    taken = call_of(await bob.send("PATCH", f"{base}/{call_id}/answer", {"callId": "the path wins"}))
    assert (taken["id"], taken["state"]) == (call_id, "active")
    assert call_of(await bob.send("PATCH", f"{base}/{call_id}/answer")) == taken, "safe to repeat"
    assert call_of(await ada.send("PATCH", f"{base}/{call_id}/end"))["endReason"] == "completed"
    (await bob.send("PATCH", f"{base}/{call_id}/answer")).error(409, "CALL_ENDED")


@pytest.mark.parametrize("reason", ["declined", "busy"])
async def test_rejecting(rest: House, reason: str) -> None:
    ada, bob = await two(rest)
    call_id = await ring(ada, bob)
    ended = call_of(await bob.post("/api/calls/reject", {"callId": call_id, "reason": reason}))
    assert (ended["endReason"], ended["endedBy"]) == (reason, bob.id)
    assert call_of(await bob.post("/api/calls/reject", {"callId": call_id})) == ended
    (await bob.post("/api/calls/reject", {"callId": call_id, "reason": "no"})).error(400, "VALIDATION_FAILED")


@pytest.mark.parametrize("base", ["/api/calls", "/calls"])
async def test_one_call_with_its_intervals(rest: House, base: str) -> None:
    ada, bob = await two(rest)
    call_id = await ring(ada, bob)
    assert (await bob.post("/api/calls/accept", {"callId": call_id})).status == 200
    await rest.pass_(90)
    assert (await ada.post("/api/calls/end", {"callId": call_id})).status == 200
    for person in (ada, bob):
        call = call_of(await person.get(f"{base}/{call_id}"), more=frozenset({"intervals", "receipt"}))
        (interval,) = call["intervals"]
        assert (interval["start"], interval["end"]) == (call["activeAt"], call["endedAt"])
        assert (call["durationSeconds"], call["billedSeconds"], call["costMinor"]) == (90, 90, 0)


async def test_others_calls_do_not_exist(rest: House) -> None:
    ada, bob = await two(rest)
    eve = await rest.person("eve")
    call_id = await ring(ada, bob)
    for id_ in (call_id, "no-such-call"):
        (await eve.get(f"/api/calls/{id_}")).error(404, "CALL_UNKNOWN")
        (await eve.get(f"/api/calls/{id_}/signals")).error(404, "CALL_UNKNOWN")
        for path in ("accept", "reject", "end"):
            (await eve.post(f"/api/calls/{path}", {"callId": id_})).error(404, "CALL_UNKNOWN")
        for path in ("answer", "end"):
            (await eve.send("PATCH", f"/api/calls/{id_}/{path}")).error(404, "CALL_UNKNOWN")
        signal = {"callId": id_, "description": offer(), "candidate": candidate()}
        (await eve.post("/api/calls/signal", signal)).error(404, "CALL_UNKNOWN")
    assert (await eve.get("/api/calls/history")).body == {"items": [], "nextCursor": None}
    assert (
        call_of(await ada.get(f"/api/calls/{call_id}"), more=frozenset({"intervals", "receipt"}))["version"]
        == 1
    )


@pytest.mark.parametrize("path", ["/api/calls/history", "/api/call/history", "/api/calls", "/calls"])
async def test_the_history_newest_first_by_pages_and_filters(rest: House, path: str) -> None:
    ada, bob = await two(rest)
    cid = await rest.person("cid")
    made: list[tuple[str, Person, str]] = []
    for number in range(7):
        caller, callee = ((ada, bob), (bob, ada), (ada, cid))[number % 3]
        call_id = await ring(caller, callee)
        if number % 2:
            await callee.post("/api/calls/reject", {"callId": call_id})
        else:
            await caller.post("/api/calls/end", {"callId": call_id})
        if number % 3:
            await rest.pass_(1)  # and some in the same millisecond
        made.insert(0, (call_id, caller, "declined" if number % 2 else "cancelled"))

    found: list[str] = []
    cursor, pages = "", 0
    while True:
        page = (await ada.get(f"{path}?limit=3{cursor}")).body
        assert set(page) == {"items", "nextCursor"}
        assert all(set(one) == CALL_FIELDS for one in page["items"])
        found += [one["id"] for one in page["items"]]
        pages += 1
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert (found, pages) == ([call_id for call_id, _, _ in made], 3)

    async def ids(query: str) -> list[str]:
        return [one["id"] for one in (await ada.get(f"{path}?{query}")).body["items"]]

    assert await ids("direction=outgoing") == [i for i, caller, _ in made if caller is ada]
    assert await ids("direction=incoming") == [i for i, caller, _ in made if caller is bob]
    assert await ids("status=declined") == [i for i, _, reason in made if reason == "declined"]
    missed = [i for i, caller, reason in made if caller is bob and reason == "cancelled"]
    assert await ids("status=missed") == missed
    assert await ids(f"with={cid.id}&direction=outgoing&status=ended") == [
        one["id"] for one in (await cid.get(path)).body["items"]
    ]
    assert await ids("status=live") == []
    for wrong in (
        "direction=up",
        "status=odd",
        "limit=0",
        "limit=201",
        "limit=many",
        "cursor=x",
        "cursor=WyJhIiwiYiJd",
    ):
        (await ada.get(f"{path}?{wrong}")).error(400, "VALIDATION_FAILED")


async def test_signals_are_polled_after_a_number(rest: House) -> None:
    ada, bob = await two(rest)
    call_id = await ring(ada, bob, offer=offer())
    path = f"/api/calls/{call_id}/signals"
    (first,) = (await bob.get(path)).body["items"]
    assert set(first) == {"number", "kind", "from", "signal", "at"}
    assert (first["kind"], first["from"], first["signal"]) == ("description", ada.id, offer())
    assert (await bob.get(f"{path}?after={first['number']}")).body == {"items": [], "nextCursor": None}
    for wrong in ("-1", "x", "1.5"):
        (await bob.get(f"{path}?after={wrong}")).error(400, "VALIDATION_FAILED")


# --------------------------------------------------------------------------------------------------- doing it once


async def test_the_same_key_gets_the_first_answer_again(rest: House) -> None:
    ada, bob = await two(rest)
    body, key = {"to": bob.id, "type": "audio"}, {"Idempotency-Key": "one-tap"}
    first = await ada.post("/api/calls", body, headers=key)
    again = await ada.post("/api/calls/initiate", json.loads(json.dumps(body)), headers=key)
    assert (first.status, first.body) == (again.status, again.body)
    (await ada.post("/api/calls", {**body, "type": "video"}, headers=key)).error(422, "IDEMPOTENCY_MISMATCH")
    # Also when the call has ended long ago, for a day.
    await ada.post("/api/calls/end", {"callId": first.body["call"]["id"]})
    assert (await ada.post("/api/calls", body, headers=key)).body == first.body
    # Another person's key is another key, and so is the same in opId's place of another verb.
    other = await (await rest.person("cid")).post("/api/calls", body, headers=key)
    assert other.body["call"]["id"] != first.body["call"]["id"]


async def test_a_refusal_is_a_first_answer_too_unless_it_said_later(rest: House) -> None:
    ada, bob = await two(rest)
    cid = await rest.person("cid")
    busy = await ring(cid, bob)
    body, key = {"to": bob.id, "type": "audio"}, {"Idempotency-Key": "k"}
    first = (await ada.post("/api/calls", body, headers=key)).error(409, "CALL_BUSY")
    await cid.post("/api/calls/end", {"callId": busy})
    assert (await ada.post("/api/calls", body, headers=key)).error(409, "CALL_BUSY") == first
    assert (await ada.post("/api/calls", body, headers={"Idempotency-Key": "k2"})).status == 201


async def test_of_two_at_the_same_time_one_is_in_flight_or_gets_the_same_answer(rest: House) -> None:
    ada, bob = await two(rest)
    body, key = {"to": bob.id, "type": "audio"}, {"Idempotency-Key": "double tap"}
    replies = await asyncio.gather(*(ada.post("/api/calls", body, headers=key) for _ in range(5)))
    good = [reply for reply in replies if reply.status == 201]
    assert good
    assert len({reply.body["call"]["id"] for reply in good}) == 1
    for reply in replies:
        if reply.status != 201:
            assert reply.error(409, "IDEMPOTENCY_IN_FLIGHT")["retryAfterMs"] > 0
    assert len((await bob.get("/api/calls")).body["items"]) == 1


async def test_a_key_that_is_too_long_is_refused(rest: House) -> None:
    ada, bob = await two(rest)
    body = {"to": bob.id, "type": "audio"}
    long = await ada.post("/api/calls", body, headers={"Idempotency-Key": "x" * 129})
    long.error(400, "VALIDATION_FAILED")
    assert (await ada.post("/api/calls", body, headers={"Idempotency-Key": "x" * 128})).status == 201


# ---------------------------------------------------------------------------------------------------- beside calls


async def test_ice_servers_with_credentials_of_ones_own_for_an_hour(rest: House) -> None:
    ada = await rest.person("ada")
    got = await ada.get("/api/ice-servers")
    assert set(got.body) == {"iceServers", "ttlSeconds", "iceCandidatePoolSize"}
    stun, turn = got.body["iceServers"]
    assert stun == {"urls": ["stun:stun.example.org:3478"]}
    assert set(turn) == {"urls", "username", "credential"}
    expires, user = turn["username"].split(":")
    assert user == ada.id
    assert int(expires) - int(rest.clock.now().timestamp()) == got.body["ttlSeconds"] == 3600
    assert got.headers["Cache-Control"] == "no-store"


async def test_messages_of_two_people_newest_first(rest: House) -> None:
    ada, bob = await two(rest)
    path = f"/api/chat/history/{bob.id}"
    assert (await ada.get(path)).body == {"items": [], "nextCursor": None}
    (await ada.get(f"/api/chat/history/{ada.id}")).error(400, "SELF_NOT_ALLOWED")
    (await ada.get("/api/chat/history/nobody")).error(404, "USER_UNKNOWN")
    (await ada.get(f"{path}?cursor=x")).error(400, "VALIDATION_FAILED")

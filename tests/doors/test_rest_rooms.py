"""Rooms by REST: the routes of CONTRACT §3.3, for clients without a socket."""

from __future__ import annotations

import pytest

from tests.doors.conftest import House, Person
from tests.doors.talk import PRICE_FIELDS, USER_FIELDS

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

ROOM_FIELDS = {
    "id",
    "version",
    "name",
    "type",
    "access",
    "owner",
    "capacity",
    "participants",
    "price",
    "createdAt",
    "closedAt",
}
LOG_FIELDS = {
    "id",
    "roomId",
    "roomName",
    "type",
    "status",
    "owner",
    "participants",
    "participantCount",
    "startedAt",
    "endedAt",
    "durationSeconds",
}


async def room_of(owner: Person, **fields: object) -> str:
    made = await owner.post("/api/room/create", fields)
    assert made.status == 201, made.body
    return str(made.body["room"]["id"])


async def test_a_room_is_made_once_for_one_key(rest: House) -> None:
    ada = await rest.person("ada")
    body = {"name": "Monday", "type": "audio", "access": "invite", "capacity": 4, "ratePerMinuteMinor": 500}
    first = await ada.post("/api/room/create", body, headers={"Idempotency-Key": "k"})
    again = await ada.post("/api/room/create", body, headers={"Idempotency-Key": "k"})
    assert (first.status, first.body) == (201, again.body)
    room = first.body["room"]
    assert set(room) == ROOM_FIELDS
    assert set(room["owner"]) == USER_FIELDS
    assert set(room["price"]) == PRICE_FIELDS
    assert (room["name"], room["type"], room["access"], room["capacity"]) == ("Monday", "audio", "invite", 4)
    assert (room["price"]["ratePerMinuteMinor"], room["owner"]["id"], room["participants"]) == (
        500,
        ada.id,
        [],
    )
    assert [one["id"] for one in (await ada.get("/api/rooms")).body["items"]] == [room["id"]]
    other = await ada.post("/api/room/create", {**body, "name": "x"}, headers={"Idempotency-Key": "k"})
    other.error(422, "IDEMPOTENCY_MISMATCH")


@pytest.mark.parametrize(
    "body",
    [
        {"capacity": 1},
        {"capacity": 9},
        {"capacity": 101},
        {"capacity": "4"},
        {"type": "hologram"},
        {"access": "secret"},
        {"ratePerMinuteMinor": -1},
        {"name": "x" * 121},
        {"name": "\x00"},
    ],
)
async def test_a_room_that_cannot_be_is_refused_by_field(rest: House, body: dict[str, object]) -> None:
    no = (await (await rest.person()).post("/api/room/create", body)).error(400, "VALIDATION_FAILED")
    assert list(no["details"]) == list(body)


async def test_joining_by_rest_holds_a_place_until_a_device_comes(rest: House) -> None:
    ada, bob, eve = [await rest.person(name) for name in ("ada", "bob", "eve")]
    room_id = await room_of(ada, capacity=2)
    joined = await bob.post(f"/api/room/join/{room_id}")
    assert (joined.status, set(joined.body)) == (200, {"room"}), "no media server, so no token for one"
    assert [one["id"] for one in joined.body["room"]["participants"]] == [bob.id]
    assert (await ada.get(f"/api/room/{room_id}")).body["room"]["participants"] == []
    assert (await ada.post(f"/api/room/join/{room_id}")).status == 200
    full = (await eve.post(f"/api/room/join/{room_id}")).error(409, "ROOM_FULL")
    assert full["details"] == {"capacity": 2}
    assert (await bob.post(f"/api/room/{room_id}/leave")).status == 200
    assert (await bob.post(f"/api/room/{room_id}/leave")).status == 200
    assert (await eve.post(f"/api/room/join/{room_id}")).status == 200
    await rest.pass_(60)
    await rest.services.rooms.run_due()
    assert (await eve.get(f"/api/room/{room_id}")).body["room"]["participants"] == []


async def test_the_owner_invites_kicks_and_closes(rest: House) -> None:
    ada, bob = await rest.person("ada"), await rest.person("bob")
    room_id = await room_of(ada, access="invite")
    (await bob.post(f"/api/room/join/{room_id}")).error(403, "ROOM_INVITE_ONLY")
    assert (await ada.post(f"/api/room/{room_id}/invite", {"userIds": [bob.id]})).status == 200
    assert [one["id"] for one in (await bob.get("/api/rooms")).body["items"]] == [room_id]
    assert (await bob.post(f"/api/room/join/{room_id}")).status == 200
    assert (await ada.post(f"/api/room/{room_id}/kick", {"userId": bob.id})).status == 200
    (await bob.post(f"/api/room/join/{room_id}")).error(403, "ROOM_KICKED")
    assert (await bob.get("/api/rooms")).body == {"items": [], "nextCursor": None}
    closed = await ada.post(f"/api/room/{room_id}/close")
    assert closed.body["room"]["closedAt"] is not None
    (await ada.post(f"/api/room/join/{room_id}")).error(409, "ROOM_CLOSED")
    (await ada.post(f"/api/room/{room_id}/invite", {"userIds": [bob.id]})).error(409, "ROOM_CLOSED")
    assert (await ada.get(f"/api/room/{room_id}")).status == 200
    for body in ({"userIds": []}, {"userIds": "x"}, {"userIds": [f"u{n}" for n in range(51)]}, {}):
        (await ada.post(f"/api/room/{room_id}/invite", body)).error(400, "VALIDATION_FAILED")
    no = await ada.get("/api/room/01985c3e-0000-7000-8000-000000000000")
    no.error(404, "ROOM_UNKNOWN")


async def test_rooms_come_page_by_page(rest: House) -> None:
    ada = await rest.person("ada")
    rooms = [await room_of(ada) for _ in range(3)]
    first = (await ada.get("/api/rooms?limit=2")).body
    assert [one["id"] for one in first["items"]] == rooms[:0:-1]
    last = (await ada.get(f"/api/rooms?limit=2&cursor={first['nextCursor']}")).body
    assert ([one["id"] for one in last["items"]], last["nextCursor"]) == ([rooms[0]], None)
    (await ada.get("/api/rooms?cursor=x")).error(400, "VALIDATION_FAILED")


async def test_call_logs_of_a_room_by_rest(rest: House) -> None:
    ada, bob, kim = [await rest.person(name) for name in ("ada", "bob", "kim")]
    room_id = await room_of(ada, name="Monday")
    (await ada.post("/api/call-logs", {"roomId": room_id})).error(409, "ROOM_NOT_JOINED")
    for one in (ada, bob):
        await one.post(f"/api/room/join/{room_id}")
    begun = await bob.post("/api/call-logs", {"roomId": room_id})
    assert begun.status == 201
    assert set(begun.body["callLog"]) == LOG_FIELDS
    assert (begun.body["callLog"]["status"], begun.body["callLog"]["durationSeconds"]) == ("active", 0)
    assert (await ada.post("/api/call-logs", {"roomId": room_id})).body == begun.body
    stats = (await bob.get("/api/call-logs/stats")).body
    assert stats == {
        "totalCalls": 1,
        "completedCalls": 0,
        "activeCalls": 1,
        "totalDurationSeconds": 0,
        "averageDurationSeconds": 0,
    }
    (await kim.send("PUT", f"/api/call-logs/{room_id}/end")).error(403, "ROOM_NOT_OWNER")
    await rest.pass_(30)
    ended = (await ada.send("PUT", f"/api/call-logs/{room_id}/end")).body["callLog"]
    assert (ended["status"], ended["durationSeconds"]) == ("completed", 30)
    assert (await ada.send("PUT", f"/api/call-logs/{room_id}/end")).body["callLog"] == ended
    page = (await bob.get("/api/call-logs")).body
    assert ([one["id"] for one in page["items"]], page["nextCursor"]) == ([ended["id"]], None)
    stats = (await bob.get("/api/call-logs/stats")).body
    assert (stats["completedCalls"], stats["averageDurationSeconds"]) == (1, 30)
    assert (await kim.get("/api/call-logs")).body["items"] == []


async def test_messages_of_a_room_are_read_in_both_directions(rest: House) -> None:
    ada = await rest.person("ada")
    room_id = await room_of(ada)
    path = f"/api/room/{room_id}/messages"
    assert (await ada.get(path)).body == {"items": [], "nextCursor": None}
    for query in ("cursor=x", "order=up", "limit=0", "after=-1"):
        (await ada.get(f"{path}?{query}")).error(400, "VALIDATION_FAILED")


async def test_without_a_sign_in_there_are_no_rooms(rest: House) -> None:
    for method, path in (
        ("POST", "/api/room/create"),
        ("POST", "/api/room/join/x"),
        ("GET", "/api/rooms"),
        ("GET", "/api/call-logs"),
    ):
        (await rest.send(method, path)).error(401, "TOKEN_MISSING")

"""Rooms, told by phones with the official client."""

from __future__ import annotations

import pytest

from tests.doors.conftest import House
from tests.doors.talk import USER_FIELDS, answer, candidate, offer

pytestmark = [pytest.mark.asyncio(loop_scope="module")]


async def test_three_meet_in_a_room_and_the_one_who_comes_makes_the_offers(house: House) -> None:
    ada, bob, eve = [await house.person(name) for name in ("ada", "bob", "eve")]
    a, b, e = await ada.phone("a"), await bob.phone("b"), await eve.phone("e")
    made = await ada.post("/api/room/create", {"name": "Monday", "type": "video"})
    assert made.status == 201
    room = made.body["room"]
    assert (room["owner"]["id"], room["capacity"], room["participants"]) == (ada.id, 8, [])

    joined = await a.ask("join-room", roomId=room["id"])
    assert [one["id"] for one in joined["participants"]] == [ada.id]
    assert (await a.happens("existing-users")) == {"roomId": room["id"], "users": []}

    joined = await b.ask("join-room", roomId=room["id"])
    assert [one["id"] for one in joined["participants"]] == [ada.id, bob.id]
    there = await b.happens("existing-users")
    assert [one["id"] for one in there["users"]] == [ada.id]
    assert set(there["users"][0]) == USER_FIELDS
    came = await a.happens("user-connected")
    assert (came["roomId"], came["userId"], came["user"]["username"]) == (room["id"], bob.id, bob.username)
    await e.ask("join-room", roomId=room["id"])
    assert [one["id"] for one in (await e.happens("existing-users"))["users"]] == [ada.id, bob.id]

    await e.ask("offer", roomId=room["id"], targetUserId=bob.id, offer=offer())
    heard = await b.happens("offer")
    assert heard == {"roomId": room["id"], "senderId": eve.id, "offer": offer()}
    await b.ask("answer", roomId=room["id"], targetUserId=eve.id, answer=answer())
    assert (await e.happens("answer"))["senderId"] == bob.id
    await e.ask("ice-candidate", roomId=room["id"], targetUserId=bob.id, candidate=candidate(1))
    assert (await b.happens("ice-candidate"))["candidate"] == candidate(1)
    await a.settled()
    assert not {"offer", "answer", "ice-candidate"} & set(a.names()), "only to the one that is named"

    said = await a.ask("chat-message", roomId=room["id"], message="hello")
    for phone in (b, e):
        told = await phone.happens("chat-message")
        assert (told["senderId"], told["username"], told["message"]) == (ada.id, ada.username, "hello")
        assert (told["timestamp"], told["seq"], told["id"]) == (said["timestamp"], 1, said["id"])

    await e.ask("leave-room", roomId=room["id"])
    for phone in (a, b):
        assert (await phone.happens("user-disconnected"))["userId"] == eve.id

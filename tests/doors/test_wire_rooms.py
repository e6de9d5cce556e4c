"""Rooms, told by phones with the official client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.doors.conftest import PASSWORD, House, Person, open_house
from tests.doors.phones import Exchange, Phone
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


async def test_e61_rooms_and_logs_say_nothing_of_where_somebody_is_to_whom_a_block_parts_from_them(
    house: House,
) -> None:
    room_id, (ada, bob, eve), (a, b, e) = await meeting(house, "ada", "bob", "eve")
    kim = await house.person("kim")
    await ada.post(f"/api/room/{room_id}/invite", {"userIds": [kim.id]})
    assert (await bob.send("PUT", f"/api/users/{eve.id}/block")).status == 204
    assert (await b.happens("user-disconnected"))["user"]["presence"] == "offline"
    assert (await e.happens("user-disconnected"))["user"]["presence"] == "offline"
    assert (await bob.send("PUT", f"/api/users/{kim.id}/block")).status == 204

    def where(people: list[dict[str, Any]]) -> dict[str, str]:
        return {one["id"]: one["presence"] for one in people}

    for viewer, other in ((eve, bob), (bob, eve)):
        (log,) = (await viewer.get("/api/call-logs")).body["items"]
        assert where(log["participants"])[other.id] == "offline"
        assert where(log["participants"])[ada.id] == "in_call"
    seen = (await kim.get(f"/api/room/{room_id}")).body["room"]
    assert set(where(seen["participants"])) == {ada.id, eve.id}
    await (await kim.phone()).ask("join-room", roomId=room_id)
    assert (await ada.send("PUT", f"/api/users/{eve.id}/block")).status == 204
    left = await a.happens("user-disconnected")
    assert (left["userId"], left["user"]["presence"]) == (eve.id, "offline")
    (listed,) = (await eve.get("/api/rooms")).body["items"]
    assert (listed["owner"]["presence"], listed["participants"]) == ("offline", [])


async def meeting(house: House, *names: str, **fields: Any) -> tuple[str, list[Person], list[Phone]]:
    """A room of the first in which all are with a phone."""
    people = [await house.person(name) for name in names]
    phones = [await one.phone(f"{one.username}-phone") for one in people]
    made = await people[0].post("/api/room/create", fields)
    room_id = made.body["room"]["id"]
    if len(people) > 1:
        await people[0].post(f"/api/room/{room_id}/invite", {"userIds": [one.id for one in people[1:]]})
    for phone in phones:
        await phone.ask("join-room", roomId=room_id)
    return room_id, people, phones


async def test_the_form_with_separate_arguments_is_the_same_event(house: House) -> None:
    """As browser clients of such servers send it."""
    ada, bob = await house.person("ada"), await house.person("bob")
    a, b = await ada.phone("a"), await bob.phone("b")
    room_id = (await ada.post("/api/room/create")).body["room"]["id"]
    assert (await a.ack("join-room", room_id))["data"]["room"]["id"] == room_id
    assert (await b.ack("join-room", room_id))["ok"]
    assert (await a.happens("user-connected"))["userId"] == bob.id
    sent: list[tuple[Any, ...]] = [
        ("offer", room_id, offer()),
        ("answer", room_id, answer(), bob.id),
        ("ice-candidate", room_id, candidate(1)),
        ("ice-candidate", room_id, None),
        ("chat-message", room_id, "hello"),
    ]
    for event, *args in sent:
        ack = await a.ack(event, *args)
        assert ack["ok"], (event, ack)
    assert (await b.happens("offer"))["offer"] == offer()
    assert (await b.happens("answer"))["answer"] == answer()
    assert [(await b.happens("ice-candidate"))["candidate"] for _ in range(2)] == [candidate(1), None]
    assert (await b.happens("chat-message"))["message"] == "hello"
    assert (await b.ack("leave-room", room_id))["ok"]
    assert (await a.happens("user-disconnected"))["userId"] == bob.id
    for wrong in ([], [7], [None], [room_id, "x", "y", "z"], [[room_id]]):
        ack = await a.ack("join-room", *wrong)
        assert (ack["ok"], ack["error"]["code"]) == (False, "VALIDATION_FAILED")


async def test_an_event_without_an_ack_is_refused_by_error(house: House) -> None:
    phone = await (await house.person()).phone("p")
    await phone.tell("offer", "no such room", offer())
    told = await phone.happens("error")
    assert (told["event"], told["error"]["code"]) == ("offer", "ROOM_UNKNOWN")


async def test_without_a_target_everybody_else_in_the_room_hears_it(house: House) -> None:
    room_id, (ada, *_), (a, b, e) = await meeting(house, "ada", "bob", "eve")
    outside = await ada.phone("another device, not in the room")
    await a.ask("offer", roomId=room_id, offer=offer("x"))
    for phone in (b, e):
        assert (await phone.happens("offer"))["senderId"] == ada.id
    for phone in (a, outside):
        await phone.settled()
        assert phone.heard("offer") == []


async def test_a_stranger_gets_refusals_and_nobody_in_the_room_hears_of_them(house: House) -> None:
    room_id, (_, bob), (a, b) = await meeting(house, "ada", "bob", access="invite")
    stranger = await house.person("kim")
    k = await stranger.phone("k")
    # Who sent it is decided by the token, whatever the payload says.
    forged = {"roomId": room_id, "targetUserId": bob.id, "senderId": bob.id, "userId": bob.id}
    assert (await k.refused("join-room", roomId=room_id))["code"] == "ROOM_INVITE_ONLY"
    assert (await k.refused("leave-room", roomId=room_id))["code"] == "ROOM_INVITE_ONLY"
    for event, body in (
        ("offer", {"offer": offer()}),
        ("answer", {"answer": answer()}),
        ("ice-candidate", {"candidate": candidate(1)}),
        ("chat-message", {"message": "let me in"}),
    ):
        assert (await k.refused(event, {**forged, **body}))["code"] == "ROOM_NOT_JOINED", event
        no = await k.refused(event, {**forged, **body, "roomId": "01985c3e-0000-7000-8000-000000000000"})
        assert no["code"] == "ROOM_UNKNOWN"
    for method, path, body in (
        ("GET", f"/api/room/{room_id}", None),
        ("POST", f"/api/room/join/{room_id}", None),
        ("POST", f"/api/room/{room_id}/leave", None),
        ("POST", "/api/call-logs", {"roomId": room_id}),
    ):
        (await stranger.send(method, path, body)).error(403, "ROOM_INVITE_ONLY")
    (await stranger.get(f"/api/room/{room_id}/messages")).error(409, "ROOM_NOT_JOINED")
    for path, body in (("invite", {"userIds": [stranger.id]}), ("kick", {"userId": bob.id}), ("close", {})):
        (await stranger.post(f"/api/room/{room_id}/{path}", body)).error(403, "ROOM_NOT_OWNER")
    (await stranger.send("PUT", f"/api/call-logs/{room_id}/end")).error(403, "ROOM_NOT_OWNER")
    for phone in (a, b):
        await phone.settled()
        assert not {"offer", "answer", "ice-candidate", "chat-message", "user-disconnected"} & set(
            phone.names()
        )


async def test_a_member_reaches_only_who_is_in_the_room(house: House) -> None:
    room_id, (_, bob), (a, b) = await meeting(house, "ada", "bob")
    kim = await house.person("kim")
    k = await kim.phone("k")
    for target in (kim.id, "nobody"):
        no = await a.refused("offer", roomId=room_id, targetUserId=target, offer=offer())
        assert (no["code"], no["details"]) == ("TARGET_UNKNOWN", {"targetUserId": target})
    await b.ask("leave-room", roomId=room_id)
    no = await a.refused("offer", roomId=room_id, targetUserId=bob.id, offer=offer())
    assert no["code"] == "TARGET_UNKNOWN"
    assert (await b.refused("chat-message", roomId=room_id, message="?"))["code"] == "ROOM_NOT_JOINED"
    await k.settled()
    assert k.heard("offer") == []


@pytest.mark.parametrize(
    ("event", "body", "code"),
    [
        ("offer", {"offer": answer()}, "SDP_INVALID"),
        ("answer", {"answer": offer()}, "SDP_INVALID"),
        ("offer", {"offer": "v=0"}, "VALIDATION_FAILED"),
        ("offer", {}, "VALIDATION_FAILED"),
        ("offer", {"offer": {"type": "offer", "sdp": "v=0\r\n" + "a" * 65_536}}, "SDP_TOO_LARGE"),
        ("offer", {"offer": offer(media="audio video")}, "SDP_INVALID"),
        ("ice-candidate", {"candidate": 7}, "VALIDATION_FAILED"),
        ("ice-candidate", {"candidate": {"candidate": "c" * 4097}}, "VALIDATION_FAILED"),
        ("chat-message", {"message": ""}, "VALIDATION_FAILED"),
        ("chat-message", {"message": "é" * 4097}, "PAYLOAD_TOO_LARGE"),
    ],
)
async def test_what_is_wrong_or_too_large_goes_to_nobody(
    house: House, event: str, body: dict[str, Any], code: str
) -> None:
    room_id, _, (a, b) = await meeting(house, "ada", "bob", type="audio")
    assert (await a.refused(event, {"roomId": room_id, **body}))["code"] == code
    await b.settled()
    assert b.heard(event) == []


async def test_signals_keep_their_order_and_have_their_own_rate(house: House) -> None:
    room_id, (_, bob), (a, b) = await meeting(house, "ada", "bob")
    events = [("offer", {"roomId": room_id, "targetUserId": bob.id, "offer": offer()})]
    many = [{"roomId": room_id, "targetUserId": bob.id, "candidate": candidate(n)} for n in range(150)]
    acks = await a.burst([*events, *(("ice-candidate", one) for one in many)])
    assert all(ack["ok"] for ack in acks)
    for n in range(150):
        assert (await b.happens("ice-candidate"))["candidate"] == candidate(n)


async def test_a_phone_back_within_the_grace_was_never_gone(house: House) -> None:
    room_id, (_, bob), (a, b) = await meeting(house, "ada", "bob")
    await b.kill()
    await house.pass_(10)
    await house.services.rooms.run_due()
    again = await bob.phone(f"{bob.username}-phone")
    now = await again.happens("room-updated")
    assert (now["roomId"], len(now["room"]["participants"])) == (room_id, 2)
    await house.pass_(10)
    await house.services.rooms.run_due()
    await a.ask("offer", roomId=room_id, targetUserId=bob.id, offer=offer())
    await again.happens("offer")
    assert a.heard("user-disconnected") == []


async def test_a_phone_that_stays_away_is_gone_after_the_grace(house: House) -> None:
    room_id, (_, bob), (a, b) = await meeting(house, "ada", "bob")
    board = house.services.rooms.board
    await b.close()
    async with asyncio.timeout(10):  # the server hears of it in its own time
        while not any(seat.lost_at for one in board.room(room_id).participants for seat in one.seats):
            await a.settled()
    await house.pass_(14)
    await house.services.rooms.run_due()
    await a.settled()
    assert a.heard("user-disconnected") == []
    await house.pass_(1)
    await house.services.rooms.run_due()
    assert (await a.happens("user-disconnected"))["userId"] == bob.id


async def test_who_is_banned_or_blocked_is_out_of_the_room_within_a_second(house: House) -> None:
    room_id, (ada, bob, eve), (a, _, e) = await meeting(house, "ada", "bob", "eve")
    assert (await ada.send("PUT", f"/api/users/{eve.id}/block")).status == 204
    assert (await e.happens("room-kicked")) | {"seq": 0, "logSeq": 0} == {
        "roomId": room_id,
        "reason": "policy",
        "seq": 0,
        "logSeq": 0,
    }
    assert (await a.happens("user-disconnected"))["userId"] == eve.id
    (await eve.get(f"/api/room/{room_id}")).error(404, "ROOM_UNKNOWN")
    assert (await bob.send("DELETE", "/api/user/account", {"password": PASSWORD})).status == 204
    assert (await a.happens("user-disconnected"))["userId"] == bob.id


async def test_what_was_said_is_read_back_in_both_directions(house: House) -> None:
    room_id, (ada, bob), (a, _) = await meeting(house, "ada", "bob")
    for n in range(1, 6):
        await a.ask("chat-message", roomId=room_id, message=str(n), opId=f"op-{n}")
    path = f"/api/room/{room_id}/messages?limit=2"
    for query, expected in (
        ("", [["5", "4"], ["3", "2"], ["1"]]),
        ("&order=asc", [["1", "2"], ["3", "4"], ["5"]]),
        ("&after=3", [["4", "5"]]),
    ):
        pages, where = [], query
        while True:
            page = (await bob.get(path + where)).body
            pages.append([one["message"] for one in page["items"]])
            assert not any("opId" in one for one in page["items"]), "it is the sender's own"
            if page["nextCursor"] is None:
                break
            where = f"&cursor={page['nextCursor']}"
        assert pages == expected
    mine = (await ada.get(path)).body["items"]
    assert [one["opId"] for one in mine] == ["op-5", "op-4"]


async def test_a_room_outlives_its_server_and_its_people_are_still_in_it(
    mongo_uri: str, exchange: Exchange
) -> None:
    async with open_house(mongo_uri, exchange) as first:
        room_id, (ada, bob), (a, b) = await meeting(first, "ada", "bob", name="Monday")
        await a.ask("chat-message", roomId=room_id, message="before", opId="1")
        await b.happens("chat-message")
        log = (await ada.get("/api/call-logs")).body["items"][0]
        assert log["status"] == "active"
        database = first.db.db.name
        async with open_house(mongo_uri, exchange, clock=first.clock, database=database) as second:
            ada.house = bob.house = second
            for phone in (a, b):
                await phone.close()
            again = [await one.phone(f"{one.username}-phone") for one in (ada, bob)]
            for phone in again:
                assert len((await phone.happens("room-updated"))["room"]["participants"]) == 2
            await again[0].ask("offer", roomId=room_id, targetUserId=bob.id, offer=offer())
            await again[1].happens("offer")
            await again[0].ask("chat-message", roomId=room_id, message="before", opId="1")
            await again[0].ask("chat-message", roomId=room_id, message="after")
            items = (await bob.get(f"/api/room/{room_id}/messages")).body["items"]
            assert [(one["seq"], one["message"]) for one in items] == [(2, "after"), (1, "before")]
            assert (await ada.get("/api/call-logs")).body["items"][0]["id"] == log["id"]


async def test_people_at_two_servers_meet_in_one_room(mongo_uri: str, exchange: Exchange) -> None:
    async with open_house(mongo_uri, exchange) as first:
        ada, bob = await first.person("ada"), await first.person("bob")
        database = first.db.db.name
        async with open_house(mongo_uri, exchange, clock=first.clock, database=database) as second:
            for one in (first, second, first):  # each beats, and then knows of the other
                await one.services.calls.run_leases(8)
            a = await ada.phone("a")
            bob.house = second
            b = await bob.phone("b")
            room_id = (await ada.post("/api/room/create")).body["room"]["id"]
            await a.ask("join-room", roomId=room_id)
            await b.ask("join-room", roomId=room_id)
            assert (await a.happens("user-connected"))["userId"] == bob.id
            await b.ask("offer", roomId=room_id, targetUserId=ada.id, offer=offer())
            await b.ask("ice-candidate", roomId=room_id, targetUserId=ada.id, candidate=candidate(1))
            await b.ask("ice-candidate", roomId=room_id, candidate=candidate(2))
            assert (await a.happens("offer"))["senderId"] == bob.id
            assert [(await a.happens("ice-candidate"))["candidate"] for _ in range(2)] == [
                candidate(1),
                candidate(2),
            ]
            await a.ask("answer", roomId=room_id, targetUserId=bob.id, answer=answer())
            await a.ask("chat-message", roomId=room_id, message="hello")
            await b.happens("answer")
            await b.happens("chat-message")
            await b.ask("leave-room", roomId=room_id)
            assert (await a.happens("user-disconnected"))["userId"] == bob.id


async def test_what_was_signalled_to_a_phone_that_was_away_is_told_only_while_it_is_in_the_room(
    mongo_uri: str, exchange: Exchange
) -> None:
    async with open_house(mongo_uri, exchange) as first:
        ada, bob = await first.person("ada"), await first.person("bob")
        database = first.db.db.name
        async with open_house(mongo_uri, exchange, clock=first.clock, database=database) as second:
            for one in (first, second, first):
                await one.services.calls.run_leases(8)
            a = await ada.phone("a")
            bob.house = second
            b = await bob.phone("b")
            room_id = (await ada.post("/api/room/create")).body["room"]["id"]
            await a.ask("join-room", roomId=room_id)
            await b.ask("join-room", roomId=room_id)
            came = await a.happens("user-connected")
            await a.kill()
            await b.ask("offer", roomId=room_id, targetUserId=ada.id, offer=offer("missed"))
            back = await ada.phone("a", since=came["logSeq"])
            assert (await back.happens("offer"))["offer"] == offer("missed")
            await back.ask("leave-room", roomId=room_id)
            await back.kill()
            late = await ada.phone("a", since=came["logSeq"] - 1)
            await late.settled()
            assert (late.heard("SYNC")[0]["missed"], late.heard("offer")) == (0, [])

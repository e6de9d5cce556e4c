"""Rooms with a real database: who gets in, who hears of it, what is said, and what stays in the logs."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from pymongo.errors import ConnectionFailure

from models.db import Database, HeldUp
from models.errors import Refusal
from models.rooms.room import Access, Closed, Gone
from models.rooms.service import JOINED_MAX, OWNED_MAX
from tests.fakes import CountingIds, VirtualClock
from tests.services.roomkit import Phone, Process, RoomHouse


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds) -> RoomHouse:
    built = RoomHouse(db, clock, ids)
    await built.people("ada", "bob", "eve", "kim")
    return built


@pytest.fixture
async def p(house: RoomHouse) -> Process:
    return await house.process("p1")


def phones(house: RoomHouse, process: Process, *user_ids: str) -> list[Phone]:
    return [house.phone(process, user_id) for user_id in user_ids]


async def refused(work: Any) -> Refusal:
    with pytest.raises(Refusal) as no:
        await work
    return no.value


async def test_who_comes_hears_who_is_there_and_the_others_hear_who_came(
    house: RoomHouse, p: Process
) -> None:
    a, b, e = phones(house, p, "ada", "bob", "eve")
    room_id = await house.room(p)
    for phone in (a, b, e):
        await phone.join(room_id)
    assert [[u["id"] for u in one.heard("existing-users")[0]["users"]] for one in (a, b, e)] == [
        [],
        ["ada"],
        ["ada", "bob"],
    ]
    assert [one.comings_and_goings() for one in (a, b, e)] == [["+bob", "+eve"], ["+eve"], []]
    told = a.heard("user-connected")[0]
    assert (told["roomId"], told["user"]["username"], told["room"]["version"]) == (room_id, "bob", 3)
    assert [one["id"] for one in told["room"]["participants"]] == ["ada", "bob"]
    assert told["user"]["presence"] == "in_call"
    await b.leave(room_id)
    assert [one.comings_and_goings() for one in (a, e)] == [["+bob", "+eve", "-bob"], ["-bob"]]
    assert p.presence.state_of("bob") == "online"
    await house.audit()


async def test_joining_and_leaving_again_tells_nobody(house: RoomHouse, p: Process) -> None:
    a, b = phones(house, p, "ada", "bob")
    room_id = await house.room(p)
    for _ in range(2):
        await a.join(room_id)
        await b.join(room_id)
    assert len(b.heard("existing-users")) == 2, "each time it is said who is there"
    await b.leave(room_id)
    await b.leave(room_id)
    assert a.comings_and_goings() == ["+bob", "-bob"]


async def test_somebody_on_two_devices_is_one_participant_until_the_last_has_left(
    house: RoomHouse, p: Process
) -> None:
    a, b = phones(house, p, "ada", "bob")
    tablet = house.phone(p, "bob", "tablet")
    room_id = await house.room(p)
    for phone in (a, b, tablet):
        seen = await phone.join(room_id)
    assert [one.user_id for one in seen.room.present] == ["ada", "bob"]
    assert await a.to(room_id, "bob") == ["bob"]
    (target,) = await p.rooms.route(a.device, room_id, "bob")
    assert target.devices == ("bob-phone", "tablet"), "both hear what is said to bob"
    await a.say(room_id, "hello")
    assert len(b.heard("chat-message")) == len(tablet.heard("chat-message")) == 1
    await b.leave(room_id)
    assert a.comings_and_goings() == ["+bob"]
    await tablet.leave(room_id)
    assert a.comings_and_goings() == ["+bob", "-bob"]


async def test_a_full_room_is_refused_with_its_capacity(house: RoomHouse, p: Process) -> None:
    room_id = await house.room(p, capacity=2)
    a, b, e = phones(house, p, "ada", "bob", "eve")
    await a.join(room_id)
    await b.join(room_id)
    no = await refused(e.join(room_id))
    assert (no.code, no.details) == ("ROOM_FULL", {"capacity": 2})
    await b.leave(room_id)
    await e.join(room_id)


async def test_more_than_a_mesh_carries_needs_a_media_server(house: RoomHouse) -> None:
    mesh = await house.process("mesh")
    no = await refused(mesh.rooms.create("ada", capacity=9))
    assert (no.code, list(no.details)) == ("VALIDATION_FAILED", ["capacity"])
    house.capacity_max = 100
    server = await house.process("with a media server")
    assert (await server.rooms.create("ada", capacity=100)).room.capacity == 100
    assert (await server.rooms.create("ada")).room.capacity == 8


async def test_the_same_op_id_makes_one_room(house: RoomHouse, p: Process) -> None:
    one = await p.rooms.create("ada", op_id="tap")
    assert (await p.rooms.create("ada", op_id="tap")).room == one.room
    assert (await p.rooms.create("bob", op_id="tap")).room.id != one.room.id


async def test_nobody_owns_or_is_in_more_rooms_than_can_be_looked_after(house: RoomHouse, p: Process) -> None:
    rooms = [await house.room(p) for _ in range(OWNED_MAX)]
    assert (await refused(p.rooms.create("ada"))).code == "TOO_MANY_ROOMS"
    await p.rooms.close("ada", rooms[0])
    rooms[0] = await house.room(p)
    b = house.phone(p, "bob")
    for room_id in rooms[:JOINED_MAX]:
        await b.join(room_id)
    assert (await refused(b.join(rooms[JOINED_MAX]))).code == "TOO_MANY_ROOMS"
    await b.join(rooms[0])


async def test_an_invitation_is_kept_pushed_and_opens_the_door(house: RoomHouse, p: Process) -> None:
    b, e = phones(house, p, "bob", "eve")
    room_id = await house.invite_only(p, name="Monday")
    assert (await refused(b.join(room_id))).code == "ROOM_INVITE_ONLY"
    assert (await refused(p.rooms.get("bob", room_id))).code == "ROOM_INVITE_ONLY"
    await p.rooms.invite("ada", room_id, ["bob", "eve"])
    await p.rooms.invite("ada", room_id, ["bob"])
    (told,) = b.heard("room-invited")
    assert (told["roomId"], told["room"]["name"], told["by"]["id"]) == (room_id, "Monday", "ada")
    assert house.invitations.sent == [(room_id, "bob"), (room_id, "eve")]
    assert (await p.mailbox.missed("bob", "another", 0)).letters[0].event == "room-invited"
    await b.join(room_id)
    assert [seen.room.id for seen in (await p.rooms.mine("eve", before=None, limit=9))[0]] == [room_id]
    assert len(e.heard("room-invited")) == 1


@pytest.mark.parametrize(
    ("user_ids", "code"),
    [
        (["bob", "nobody"], "USER_UNKNOWN"),
        (["ada"], "SELF_NOT_ALLOWED"),
        (["bob", "blocked"], "USER_BLOCKED"),
        (["blocking"], "USER_UNAVAILABLE"),
        (["banned"], "USER_UNAVAILABLE"),
        (["deleted"], "USER_UNKNOWN"),
    ],
)
async def test_all_are_invited_or_none(house: RoomHouse, p: Process, user_ids: list[str], code: str) -> None:
    await house.people("blocked", "blocking", "banned", "deleted")
    await house.set_status("banned")
    await house.set_status("deleted")
    await p.users.block("ada", "blocked")
    await p.users.block("blocking", "ada")
    room_id = await house.room(p)
    no = await refused(p.rooms.invite("ada", room_id, user_ids))
    assert no.code == code
    assert no.details.get("userId") == (None if code == "SELF_NOT_ALLOWED" else user_ids[-1])
    assert (await house.truth(room_id)).invited_ids == ()
    assert house.invitations.sent == []


async def test_who_is_kicked_hears_it_and_sees_the_room_no_more(house: RoomHouse, p: Process) -> None:
    a, b = phones(house, p, "ada", "bob")
    room_id = await house.room(p)
    await a.join(room_id)
    await b.join(room_id)
    await b.say(room_id, "hello")
    await p.rooms.kick("ada", room_id, "bob")
    await p.rooms.kick("ada", room_id, "bob")
    assert b.heard("room-kicked") == [{"roomId": room_id, "reason": "kicked"}]
    assert a.comings_and_goings() == ["+bob", "-bob"]
    for work in (
        b.join(room_id),
        p.rooms.get("bob", room_id),
        p.talk.page("bob", room_id, before=None, after=None, limit=9),
    ):
        assert (await refused(work)).code == "ROOM_KICKED"
    assert (await refused(b.say(room_id, "still here"))).code == "ROOM_NOT_JOINED"
    assert (await refused(b.to(room_id, "ada"))).code == "ROOM_NOT_JOINED"
    assert (await p.rooms.mine("bob", before=None, limit=9))[0] == []
    await p.rooms.invite("ada", room_id, ["bob"])
    await b.join(room_id)
    assert len((await p.rooms.mine("bob", before=None, limit=9))[0]) == 1


async def test_a_kick_is_for_somebody_who_has_to_do_with_the_room(house: RoomHouse, p: Process) -> None:
    room_id = await house.room(p)
    assert (await refused(p.rooms.kick("ada", room_id, "bob"))).code == "TARGET_UNKNOWN"
    await p.rooms.invite("ada", room_id, ["bob"])
    await p.rooms.kick("ada", room_id, "bob")
    b = house.phone(p, "bob")
    assert (await refused(b.join(room_id))).code == "ROOM_KICKED"
    assert b.heard("room-kicked") == [], "nobody took them out of anything"


async def test_closing_ends_it_for_all(house: RoomHouse, p: Process) -> None:
    a, b, e = phones(house, p, "ada", "bob", "eve")
    room_id = await house.room(p)
    await b.join(room_id)
    await e.join(room_id)
    assert (await refused(p.rooms.close("bob", room_id))).code == "ROOM_NOT_OWNER"
    for _ in range(2):
        await p.rooms.close("ada", room_id)
    for phone in (a, b, e):
        assert phone.heard("room-closed") == [{"roomId": room_id, "reason": "owner"}]
    assert b.comings_and_goings() == ["+eve"], "the end of all is no going of each"
    for work in (
        b.join(room_id),
        b.say(room_id, "?"),
        b.to(room_id),
        p.rooms.invite("ada", room_id, ["kim"]),
    ):
        assert (await refused(work)).code == "ROOM_CLOSED"
    assert (await p.rooms.get("bob", room_id)).room.closed_at is not None
    assert (await refused(p.rooms.get("kim", room_id))).code == "ROOM_CLOSED"
    await house.audit()


async def test_an_empty_room_closes_after_its_time(house: RoomHouse, p: Process) -> None:
    a, b = phones(house, p, "ada", "bob")
    room_id = await house.room(p)
    await b.join(room_id)
    await b.leave(room_id)
    await house.pass_(house.timers.empty - 1, step=house.timers.empty)
    await p.jobs()
    assert a.heard("room-closed") == []
    await house.pass_(1, p)
    assert a.heard("room-closed") == [{"roomId": room_id, "reason": "empty"}]


async def test_a_place_by_rest_is_seen_by_oneself_and_by_the_others_with_the_first_device(
    house: RoomHouse, p: Process
) -> None:
    a = house.phone(p, "ada")
    room_id = await house.room(p)
    await a.join(room_id)
    by_rest = house.phone(p, "bob", rest=True)
    seen = await by_rest.join(room_id)
    assert [one.user_id for one in seen.room.seen_by("bob")] == ["ada", "bob"]
    assert [one.user_id for one in seen.room.seen_by("ada")] == ["ada"]
    assert (a.comings_and_goings(), p.rooms.board.in_room("bob")) == ([], False)
    assert (await refused(by_rest.to(room_id))).code == "ROOM_NOT_JOINED"
    await house.phone(p, "bob").join(room_id)
    assert a.comings_and_goings() == ["+bob"]
    await by_rest.leave(room_id)
    assert a.comings_and_goings() == ["+bob", "-bob"], "by REST one leaves with all devices"


async def test_a_place_by_rest_that_nobody_comes_to_is_given_back(house: RoomHouse, p: Process) -> None:
    room_id = await house.room(p, capacity=2)
    await house.phone(p, "ada").join(room_id)
    await house.phone(p, "bob", rest=True).join(room_id)
    e = house.phone(p, "eve")
    assert (await refused(e.join(room_id))).code == "ROOM_FULL"
    await house.pass_(house.timers.arrive, p, step=30)
    await e.join(room_id)
    assert await house.present(room_id) == ["ada", "eve"]


async def test_what_is_overdue_is_done_before_somebody_is_refused(house: RoomHouse, p: Process) -> None:
    room_id = await house.room(p, capacity=2)
    await house.phone(p, "ada").join(room_id)
    b, e = phones(house, p, "bob", "eve")
    await b.join(room_id)
    await b.drop()
    house.clock.pass_(house.timers.grace)
    await e.join(room_id)
    assert await house.present(room_id) == ["ada", "eve"]


# ------------------------------------------------------------------------------------------------------------- blocks


async def test_whom_the_owner_has_blocked_finds_no_room(house: RoomHouse, p: Process) -> None:
    room_id = await house.room(p)
    await p.users.block("ada", "bob")
    b = house.phone(p, "bob")
    for work in (b.join(room_id), b.leave(room_id), p.rooms.get("bob", room_id)):
        assert (await refused(work)).code == "ROOM_UNKNOWN"
    await p.users.block("eve", "ada")
    assert (await refused(house.phone(p, "eve").join(room_id))).code == "USER_BLOCKED"


async def test_e61_nothing_passes_in_a_room_between_two_whom_a_block_parts(
    house: RoomHouse, p: Process
) -> None:
    a, b, e = phones(house, p, "ada", "bob", "eve")
    room_id = await house.room(p)
    await p.users.block("bob", "eve")
    for phone in (a, b, e):
        await phone.join(room_id)
    assert [u["id"] for u in e.heard("existing-users")[0]["users"]] == ["ada"]
    assert (b.comings_and_goings(), a.comings_and_goings()) == ([], ["+bob", "+eve"])
    assert (await b.to(room_id), await e.to(room_id)) == (["ada"], ["ada"])
    assert (await refused(e.to(room_id, "bob"))).code == "TARGET_UNKNOWN"
    await e.say(room_id, "can you hear me")
    assert (len(a.heard("chat-message")), b.heard("chat-message")) == (1, [])
    await p.users.unblock("bob", "eve")
    await house.pass_(20, p)
    assert b.heard("chat-message") == [], "nor does it come later"
    page = await p.talk.page("bob", room_id, before=None, after=None, limit=9)
    assert page.items == []
    await e.leave(room_id)
    assert b.comings_and_goings() == []


async def test_e61_a_block_in_the_room_parts_two_guests_at_once(house: RoomHouse, p: Process) -> None:
    a, b, e = phones(house, p, "ada", "bob", "eve")
    room_id = await house.room(p)
    for phone in (a, b, e):
        await phone.join(room_id)
    await p.users.block("bob", "eve")
    assert (b.comings_and_goings(), e.comings_and_goings()) == (["+eve", "-eve"], ["-bob"])
    assert a.comings_and_goings() == ["+bob", "+eve"]
    assert (await refused(e.to(room_id, "bob"))).code == "TARGET_UNKNOWN"
    await p.users.block("ada", "eve")
    assert await house.present(room_id) == ["ada", "bob"]
    assert e.heard("room-kicked") == [{"roomId": room_id, "reason": "policy"}]


async def test_a_ban_and_a_deletion_take_out_of_all_rooms_and_close_ones_own(
    house: RoomHouse, p: Process
) -> None:
    b = house.phone(p, "bob")
    rooms = [await house.room(p) for _ in range(2)]
    own = await house.room(p, "bob")
    for room_id in (*rooms, own):
        await b.join(room_id)
    e = house.phone(p, "eve")
    await e.join(own)
    for end in (p.rooms.end_all, p.rooms.end_all, p.rooms.forget):
        await end("bob")
        assert [await house.present(room_id) for room_id in (*rooms, own)] == [[], [], []]
        assert (await house.truth(own)).close_reason is Closed.POLICY
    assert e.heard("room-closed") == [{"roomId": own, "reason": "policy"}]
    assert (await house.truth(rooms[0])).open


# --------------------------------------------------------------------------------------------------------------- talk


async def test_what_is_said_has_dense_numbers_and_a_history_both_ways(house: RoomHouse, p: Process) -> None:
    a, b = phones(house, p, "ada", "bob")
    room_id = await house.room(p)
    await a.join(room_id)
    await b.join(room_id)
    for number in range(1, 6):
        await (a if number % 2 else b).say(room_id, str(number))
    assert [one["seq"] for one in b.heard("chat-message")] == [1, 3, 5], "the sender has it from the ack"

    async def page(**where: Any) -> tuple[list[str], bool]:
        found = await p.talk.page("bob", room_id, **{"before": None, "after": None, "limit": 2, **where})
        return [said.line.text for said in found.items], found.more

    assert await page() == (["5", "4"], True)
    assert await page(before=4, limit=3) == (["3", "2", "1"], False)
    assert await page(after=0) == (["1", "2"], True)
    assert await page(after=3) == (["4", "5"], False)


async def test_e57_the_same_op_id_says_it_once(house: RoomHouse, p: Process) -> None:
    a, b = phones(house, p, "ada", "bob")
    room_id = await house.room(p)
    await a.join(room_id)
    await b.join(room_id)
    first = await a.say(room_id, "hello", "1")
    assert (await a.say(room_id, "hello", "1")).line.id == first.line.id
    assert (await refused(a.say(room_id, "other", "1"))).code == "IDEMPOTENCY_MISMATCH"
    assert (await b.say(room_id, "mine", "1")).line.seq == 2
    assert len(b.heard("chat-message")) == 1


async def test_history_is_for_who_was_in_the_room_and_its_owner(house: RoomHouse, p: Process) -> None:
    b, e = phones(house, p, "bob", "eve")
    room_id = await house.room(p)
    await b.join(room_id)
    await b.say(room_id, "hello")
    await b.leave(room_id)
    for reader in ("ada", "bob"):
        page = await p.talk.page(reader, room_id, before=None, after=None, limit=9)
        assert [said.line.text for said in page.items] == ["hello"]
    await p.rooms.invite("ada", room_id, ["eve"])
    no = await refused(p.talk.page("eve", room_id, before=None, after=None, limit=9))
    assert no.code == "ROOM_NOT_JOINED"
    assert (await refused(e.say(room_id, "from outside"))).code == "ROOM_NOT_JOINED"


async def test_eight_kibibytes_can_be_said_and_not_one_byte_more(house: RoomHouse, p: Process) -> None:
    a = house.phone(p, "ada")
    room_id = await house.room(p)
    await a.join(room_id)
    await a.say(room_id, "é" * 4096)
    assert (await refused(a.say(room_id, "é" * 4096 + "e"))).code == "PAYLOAD_TOO_LARGE"


# --------------------------------------------------------------------------------------------------------------- logs


async def test_each_use_of_a_room_is_a_line_of_the_log_with_everybody_who_was_in_it(
    house: RoomHouse, p: Process
) -> None:
    a, b, e = phones(house, p, "ada", "bob", "eve")
    room_id = await house.room(p, name="Monday", type="audio")
    await a.join(room_id)
    house.clock.pass_(10)
    await b.join(room_id)
    await a.leave(room_id)
    (running,) = await house.logs(room_id)
    assert (running.ended_at, running.duration_seconds, running.user_ids) == (None, 0, ("ada", "bob"))
    house.clock.pass_(20)
    await b.leave(room_id)
    await e.join(room_id)
    first, second = await house.logs(room_id)
    assert (first.duration_seconds, first.started_by, first.room_name, first.type) == (
        30,
        "ada",
        "Monday",
        "audio",
    )
    assert (second.user_ids, second.ended_at) == (("eve",), None)
    await house.audit()

    page = await p.rooms.logs("bob", before=None, limit=9)
    assert ([one.id for one in page.items], page.more) == ([first.id], False)
    totals = await p.rooms.log_totals("bob")
    assert (totals.calls, totals.completed, totals.seconds) == (1, 1, 30)
    totals = await p.rooms.log_totals("eve")
    assert (totals.calls, totals.completed, totals.seconds) == (1, 0, 0)
    assert (await p.rooms.log_totals("kim")).calls == 0


async def test_a_log_is_begun_by_who_is_in_the_room_and_ended_by_the_owner(
    house: RoomHouse, p: Process
) -> None:
    a, b = phones(house, p, "ada", "bob")
    room_id = await house.room(p)
    assert (await refused(p.rooms.begin_log("bob", room_id))).code == "ROOM_NOT_JOINED"
    assert (await refused(p.rooms.end_log("ada", room_id))).code == "CALL_UNKNOWN"
    await a.join(room_id)
    await b.join(room_id)
    begun = (await p.rooms.begin_log("bob", room_id)).items[0]
    assert (await p.rooms.begin_log("ada", room_id)).items[0] == begun
    assert (await refused(p.rooms.end_log("bob", room_id))).code == "ROOM_NOT_OWNER"
    house.clock.pass_(7)
    ended = (await p.rooms.end_log("ada", room_id)).items[0]
    assert (ended.id, ended.duration_seconds) == (begun.id, 7)
    assert (await p.rooms.end_log("ada", room_id)).items[0] == ended
    assert await house.present(room_id) == ["ada", "bob"]
    again = (await p.rooms.begin_log("bob", room_id)).items[0]
    assert (again.id != begun.id, again.user_ids) == (True, ("bob", "ada"))
    assert (await refused(p.rooms.end_log("kim", room_id))).code == "ROOM_NOT_OWNER"


# -------------------------------------------------------------------------------------------------------------- money


async def test_who_cannot_pay_is_refused_before_anybody_hears_of_them(house: RoomHouse, p: Process) -> None:
    a, b = phones(house, p, "ada", "bob")
    room_id = await house.room(p, rate_per_minute_minor=100)
    await a.join(room_id)
    house.till.poor = {"bob"}
    assert (await refused(b.join(room_id))).code == "INSUFFICIENT_FUNDS"
    assert (a.comings_and_goings(), await house.present(room_id)) == ([], ["ada"])
    house.till.poor = set()
    await b.join(room_id)
    assert (a.comings_and_goings(), list(house.till.running.values())) == (["+bob"], ["bob"])
    await house.phone(p, "bob", "tablet").join(room_id)
    assert len(house.till.running) == 1, "one participant pays once"
    await house.audit()


async def test_a_stay_ends_with_its_participant_as_of_when_they_were_last_there(
    house: RoomHouse, p: Process
) -> None:
    a, b = phones(house, p, "ada", "bob")
    room_id = await house.room(p, rate_per_minute_minor=100)
    await a.join(room_id)
    await b.join(room_id)
    (stay,) = house.till.running
    house.clock.pass_(30)
    await b.drop()
    heard = house.clock.now()
    await house.pass_(house.timers.grace + 2, p)
    assert house.till.ended[stay] == (heard, Gone.LOST)
    by_rest = house.phone(p, "bob", rest=True)
    came = house.clock.now()
    await by_rest.join(room_id)
    (stay,) = house.till.running
    await house.pass_(house.timers.arrive + 2, p)
    assert house.till.ended[stay] == (came, Gone.NEVER_CAME), "nobody came, nothing was used"
    await house.audit()


async def test_the_end_of_the_money_takes_out_who_is_there_by_that_stay(house: RoomHouse, p: Process) -> None:
    a, b = phones(house, p, "ada", "bob")
    room_id = await house.room(p, rate_per_minute_minor=100)
    await a.join(room_id)
    await b.join(room_id)
    (stay,) = house.till.running
    await p.rooms.removed(room_id, "bob", reason=Gone.FUNDS, stay_id="an older stay")
    assert await house.present(room_id) == ["ada", "bob"]
    for _ in range(2):
        await p.rooms.removed(room_id, "bob", reason=Gone.FUNDS, stay_id=stay)
    assert b.heard("room-kicked") == [{"roomId": room_id, "reason": "insufficient_funds"}]
    assert a.comings_and_goings() == ["+bob", "-bob"]
    await house.audit()


async def test_rooms_are_listed_newest_first_page_by_page(house: RoomHouse, p: Process) -> None:
    rooms = [await house.room(p) for _ in range(3)]
    rooms.append(await house.room(p, "bob"))
    await house.phone(p, "ada").join(rooms[-1])
    found, more = await p.rooms.mine("ada", before=None, limit=3)
    assert ([one.room.id for one in found], more) == (rooms[:0:-1], True)
    found, more = await p.rooms.mine("ada", before=rooms[1], limit=3)
    assert ([one.room.id for one in found], more) == ([rooms[0]], False)
    assert (await p.rooms.create("ada", access=Access.INVITE)).room.access is Access.INVITE


@pytest.mark.parametrize(
    ("fault", "done"),
    [(HeldUp("by another"), ["c"]), (ValueError("a bug"), ["c"]), (ConnectionFailure("away"), [])],
)
async def test_a_room_that_cannot_be_done_keeps_no_other_waiting_unless_the_database_is_out_of_reach(
    p: Process, fault: Exception, done: list[str]
) -> None:
    reached = list[str]()

    async def work(room_id: str) -> None:
        if room_id == "b":
            raise fault
        reached.append(room_id)

    with pytest.raises(ConnectionFailure) if not done else nullcontext():
        await p.rooms._each(["a", "b", "c"], work)
    assert reached == ["a", *done]

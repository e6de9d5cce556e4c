"""E61 in rooms: a block or a ban holds however it meets those who come, stay and read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from models.db import Database
from models.errors import Refusal
from models.rooms.service import JOINED_MAX
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


def phones(house: RoomHouse, p: Process, *names: str) -> list[Phone]:
    return [house.phone(p, name) for name in names]


async def refused(work: Awaitable[object]) -> Refusal:
    with pytest.raises(Refusal) as no:
        await work
    return no.value


async def read(p: Process, user_id: str, room_id: str) -> list[str]:
    """What somebody reads of a room's history, newest first."""
    page = await p.talk.page(user_id, room_id, before=None, after=None, limit=50)
    return [one.line.text for one in page.items]


class Held:
    """A verb of a process's store that waits, once, after it was called and before it begins."""

    def __init__(self, process: Process, verb: str) -> None:
        self._work = getattr(process.rooms._store, verb)
        self.called, self.go, self.done = asyncio.Event(), asyncio.Event(), asyncio.Event()
        setattr(process.rooms._store, verb, self)

    async def __call__(self, *given: Any, **named: Any) -> Any:
        if not self.called.is_set():
            self.called.set()
            await self.go.wait()
        try:
            return await self._work(*given, **named)
        finally:
            self.done.set()


# ------------------------------------------------------------------------------------------------------- coming in


async def test_whom_the_owner_blocks_at_one_process_does_not_come_back_at_another_that_has_not_heard(
    house: RoomHouse,
) -> None:
    p1, p2 = await house.process("p1"), await house.process("p2")
    a, b = house.phone(p2, "ada"), house.phone(p1, "bob")
    room_id = await house.room(p2)
    await a.join(room_id)
    await b.join(room_id)
    await p2.users.block("ada", "bob")
    assert p1.rooms.board.room(room_id).participant("bob"), "as it was half a second ago"  # type: ignore[union-attr]
    assert (await refused(b.join(room_id))).code == "ROOM_UNKNOWN"
    assert await house.present(room_id) == ["ada"]


async def test_a_second_device_that_joins_while_a_block_takes_its_owner_out_is_refused(
    house: RoomHouse, p: Process
) -> None:
    a, b = phones(house, p, "ada", "bob")
    room_id = await house.room(p)
    await a.join(room_id)
    await b.join(room_id)
    swap = Held(p, "swap")
    blocking = asyncio.create_task(p.users.block("ada", "bob"))
    await swap.called.wait()
    joining = asyncio.create_task(house.phone(p, "bob", "bob-tab").join(room_id))
    await asyncio.sleep(0)
    swap.go.set()
    await blocking
    assert (await refused(joining)).code == "ROOM_UNKNOWN"
    assert await house.present(room_id) == ["ada"]


async def test_a_second_device_that_joins_while_the_first_leaves_stays_apart_from_whom_a_block_parts(
    house: RoomHouse, p: Process
) -> None:
    a, b, e = phones(house, p, "ada", "bob", "eve")
    room_id = await house.room(p)
    for phone in (a, b, e):
        await phone.join(room_id)
    await p.users.block("bob", "eve")
    swap = Held(p, "swap")
    leaving = asyncio.create_task(e.leave(room_id))
    await swap.called.wait()
    joining = asyncio.create_task(house.phone(p, "eve", "eve-tab").join(room_id))
    await asyncio.sleep(0)
    swap.go.set()
    await leaving
    await joining
    assert await house.present(room_id) == ["ada", "bob", "eve"]
    assert await b.to(room_id) == ["ada"]
    assert b.comings_and_goings() == ["+eve", "-eve"], "of before the block"


async def test_a_connection_elsewhere_of_somebody_who_has_just_been_taken_out_does_not_bring_them_back(
    house: RoomHouse, p: Process
) -> None:
    a, b = phones(house, p, "ada", "bob")
    room_id = await house.room(p)
    await a.join(room_id)
    await b.join(room_id)
    swap = Held(p, "swap")
    blocking = asyncio.create_task(p.users.block("ada", "bob"))
    await swap.called.wait()
    load = Held(p, "load")
    load.go.set()
    entering = asyncio.create_task(p.rooms.entered(room_id=room_id, user_id="bob", device_id="livekit:PA_1"))
    await load.done.wait()
    swap.go.set()
    await blocking
    assert (await refused(entering)).code == "ROOM_UNKNOWN"
    assert await house.present(room_id) == ["ada"]


async def test_a_connection_elsewhere_counts_among_the_rooms_that_somebody_is_in(
    house: RoomHouse, p: Process
) -> None:
    b = house.phone(p, "bob")
    for _ in range(JOINED_MAX):
        await b.join(await house.room(p))
    one_more = await house.room(p)
    entering = p.rooms.entered(room_id=one_more, user_id="bob", device_id="livekit:PA_1")
    assert (await refused(entering)).code == "TOO_MANY_ROOMS"


@pytest.mark.parametrize("price", [None, 1000])
async def test_a_block_by_the_owner_between_the_look_and_the_place_lets_nobody_in(
    house: RoomHouse, p: Process, price: int | None
) -> None:
    a, b = phones(house, p, "ada", "bob")
    room_id = await house.room(p, rate_per_minute_minor=price)
    await a.join(room_id)
    looked = Held(p, "with_person")
    joining = asyncio.create_task(b.join(room_id))
    await looked.called.wait()
    await p.users.block("ada", "bob")
    looked.go.set()
    assert (await refused(joining)).code == "ROOM_UNKNOWN"
    assert await house.present(room_id) == ["ada"]
    assert house.till.running == {}
    await house.audit()


async def test_a_block_between_guests_between_the_look_and_the_place_keeps_them_apart(
    house: RoomHouse, p: Process
) -> None:
    b, e = phones(house, p, "bob", "eve")
    room_id = await house.room(p)
    await b.join(room_id)
    looked = Held(p, "with_person")
    joining = asyncio.create_task(e.join(room_id))
    await looked.called.wait()
    await p.users.block("bob", "eve")
    looked.go.set()
    await joining
    assert (await b.to(room_id), await e.to(room_id)) == ([], [])


async def test_a_ban_between_the_look_and_the_place_lets_nobody_in(house: RoomHouse, p: Process) -> None:
    b = house.phone(p, "bob")
    room_id = await house.room(p, rate_per_minute_minor=1000)
    looked = Held(p, "with_person")
    joining = asyncio.create_task(b.join(room_id))
    await looked.called.wait()
    await house.db["users"].update_one({"_id": "bob"}, {"$set": {"status": "banned"}})
    await p.rooms.end_all("bob")
    looked.go.set()
    assert (await refused(joining)).code == "ROOM_UNKNOWN"
    assert await house.present(room_id) == []
    assert house.till.running == {}


# --------------------------------------------------------------------------------------------------------- reading


async def test_whom_the_owner_has_blocked_reads_nothing_more_and_nobody_reads_those_whom_a_block_parts_from_them(
    house: RoomHouse, p: Process
) -> None:
    a, b, e = phones(house, p, "ada", "bob", "eve")
    room_id = await house.room(p)
    for phone in (a, b, e):
        await phone.join(room_id)
        await phone.say(room_id, f"by {phone.user_id}")
    await p.users.block("bob", "eve")
    assert await read(p, "eve", room_id) == ["by eve", "by ada"]
    assert await read(p, "bob", room_id) == ["by bob", "by ada"]
    await p.users.block("ada", "bob")
    await a.say(room_id, "secret")
    assert (await refused(read(p, "bob", room_id))).code == "ROOM_UNKNOWN"
    assert await read(p, "ada", room_id) == ["secret", "by eve", "by ada"]


async def test_what_is_said_during_a_block_is_not_read_after_it_by_who_was_out_of_the_room(
    house: RoomHouse, p: Process
) -> None:
    b, e = phones(house, p, "bob", "eve")
    room_id = await house.room(p)
    await e.join(room_id)
    await e.leave(room_id)
    await p.users.block("bob", "eve")
    await b.join(room_id)
    await b.say(room_id, "not for eve")
    assert await read(p, "eve", room_id) == []
    await p.users.unblock("bob", "eve")
    assert await read(p, "eve", room_id) == []
    await b.say(room_id, "for all")
    assert await read(p, "eve", room_id) == ["for all"]


async def test_a_page_is_full_though_somebody_on_it_is_not_to_be_read(house: RoomHouse, p: Process) -> None:
    a, b, e = phones(house, p, "ada", "bob", "eve")
    room_id = await house.room(p)
    for phone in (a, b, e):
        await phone.join(room_id)
    for n in range(3):
        await a.say(room_id, f"a{n}")
        await b.say(room_id, f"b{n}")
    await p.users.block("eve", "bob")
    page = await p.talk.page("eve", room_id, before=None, after=None, limit=2)
    assert ([one.line.text for one in page.items], page.more) == (["a2", "a1"], True)

"""E61 at the edges: a block that comes while something is on its way, or between two of many."""

from __future__ import annotations

from typing import Any

import pytest

from models.chat.rules import pair_id
from models.chat.store import TELL_SECONDS
from models.db import Database
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services.callkit import Killed
from tests.services.chat_house import ANN, BOB, EVE, World, build, device, told


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors) -> World:
    return await build(db, clock, ids, doors)


@pytest.mark.parametrize("where", ["pair", "group"])
@pytest.mark.parametrize("by", ["job", "retry", "next message"])
async def test_e61_a_message_that_was_not_told_before_a_block_is_not_told_after_it(
    world: World, where: str, by: str
) -> None:
    """Its process dies at each call to the database that comes after the message is kept."""
    chat = world.process()
    group = await chat.groups.found(device(ANN), name="Us", user_ids=[BOB, EVE], op_id=None)
    await chat.say(device(ANN), to=BOB, text="before", op_id="0")
    ask: dict[str, Any] = {"to": BOB} if where == "pair" else {"conversation_id": group.id}
    held_back = 0
    for n in range(1, 20):
        mortal, heir = world.machine(f"mortal {n}"), world.machine(f"heir {n}")
        mortal.life.dies_at = n
        died = False
        try:
            await mortal.chat.say(device(ANN), text="x", op_id=f"{n}", **ask)
        except Killed:
            died = True
        row = await world.db["messages"].find_one({"op_id": f"{n}"})
        if row is not None:
            key = {"user_id": BOB, "key": f"msg:{row['_id']}"}
            had = await world.db["letters"].count_documents(key)
            await world.users.block(BOB, ANN)
            if by == "retry":
                await heir.chat.say(device(ANN), text="x", op_id=f"{n}", **ask)
            if by == "next message" and where == "group":
                await heir.chat.say(device(EVE), text="y", op_id=f"y{n}", **ask)
            world.clock.pass_(TELL_SECONDS)
            await heir.chat.tell_untold()
            assert await world.db["letters"].count_documents(key) == had
            pushed = [push["recipients"] for push in world.pusher.said if push["message_id"] == row["_id"]]
            assert had or not any(BOB in recipients for recipients in pushed)
            await world.users.unblock(BOB, ANN)
            page = await heir.chat.messages(BOB, row["conversation_id"], limit=1)
            if not had:
                held_back += 1
                assert row["_id"] not in [one.message.id for one in page.items], "nor after the unblocking"
            if where == "group":
                assert await world.db["letters"].count_documents({**key, "user_id": EVE}) == 1
        if not died:
            break
    assert held_back >= 2


async def test_e61_what_a_group_is_after_a_change_tells_no_presence_over_a_block(world: World) -> None:
    chat = world.process()
    group = await chat.groups.found(device(ANN), name="Us", user_ids=[BOB, EVE], op_id=None)
    await world.users.block(BOB, EVE)
    for user_id in (ANN, BOB, EVE):
        world.doors.connect(user_id, "phone")
    await chat.groups.rename(device(ANN), group.id, "Them")
    seen = {}
    for user_id in (ANN, BOB, EVE):
        updated = told(await world.log(user_id), "CONVERSATION_UPDATED")[-1]
        seen[user_id] = {x["id"]: x["presence"] for x in updated["conversation"]["members"]}
    assert seen == {
        ANN: {ANN: "online", BOB: "online", EVE: "online"},
        BOB: {ANN: "online", BOB: "online", EVE: "offline"},
        EVE: {ANN: "online", BOB: "offline", EVE: "online"},
    }


async def test_e61_a_note_and_a_deletion_tell_no_presence_of_their_sender_over_a_block(world: World) -> None:
    chat = world.process()
    group = await chat.groups.found(device(ANN), name="Us", user_ids=[BOB, EVE], op_id=None)
    written = await chat.say(device(ANN), conversation_id=group.id, text="hello", op_id="1")
    await world.users.block(EVE, ANN)
    world.doors.connect(ANN, "phone")
    await chat.groups.rename(device(ANN), group.id, "Them")
    await chat.delete(ANN, written.message.id)
    for user_id, presence in ((BOB, "online"), (EVE, "offline")):
        log = await world.log(user_id)
        note, deletion = told(log, "CHAT_MESSAGE")[-1], told(log, "MESSAGE_DELETE")[-1]
        assert note["note"]["what"] == "renamed"
        assert [x["sender"]["presence"] for x in (note, deletion)] == [presence] * 2, user_id


async def test_e61_that_somebody_types_no_longer_does_not_pass_a_block_that_came_since(world: World) -> None:
    chat = world.process()
    group = await chat.groups.found(device(ANN), name="Us", user_ids=[BOB, EVE], op_id=None)
    for user_id in (BOB, EVE):
        world.doors.connect(user_id, "phone")
    await chat.typing.begin(device(ANN), group.id)
    await world.users.block(EVE, ANN)
    await chat.typing.end(group.id, ANN)
    assert world.doors.told(BOB, "phone") == ["CHAT_TYPING", "CHAT_STOP_TYPING"]
    assert world.doors.told(EVE, "phone") == ["CHAT_TYPING"], "it ends by itself"
    await chat.typing.begin(device(ANN), pair_id(ANN, BOB), to=BOB)
    await world.users.block(BOB, ANN)
    await chat.typing.end(pair_id(ANN, BOB), ANN)
    assert world.doors.told(BOB, "phone")[2:] == ["CHAT_TYPING"]

"""How far people have got and read, and who types: forward only, told to who may know, over by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from models.chat.rules import RECEIPTS_MEMBERS_MAX, pair_id
from models.chat.typing import TYPING_SECONDS
from models.db import Database
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services.chat_house import ANN, BOB, EVE, NOBODY, Spoken, World, build, device, refused, told

PAIR = pair_id(ANN, BOB)


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors) -> World:
    return await build(db, clock, ids, doors)


async def written(chat: Spoken, n: int, *, by: str = ANN, to: str = BOB) -> list[str]:
    """The ids of ``n`` messages."""
    sent = [await chat.say(device(by), to=to, text=f"{x}", op_id=f"{by}{x}") for x in range(n)]
    return [one.message.id for one in sent]


async def unread(chat: Spoken, user_id: str) -> list[int]:
    return [one.unread for one in (await chat.conversations(user_id, limit=50)).items]


async def test_a_marker_is_told_to_the_other_and_what_is_read_to_ones_own_other_devices(world: World) -> None:
    chat = world.process()
    ids = await written(chat, 3)
    for user_id, name in ((ANN, "phone"), (BOB, "phone"), (BOB, "tablet")):
        world.doors.connect(user_id, name)
    marker = await chat.markers.delivered(device(BOB), message_id=ids[1])
    assert (marker.conversation_id, marker.user_id, marker.seq) == (PAIR, BOB, 2)
    assert world.doors.told(ANN, "phone") == ["MESSAGE_DELIVERED"]
    assert world.doors.told(BOB, "tablet") == []
    world.clock.pass_(1)
    await chat.markers.read(device(BOB), conversation_id=PAIR, seq=3)
    assert world.doors.last(ANN, "phone", "MESSAGE_READ") == {
        "conversationId": PAIR, "userId": BOB, "seq": 3, "at": "2026-03-01T12:00:01.000Z",
    }  # fmt: skip
    assert world.doors.told(BOB, "tablet") == ["MESSAGE_READ"]
    assert world.doors.told(BOB, "phone") == [], "the device that said so knows"
    assert [x.event for x in await world.log(ANN)][-2:] == ["MESSAGE_DELIVERED", "MESSAGE_READ"]
    assert world.pusher.read == [(BOB, PAIR, 3)]


async def test_what_is_read_was_delivered(world: World) -> None:
    chat = world.process()
    await written(chat, 2)
    await chat.markers.read(device(BOB), conversation_id=PAIR, seq=2)
    mine = (await chat.conversations(BOB, limit=1)).items[0].mine
    assert (mine.delivered_seq, mine.read_seq) == (2, 2)
    marker = await chat.markers.delivered(device(BOB, "tablet"), conversation_id=PAIR, seq=1)
    assert marker.seq == 2
    assert "MESSAGE_DELIVERED" not in [x.event for x in await world.log(ANN)]


async def test_e60_a_marker_never_goes_back_nor_beyond_the_newest_message(world: World) -> None:
    chat = world.process()
    await written(chat, 3)
    reads = [
        (await chat.markers.read(device(BOB), conversation_id=PAIR, seq=seq)).seq for seq in (2, 1, 0, 99, 3)
    ]
    assert reads == [2, 2, 2, 3, 3]
    assert [x["seq"] for x in told(await world.log(ANN), "MESSAGE_READ")] == [2, 3]
    assert await chat.unread(BOB) == (0, 0)
    await written(chat, 5)  # the first three are retries
    assert await unread(chat, BOB) == [2], "what came after it is not read"


async def test_markers_of_several_devices_at_several_processes_end_at_the_highest(world: World) -> None:
    chats = [world.process(), world.process()]
    await written(chats[0], 9)
    await asyncio.gather(
        *(
            chats[n % 2].markers.read(device(BOB, f"d{n}"), conversation_id=PAIR, seq=n)
            for n in (3, 9, 1, 7, 5, 2, 8)
        )
    )
    assert (await chats[0].conversations(BOB, limit=1)).items[0].mine.read_seq == 9
    assert max(x["seq"] for x in told(await world.log(ANN), "MESSAGE_READ")) == 9


async def test_markers_of_two_devices_at_once_are_told_in_the_order_of_their_numbers(world: World) -> None:
    chat = world.process()
    await written(chat, 30)
    inbox = world.doors.connect(ANN, "phone")
    for n in range(1, 30, 2):
        await asyncio.gather(
            *(
                chat.markers.read(device(BOB, name), conversation_id=PAIR, seq=seq)
                for name, seq in (("phone", n), ("tablet", n + 1))
            )
        )
    heard = [x["seq"] for x in told(inbox, "MESSAGE_READ")]
    assert heard == sorted(set(heard)), "never back"
    assert set(range(2, 31, 2)).issubset(heard)


@pytest.mark.parametrize("by", ["device", "job"])
async def test_a_marker_that_was_overtaken_at_another_process_is_not_told_after_it(
    world: World, by: str
) -> None:
    """One process is slow to tell; meanwhile another one moves the marker on and tells that."""
    slow, quick = world.machine("slow"), world.machine("quick")
    await written(quick.chat, 9)
    find = slow.chat._conversations.find

    async def overtaken(conversation_id: str) -> Any:
        slow.chat._conversations.find = find  # type: ignore[method-assign]
        await quick.chat.markers.read(device(BOB, "tablet"), conversation_id=PAIR, seq=7)
        return await find(conversation_id)

    slow.chat._conversations.find = overtaken  # type: ignore[method-assign]
    if by == "device":
        await slow.chat.markers.read(device(BOB), conversation_id=PAIR, seq=5)
    else:
        now = world.clock.now()
        left = {"read_seq": 5, "read_at": now, "tell_at": now}
        await world.db["memberships"].update_one({"user_id": BOB}, {"$set": left})
        await slow.chat.tell_untold()
    assert [x["seq"] for x in told(await world.log(ANN), "MESSAGE_READ")] == [7]


async def test_markers_in_conversations_and_of_messages_that_are_others_are_refused(world: World) -> None:
    chat = world.process()
    ids = await written(chat, 1)
    assert await refused(chat.markers.read(device(EVE), message_id=ids[0])) == "MESSAGE_UNKNOWN"
    assert await refused(chat.markers.read(device(EVE), message_id=NOBODY)) == "MESSAGE_UNKNOWN"
    for where in (PAIR, NOBODY):
        assert await refused(chat.markers.delivered(device(EVE), conversation_id=where, seq=1)) == (
            "CONVERSATION_UNKNOWN"
        )


async def test_unread_messages_are_those_of_others_that_are_there_to_be_read(world: World) -> None:
    chat = world.process()
    ids = await written(chat, 4)
    await written(chat, 2, by=BOB, to=ANN)
    await written(chat, 3, by=EVE)
    await chat.delete(ANN, ids[3])
    assert sorted(await unread(chat, BOB)) == [3, 3]
    assert await chat.unread(BOB) == (6, 2)
    await chat.markers.read(device(BOB), message_id=ids[1])
    assert await chat.unread(BOB) == (4, 2)
    await chat.markers.read(device(BOB), conversation_id=pair_id(EVE, BOB), seq=3)
    assert await chat.unread(BOB) == (1, 1)
    assert await chat.unread(ANN) == (2, 1)
    assert await chat.unread(NOBODY) == (0, 0)


async def test_the_list_shows_how_far_the_other_one_of_a_pair_has_got(world: World) -> None:
    chat = world.process()
    await written(chat, 3)
    await chat.markers.delivered(device(BOB), conversation_id=PAIR, seq=3)
    await chat.markers.read(device(BOB), conversation_id=PAIR, seq=2)
    one = (await chat.conversations(ANN, limit=1)).items[0]
    assert [(x.user_id, x.delivered_seq, x.read_seq) for x in one.markers] == [(BOB, 3, 2)]


async def test_e61_no_receipt_passes_a_block(world: World) -> None:
    chat = world.process()
    await written(chat, 2)
    await world.users.block(BOB, ANN)
    world.doors.connect(BOB, "tablet")
    await chat.markers.read(device(BOB), conversation_id=PAIR, seq=2)
    assert told(await world.log(ANN), "MESSAGE_READ") == []
    assert world.doors.told(BOB, "tablet") == ["MESSAGE_READ"], "one's own devices know"
    assert (await chat.conversations(ANN, limit=1)).items[0].markers == []
    await world.users.unblock(BOB, ANN)
    world.clock.pass_(60)
    await chat.tell_untold()
    assert told(await world.log(ANN), "MESSAGE_READ") == []


async def test_in_a_large_group_markers_are_for_ones_own_devices(world: World) -> None:
    chat, people = world.process(), await world.crowd(RECEIPTS_MEMBERS_MAX)
    small = await chat.groups.found(device(ANN), name="32", user_ids=people[:-1], op_id=None)
    large = await chat.groups.found(device(ANN), name="33", user_ids=people, op_id=None)
    world.doors.connect(ANN, "phone")
    world.doors.connect(people[0], "tablet")
    for group in (small, large):
        await chat.markers.read(device(people[0]), conversation_id=group.id, seq=1)
    assert [x["conversationId"] for x in told(world.doors.devices[ANN, "phone"], "MESSAGE_READ")] == [
        small.id
    ]
    own = told(world.doors.devices[people[0], "tablet"], "MESSAGE_READ")
    assert [x["conversationId"] for x in own] == [small.id, large.id]


# -------------------------------------------------------------------------------------------------------------- typing


def typing(world: World, user_id: str = BOB) -> list[str]:
    """What somebody's phone was told of typing."""
    return [name for name in world.doors.told(user_id, "phone") if "TYPING" in name]


async def test_typing_is_told_to_who_is_there_and_kept_nowhere(world: World) -> None:
    chat = world.process()
    world.doors.connect(BOB, "phone")
    world.doors.connect(ANN, "tablet")
    await chat.typing.begin(device(ANN), PAIR, to=BOB)
    told_bob: dict[str, Any] = world.doors.last(BOB, "phone", "CHAT_TYPING")
    assert (told_bob["from"]["id"], told_bob["conversationId"]) == (ANN, PAIR)
    await chat.typing.end(PAIR, ANN)
    await chat.typing.end(PAIR, ANN)
    assert typing(world) == ["CHAT_TYPING", "CHAT_STOP_TYPING"]
    assert world.doors.told(ANN, "tablet") == []
    assert await world.log(BOB) == []
    assert await world.db["conversations"].count_documents({}) == 0


async def test_typing_ends_by_itself_unless_it_is_said_again(world: World) -> None:
    chat = world.process()
    world.doors.connect(BOB, "phone")
    await chat.typing.begin(device(ANN), PAIR, to=BOB)
    for _ in range(3):
        world.clock.pass_(TYPING_SECONDS - 1)
        await chat.typing.expire()
        await chat.typing.begin(device(ANN), PAIR, to=BOB)
    assert typing(world) == ["CHAT_TYPING"] * 4
    world.clock.pass_(TYPING_SECONDS - 0.001)
    await chat.typing.expire()
    assert typing(world)[-1] == "CHAT_TYPING"
    world.clock.pass_(0.001)
    await chat.typing.expire()
    await chat.typing.expire()
    assert typing(world) == ["CHAT_TYPING"] * 4 + ["CHAT_STOP_TYPING"]


async def test_a_message_ends_its_senders_typing(world: World) -> None:
    chat = world.process()
    world.doors.connect(BOB, "phone")
    await chat.typing.begin(device(ANN), PAIR, to=BOB)
    await chat.say(device(ANN), to=BOB, text="hello", op_id="1")
    assert world.doors.told(BOB, "phone") == ["CHAT_TYPING", "CHAT_MESSAGE", "CHAT_STOP_TYPING"]
    world.clock.pass_(60)
    await chat.typing.expire()
    assert typing(world) == ["CHAT_TYPING", "CHAT_STOP_TYPING"]


async def test_a_socket_that_goes_types_no_longer(world: World) -> None:
    chat = world.process()
    world.doors.connect(BOB, "phone")
    await chat.typing.begin(device(ANN), PAIR, to=BOB)
    await chat.typing.gone(ANN, "tablet")
    assert typing(world) == ["CHAT_TYPING"]
    await chat.typing.gone(ANN, "phone")
    assert typing(world) == ["CHAT_TYPING", "CHAT_STOP_TYPING"]


async def test_e61_nobody_is_told_of_typing_over_a_block(world: World) -> None:
    chat = world.process()
    world.doors.connect(BOB, "phone")
    await world.users.block(BOB, ANN)
    assert await refused(chat.typing.begin(device(ANN), PAIR, to=BOB)) == "USER_UNAVAILABLE"
    assert await refused(chat.typing.begin(device(BOB), PAIR, to=ANN)) == "USER_BLOCKED"
    assert typing(world) == []
    for where in (PAIR, NOBODY):
        assert await refused(chat.typing.begin(device(EVE), where)) == "CONVERSATION_UNKNOWN"

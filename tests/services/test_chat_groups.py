"""Groups with a real database: who is in sees what they may, from when they came until they went."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from models.chat.conversations.conversation import Conversation
from models.chat.rules import MEMBERS_MAX
from models.chat.service import Chat
from models.db import Database
from models.errors import Refusal
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services.chat_house import ANN, BOB, EVE, NOBODY, Spoken, World, build, device, refused, told


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors) -> World:
    return await build(db, clock, ids, doors)


async def found(chat: Chat, *others: str, by: str = ANN, op_id: str | None = None) -> Conversation:
    return await chat.groups.found(device(by), name="Us", user_ids=others, op_id=op_id)


async def texts(chat: Chat, user_id: str, group: Conversation) -> list[str | None]:
    """What somebody reads of a group, oldest first, without the notes."""
    page = await chat.messages(user_id, group.id, after=0, limit=200)
    return [one.message.text for one in page.items if one.message.note is None]


async def say(chat: Spoken, who: str, group: Conversation, text: str) -> Any:
    return await chat.say(device(who), conversation_id=group.id, text=text, op_id=f"{who}:{text}")


async def test_founding_a_group_is_told_to_all_of_its_members(world: World) -> None:
    for user_id in (ANN, BOB):
        world.doors.connect(user_id, "phone")
    group = await found(world.process(), BOB, EVE)
    assert world.doors.told(BOB, "phone") == ["CHAT_MESSAGE", "CONVERSATION_UPDATED"]
    note = world.doors.last(BOB, "phone", "CHAT_MESSAGE")
    assert note["note"] == {"what": "created", "userIds": [BOB, EVE], "name": "Us"}
    assert (note["seq"], note["text"], note["sender"]["id"]) == (1, None, ANN)
    assert "opId" not in note
    seen = {user_id: world.doors.last(user_id, "phone", "CONVERSATION_UPDATED") for user_id in (ANN, BOB)}
    assert [seen[one]["conversation"]["role"] for one in (ANN, BOB)] == ["owner", "member"]
    shown = seen[BOB]["conversation"]
    assert (shown["id"], shown["kind"], shown["name"], shown["version"]) == (group.id, "group", "Us", 1)
    assert [(one["id"], one["role"]) for one in shown["members"]] == [
        (ANN, "owner"), (BOB, "member"), (EVE, "member"),
    ]  # fmt: skip
    assert shown["memberCount"] == 3


async def test_the_same_op_id_founds_one_group_and_another_payload_is_refused(world: World) -> None:
    one, two = world.process(), world.process()
    groups = await asyncio.gather(*(found(chat, BOB, op_id="1") for chat in (one, two, one)))
    assert len({group.id for group in groups}) == 1
    assert await refused(found(one, EVE, op_id="1")) == "IDEMPOTENCY_MISMATCH"
    assert (await found(one, BOB, op_id="2")).id != groups[0].id
    assert (await found(one, ANN, by=BOB, op_id="1")).owner_id == BOB


async def test_every_member_writes_to_all_others_in_one_row_of_numbers(world: World) -> None:
    chat = world.process()
    group = await found(chat, BOB, EVE)
    written = [await say(chat, who, group, f"from {who}") for who in (ANN, BOB, EVE)]
    assert [one.message.seq for one in written] == [2, 3, 4]
    for user_id in (ANN, BOB, EVE):
        assert await texts(chat, user_id, group) == [f"from {who}" for who in (ANN, BOB, EVE)]


async def test_who_is_added_sees_what_comes_from_then_on(world: World) -> None:
    chat = world.process()
    group = await found(chat, BOB)
    await say(chat, ANN, group, "before")
    await chat.groups.add(device(ANN), group.id, [EVE])
    await say(chat, ANN, group, "after")
    assert await texts(chat, EVE, group) == ["after"]
    assert [x.event for x in await world.log(EVE)] == ["CHAT_MESSAGE", "CONVERSATION_UPDATED", "CHAT_MESSAGE"]
    listed = (await chat.conversations(EVE, limit=10)).items[0]
    assert (listed.unread, listed.mine.read_seq) == (1, 2)
    assert await refused(chat.evidence(EVE, await first_id(world, group))) == "MESSAGE_UNKNOWN"
    assert (await chat.search(EVE, "before", limit=10)).items == []


async def first_id(world: World, group: Conversation) -> str:
    row = await world.db["messages"].find_one({"conversation_id": group.id, "text": "before"})
    assert row is not None
    return str(row["_id"])


@pytest.mark.parametrize("way", ["removed", "left"])
async def test_who_is_out_sees_nothing_new_and_keeps_what_they_had(world: World, way: str) -> None:
    chat = world.process()
    group = await found(chat, BOB, EVE)
    await say(chat, ANN, group, "before")
    if way == "removed":
        await chat.groups.remove(device(ANN), group.id, EVE)
    else:
        await chat.groups.leave(device(EVE), group.id)
    await say(chat, ANN, group, "after")
    assert await texts(chat, EVE, group) == ["before"]
    log = await world.log(EVE)
    assert [x["text"] for x in told(log, "CHAT_MESSAGE") if x["note"] is None] == ["before"]
    notes = [x["note"]["what"] for x in told(log, "CHAT_MESSAGE") if x["note"]]
    assert notes == ["created", way], "they are told of their going"
    assert told(log, "CONVERSATION_UPDATED")[-1]["conversation"]["role"] is None
    assert (await chat.conversations(EVE, limit=10)).items == []
    assert not await chat.is_member(EVE, group.id)
    assert await refused(say(chat, EVE, group, "let me in")) == "CONVERSATION_UNKNOWN"
    assert await refused(chat.conversation(EVE, group.id)) == "CONVERSATION_UNKNOWN"
    marker = await chat.markers.read(device(EVE), conversation_id=group.id, seq=99)
    assert marker.seq == 3, "up to their going"
    assert "MESSAGE_READ" not in [x.event for x in await world.log(ANN)]


async def test_who_comes_back_sees_what_comes_from_then_on(world: World) -> None:
    chat = world.process()
    group = await found(chat, BOB, EVE)
    await say(chat, ANN, group, "one")
    await chat.groups.remove(device(ANN), group.id, EVE)
    await say(chat, ANN, group, "two")
    await chat.groups.add(device(ANN), group.id, [EVE])
    await say(chat, ANN, group, "three")
    assert await texts(chat, EVE, group) == ["three"]
    assert (await chat.conversations(EVE, limit=10)).items[0].unread == 1


async def test_a_group_is_named_by_who_leads_it(world: World) -> None:
    chat = world.process()
    group = await found(chat, BOB, EVE)
    assert await refused(chat.groups.rename(device(BOB), group.id, "Mine")) == "FORBIDDEN"
    assert await refused(chat.groups.rename(device(ANN), group.id, "  ")) == "VALIDATION_FAILED"
    await chat.groups.appoint(device(ANN), group.id, BOB, "admin")
    renamed = await chat.groups.rename(device(BOB), group.id, "  All   of us ")
    assert (renamed.name, renamed.version) == ("All of us", 3)
    await chat.groups.rename(device(ANN), group.id, "All of us")
    assert len(await world.numbers(group.id)) == 3, "the same name again changes nothing"


async def test_roles_say_who_adds_and_removes_whom(world: World) -> None:
    chat, people = world.process(), await world.crowd(2)
    group = await found(chat, BOB, EVE, people[0])
    groups = chat.groups
    assert await refused(groups.add(device(BOB), group.id, [people[1]])) == "FORBIDDEN"
    assert await refused(groups.appoint(device(BOB), group.id, EVE, "admin")) == "FORBIDDEN"
    await groups.appoint(device(ANN), group.id, BOB, "admin")
    await groups.appoint(device(ANN), group.id, EVE, "admin")
    await groups.add(device(BOB), group.id, [people[1]])
    assert await refused(groups.remove(device(BOB), group.id, EVE)) == "FORBIDDEN"
    assert await refused(groups.remove(device(BOB), group.id, ANN)) == "FORBIDDEN"
    assert await refused(groups.remove(device(people[0]), group.id, people[1])) == "FORBIDDEN"
    await groups.remove(device(BOB), group.id, people[0])
    await groups.remove(device(ANN), group.id, EVE)
    await groups.remove(device(ANN), group.id, EVE)
    assert await chat.members(group.id) == (ANN, BOB, people[1])
    assert await refused(groups.appoint(device(ANN), group.id, EVE, "admin")) == "USER_UNKNOWN"
    assert await refused(groups.appoint(device(ANN), group.id, ANN, "member")) == "FORBIDDEN"


async def test_an_owner_who_leaves_is_followed_by_the_first_admin_or_the_longest_there(world: World) -> None:
    chat = world.process()
    group = await found(chat, BOB, EVE)
    await chat.groups.appoint(device(ANN), group.id, EVE, "admin")
    after = await chat.groups.leave(device(ANN), group.id)
    assert [after.role_of(one) for one in (ANN, BOB, EVE)] == [None, "member", "owner"]
    after = await chat.groups.remove(device(EVE), group.id, EVE)
    assert after.role_of(BOB) == "owner"
    after = await chat.groups.leave(device(BOB), group.id)
    assert (after.members, after.owner_id) == ((), None)
    assert await refused(chat.groups.leave(device(BOB), group.id)) == "CONVERSATION_UNKNOWN"


async def test_a_group_has_at_most_256_members(world: World) -> None:
    chat, people = world.process(), await world.crowd(MEMBERS_MAX)
    group = await found(chat, *people[: MEMBERS_MAX - 2])
    await chat.groups.add(device(ANN), group.id, [people[-2]])
    with pytest.raises(Refusal) as no:
        await chat.groups.add(device(ANN), group.id, [people[-1]])
    assert (no.value.code, no.value.details) == ("GROUP_FULL", {"most": MEMBERS_MAX})
    await chat.groups.add(device(ANN), group.id, people[:5])
    assert await refused(found(chat, *people)) == "GROUP_FULL"
    written = await say(chat, people[-2], group, "to 255 others")
    assert len(written.readers) == MEMBERS_MAX
    assert len([x for x in await world.log(people[3]) if x.payload.get("text")]) == 1


@pytest.mark.parametrize(
    ("who", "status", "code"),
    [
        (NOBODY, None, "USER_UNKNOWN"),
        (EVE, "deleted", "USER_UNKNOWN"),
        (EVE, "banned", "USER_UNAVAILABLE"),
        (EVE, "has blocked", "USER_UNAVAILABLE"),
        (EVE, "is blocked", "USER_BLOCKED"),
    ],
)
async def test_who_cannot_be_reached_is_not_brought_into_a_group(
    world: World, who: str, status: str | None, code: str
) -> None:
    chat = world.process()
    group = await found(chat, BOB)
    if status == "has blocked":
        await world.users.block(EVE, ANN)
    elif status == "is blocked":
        await world.users.block(ANN, EVE)
    elif status:
        await world.set_status(who, status)
    for work in (chat.groups.add(device(ANN), group.id, [who]), found(chat, BOB, who)):
        with pytest.raises(Refusal) as no:
            await work
        assert (no.value.code, no.value.details) == (code, {"userIds": [who]})
    assert await chat.members(group.id) == (ANN, BOB)


async def test_a_group_of_others_and_a_pair_are_no_group_to_change(world: World) -> None:
    chat = world.process()
    group = await found(chat, BOB)
    pair = (await chat.say(device(ANN), to=BOB, text="hello", op_id="1")).message.conversation_id
    for who, where in ((EVE, group.id), (ANN, pair), (ANN, NOBODY)):
        for work in (
            chat.groups.rename(device(who), where, "Mine"),
            chat.groups.add(device(who), where, [EVE]),
            chat.groups.remove(device(who), where, BOB),
            chat.groups.leave(device(who), where),
            chat.groups.appoint(device(who), where, BOB, "admin"),
        ):
            assert await refused(work) == "CONVERSATION_UNKNOWN"


async def test_e61_between_two_who_blocked_one_another_nothing_passes_in_a_group_or_later(
    world: World,
) -> None:
    chat = world.process()
    group = await found(chat, BOB, EVE)
    await world.users.block(EVE, BOB)
    for user_id in (ANN, BOB, EVE):
        world.doors.connect(user_id, "phone")
    from_bob = await say(chat, BOB, group, "a word from bob")
    from_eve = await say(chat, EVE, group, "a word from eve")
    await chat.typing.begin(device(BOB), group.id)
    await chat.markers.read(device(BOB), conversation_id=group.id, seq=3)
    assert world.doors.told(EVE, "phone") == []
    assert set(world.doors.told(ANN, "phone")) == {"CHAT_MESSAGE", "CHAT_TYPING", "MESSAGE_READ"}
    await world.users.unblock(EVE, BOB)
    world.clock.pass_(60)
    await chat.tell_untold()
    assert await texts(chat, EVE, group) == ["a word from eve"]
    assert await texts(chat, BOB, group) == ["a word from bob"]
    assert await texts(chat, ANN, group) == ["a word from bob", "a word from eve"]
    [listed] = (await chat.conversations(EVE, limit=9)).items
    assert listed.last is not None
    assert (listed.last.message.text, listed.unread) == ("a word from eve", 0)
    assert await chat.unread(EVE) == (0, 0)
    assert [one.message.text for one in (await chat.search(EVE, "word", limit=9)).items] == [
        "a word from eve"
    ]
    assert await refused(chat.evidence(EVE, from_bob.message.id)) == "MESSAGE_UNKNOWN"
    reply = chat.say(
        device(BOB), conversation_id=group.id, text="re", op_id="re", reply_to=from_eve.message.id
    )
    assert await refused(reply) == "MESSAGE_UNKNOWN"
    assert [push["recipients"] for push in world.pusher.said] == [[ANN], [ANN]]
    later = await say(chat, BOB, group, "friends again")
    assert set(later.readers) == {ANN, BOB, EVE}


async def test_a_member_who_muted_a_group_is_told_and_not_pushed_to(world: World) -> None:
    chat = world.process()
    group = await found(chat, BOB, EVE)
    assert (await chat.mute(EVE, group.id, True)).mine.muted
    await say(chat, ANN, group, "hello")
    assert [(push["recipients"], push["title"], push["preview"]) for push in world.pusher.said] == [
        ([BOB], "Us", "hello")
    ]
    assert "hello" in [x["text"] for x in told(await world.log(EVE), "CHAT_MESSAGE")]
    await chat.mute(EVE, group.id, False)
    await say(chat, ANN, group, "again")
    assert world.pusher.said[-1]["recipients"] == sorted([BOB, EVE])
    assert await refused(chat.mute(EVE, NOBODY, True)) == "CONVERSATION_UNKNOWN"

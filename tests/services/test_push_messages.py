"""Messages as pushes: one notification per conversation, none for what was read or is on screen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from models.db import Database
from models.notify.messages.service import BUNDLES_PER_SECOND_MAX
from models.notify.messages.store import BUNDLES
from models.notify.rules import LEASE_SECONDS
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Killed, Mortal
from tests.services.pushkit import ANN, BOB, CALL, CHAT, PHONE, TABLET, World, pushing


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds) -> AsyncIterator[World]:
    async with pushing(db, clock, ids) as built:
        yield built


async def test_a_message_is_told_with_all_that_a_notification_needs(world: World) -> None:
    pushes = world.process()
    await world.write(pushes, 7, "see you")
    assert await pushes.messages.run_due() == 0, "it waits a moment for others"
    world.clock.pass_(1)
    assert await pushes.messages.run_due() == 1
    assert world.expo.pushed == [
        {
            "to": PHONE,
            "title": "Ann",
            "body": "see you",
            "sound": "default",
            "priority": "high",
            "ttl": 7 * 24 * 3600,
            "channelId": "messages",
            "collapseId": CHAT,
            "data": {
                "type": "message",
                "conversationId": CHAT,
                "messageId": "m7",
                "seq": 7,
                "count": 1,
                "sender": ANN,
            },
        }
    ]


async def test_a_burst_is_one_notification_and_what_follows_another(world: World) -> None:
    pushes, other = world.process(), world.process()
    for seq in range(1, 4):
        await world.write(pushes if seq % 2 else other, seq, f"line {seq}")
        world.clock.pass_(0.3)
    world.clock.pass_(0.1)
    await asyncio.gather(pushes.messages.run_due(), other.messages.run_due())
    assert world.bodies() == ["3 new messages\nline 3"]
    for seq in range(4, 9):
        world.clock.pass_(0.9)
        await world.write(pushes, seq, f"line {seq}")
        await pushes.messages.run_due()
    assert len(world.bodies()) == 1, "the phone buzzed a moment ago"
    world.clock.pass_(1)
    await pushes.messages.run_due()
    assert world.bodies()[1:] == ["5 new messages\nline 8"]
    assert {message["collapseId"] for message in world.expo.pushed} == {CHAT}


async def test_conversations_are_told_apart(world: World) -> None:
    pushes = world.process()
    await world.write(pushes, 1, "here", chat="c1")
    await world.write(pushes, 1, "there", chat="c2")
    world.clock.pass_(1)
    await pushes.messages.run_due()
    assert sorted(world.bodies()) == ["here", "there"]


async def test_a_group_has_its_name_and_says_who_wrote(world: World) -> None:
    pushes = world.process()
    await world.write(pushes, 1, "hello", title="Family")
    world.clock.pass_(1)
    await pushes.messages.run_due()
    (message,) = world.expo.pushed
    assert (message["title"], message["body"]) == ("Family", "Ann: hello")


async def test_what_is_encrypted_is_told_without_its_words(world: World) -> None:
    pushes = world.process()
    await world.write(pushes, 1, None)
    world.clock.pass_(1)
    await pushes.messages.run_due()
    await world.write(pushes, 2, None)
    await world.write(pushes, 3, None)
    world.clock.pass_(5)
    await pushes.messages.run_due()
    assert world.bodies() == ["New message", "2 new messages"]


async def test_e57_a_message_that_is_told_to_us_again_is_pushed_once(world: World) -> None:
    pushes, other = world.process(), world.process()
    await asyncio.gather(*(world.write(process, 1) for process in (pushes, other) * 10))
    world.clock.pass_(1)
    await pushes.messages.run_due()
    await world.write(other, 1)
    world.clock.pass_(60)
    assert await other.messages.run_due() == 0
    assert world.bodies() == ["hello"]
    await world.write(other, 2, "next")
    world.clock.pass_(1)
    await other.messages.run_due()
    assert world.bodies() == ["hello", "next"]


async def test_what_was_written_out_of_order_is_told_by_the_youngest(world: World) -> None:
    pushes = world.process()
    await world.write(pushes, 3, "third")
    await world.write(pushes, 1, "first")
    world.clock.pass_(1)
    await pushes.messages.run_due()
    assert world.bodies() == ["2 new messages\nthird"]
    await world.write(pushes, 2, "second")
    world.clock.pass_(60)
    assert await pushes.messages.run_due() == 0


async def test_what_was_read_meanwhile_is_not_told(world: World) -> None:
    pushes = world.process()
    await world.write(pushes, 1)
    await world.write(pushes, 2)
    await pushes.message_read(user_id=BOB, conversation_id=CHAT, seq=2)
    world.clock.pass_(1)
    assert await pushes.messages.run_due() == 0
    await world.write(pushes, 3, "unread")
    world.clock.pass_(1)
    await pushes.messages.run_due()
    assert world.bodies() == ["unread"]


async def test_what_was_read_in_part_is_told_for_the_rest(world: World) -> None:
    pushes = world.process()
    for seq in (1, 2, 3):
        await world.write(pushes, seq, f"line {seq}")
    await pushes.message_read(user_id=BOB, conversation_id=CHAT, seq=2)
    world.clock.pass_(1)
    await pushes.messages.run_due()
    assert world.bodies() == ["line 3"]


async def test_a_message_that_was_read_before_it_was_told_to_us_is_never_told(world: World) -> None:
    pushes = world.process()
    await pushes.message_read(user_id=BOB, conversation_id=CHAT, seq=4)
    await pushes.message_read(user_id=BOB, conversation_id=CHAT, seq=2)
    await world.write(pushes, 4)
    world.clock.pass_(60)
    assert await pushes.messages.run_due() == 0


async def test_what_is_read_while_the_provider_is_away_is_not_told_when_it_is_back(world: World) -> None:
    world.expo.mode = "down"
    pushes = world.process()
    await world.write(pushes, 1)
    world.clock.pass_(1)
    assert await pushes.messages.run_due() == 1
    await pushes.message_read(user_id=BOB, conversation_id=CHAT, seq=1)
    world.expo.mode = "ok"
    world.clock.pass_(600)
    assert await pushes.messages.run_due() == 0


async def test_a_device_that_shows_the_conversation_is_left_in_peace_and_the_others_are_not(
    world: World,
) -> None:
    world.drawer.put(BOB, TABLET)
    world.looking = {(BOB, CHAT): {f"d:{PHONE}"}}
    pushes = world.process()
    await world.write(pushes, 1)
    world.clock.pass_(1)
    await pushes.messages.run_due()
    assert world.told() == [(TABLET, "message")]
    world.looking = {(BOB, CHAT): {f"d:{PHONE}", f"d:{TABLET}"}}
    await world.write(pushes, 2)
    world.clock.pass_(60)
    assert await pushes.messages.run_due() == 1
    world.looking = {}
    world.clock.pass_(60)
    assert await pushes.messages.run_due() == 0, "who saw it is not told later"
    assert world.told() == [(TABLET, "message")]


async def test_only_the_devices_that_were_not_reached_are_tried_again(world: World) -> None:
    world.drawer.put(BOB, TABLET)
    world.expo.ticket_errors = {TABLET: "MessageRateExceeded"}
    pushes = world.process()
    await world.write(pushes, 1, "first")
    world.clock.pass_(1)
    await pushes.messages.run_due()
    world.expo.ticket_errors = {}
    world.clock.pass_(2)
    await pushes.messages.run_due()
    assert [token for token, _ in world.told()] == [PHONE, TABLET, TABLET]
    # … unless something new came: then the one that was reached is told of that.
    world.expo.ticket_errors = {TABLET: "MessageRateExceeded"}
    await world.write(pushes, 2, "second")
    world.clock.pass_(5)
    await pushes.messages.run_due()
    world.expo.ticket_errors = {}
    await world.write(pushes, 3, "third")
    world.clock.pass_(5)
    await pushes.messages.run_due()
    assert [token for token, _ in world.told()][3:] == [PHONE, TABLET, PHONE, TABLET]
    assert world.bodies()[-1] == "2 new messages\nthird"


async def test_what_was_written_is_kept_only_until_it_is_told_or_read(world: World) -> None:
    pushes = world.process()
    await world.write(pushes, 1, "a secret")
    world.clock.pass_(1)
    await pushes.messages.run_due()
    await world.write(pushes, 1, "a secret", chat="c2")
    await pushes.message_read(user_id=BOB, conversation_id="c2", seq=1)
    rows = await world.db[BUNDLES].find({}).to_list()
    assert len(rows) == 2
    assert "a secret" not in str(rows)
    assert all("due_at" not in row for row in rows)


async def test_nothing_is_kept_for_who_has_no_token(world: World) -> None:
    pushes = world.process()
    await world.write(pushes, 1, to=("nobody", "nowhere"))
    await pushes.message_read(user_id="nobody", conversation_id=CHAT, seq=1)
    assert await world.db[BUNDLES].count_documents({}) == 0


async def test_waits_grow_and_after_hours_it_is_left(world: World) -> None:
    world.expo.mode = "down"
    pushes = world.process()
    await world.write(pushes, 1)
    for _ in range(3 * 6):
        world.clock.pass_(20 * 60)
        await pushes.messages.run_due()
    assert world.expo.asked == 17
    assert await world.db[BUNDLES].find_one({"due_at": {"$exists": True}}) is None
    world.expo.mode = "ok"
    await world.write(pushes, 2, "after all")
    world.clock.pass_(5)
    await pushes.messages.run_due()
    assert world.bodies() == ["after all"], "what was given up is not told with it"


async def test_what_people_write_is_not_read_as_a_field_of_the_database(world: World) -> None:
    pushes = world.process()
    await world.write(pushes, 1, "$lease", chat="$user_id", title="$$ROOT")
    world.clock.pass_(1)
    await pushes.messages.run_due()
    (message,) = world.expo.pushed
    assert (message["title"], message["body"]) == ("$$ROOT", "Ann: $lease")
    assert message["data"]["conversationId"] == "$user_id"


async def test_of_very_many_the_notification_says_so(world: World) -> None:
    pushes = world.process()
    for seq in range(1, 151):
        await world.write(pushes, seq, "again")
    world.clock.pass_(1)
    await pushes.messages.run_due()
    assert world.bodies() == ["99+ new messages\nagain"]


async def test_e20_a_ring_is_delayed_neither_by_a_backlog_of_messages_nor_by_their_hanging(
    world: World,
) -> None:
    people = [f"p{n}" for n in range(500)]
    for name in people:
        world.drawer.put(name, f"ExponentPushToken[{name}]")
    pushes = world.process()
    await world.write(pushes, 1, to=people)
    world.clock.pass_(1)
    world.expo.hold, world.expo.holds = asyncio.Event(), "message"
    backlog = [asyncio.create_task(pushes.messages.run_due()) for _ in range(4)]
    await world.expo.arrived.wait()
    await world.ring(pushes)
    await pushes.run_due()
    assert world.told() == [(PHONE, "incoming_call")]
    assert not any(task.done() for task in backlog)
    world.expo.hold.set()
    assert sum(await asyncio.gather(*backlog)) == BUNDLES_PER_SECOND_MAX, (
        "and a second of Expo's is not filled"
    )
    for _ in range(2):
        world.clock.pass_(1)
        await pushes.messages.run_due()
    assert len(world.told()) == 501


async def test_a_crash_at_any_await_loses_no_message_and_tells_none_of_another_conversation(
    world: World,
) -> None:
    for dies_at in range(1, 20):
        life = Mortal(world.db)
        chat = f"c{dies_at}"
        dying, heir = world.process(db=life), world.process()
        world.expo.requests.clear()
        await world.write(heir, 1, "still here", chat=chat)
        world.clock.pass_(1)
        life.dies_at = dies_at
        try:
            await dying.messages.run_due()
        except Killed:
            pass
        else:
            break
        world.clock.pass_(LEASE_SECONDS)
        await heir.messages.run_due()
        world.clock.pass_(LEASE_SECONDS)
        assert await heir.messages.run_due() == 0
        told = [message["data"]["conversationId"] for message in world.expo.pushed]
        assert told in ([chat], [chat, chat]), f"died at {dies_at}"
        assert {message["data"]["messageId"] for message in world.expo.pushed} == {"m1"}
    else:
        pytest.fail("it never got through")
    assert dies_at > 4


async def test_a_crash_while_a_message_is_kept_is_made_good_by_telling_again(world: World) -> None:
    life = Mortal(world.db)
    life.dies_at = 1
    with pytest.raises(Killed):
        await world.write(world.process(db=life), 1)
    pushes = world.process()
    await world.write(pushes, 1)
    world.clock.pass_(1)
    await pushes.messages.run_due()
    assert world.bodies() == ["hello"]
    assert CALL not in world.bodies()

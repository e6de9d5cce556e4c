"""Guards of single writes and reads: what happens in between is not overwritten, and nobody is told by an old look."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from models.chat.conversations.store import ConversationStore
from models.chat.rules import pair_id
from models.db import Database
from models.notify.messages.bundle import News
from models.notify.messages.store import BundleStore
from models.notify.rings.store import RingStore
from models.notify.rings.todo import What
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services.chat_house import ANN, BOB, EVE, World, build, device, told

PAIR = pair_id(ANN, BOB)


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors) -> World:
    return await build(db, clock, ids, doors)


async def test_a_group_is_read_after_its_newest_number(world: World) -> None:
    """Eve is removed between the two reads of a process that has not dealt with the group before."""
    group = await world.process().groups.found(device(ANN), name="Us", user_ids=[BOB, EVE], op_id=None)
    fresh, other = world.machine("fresh"), world.process()
    rows = fresh.chat._sending._rows
    removed = False

    def then_remove(read: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def reading(*args: Any) -> Any:
            nonlocal removed
            found = await read(*args)
            if not removed:
                removed = True
                await other.groups.remove(device(ANN), group.id, EVE)
            return found

        return reading

    rows._messages.head = then_remove(rows._messages.head)  # type: ignore[method-assign]
    rows._conversations.find = then_remove(rows._conversations.find)  # type: ignore[method-assign]
    written = await fresh.chat.say(device(ANN), conversation_id=group.id, text="without eve", op_id="1")
    assert (written.message.seq, set(written.readers)) == (3, {ANN, BOB})
    assert "without eve" not in [x["text"] for x in told(await world.log(EVE), "CHAT_MESSAGE")]


async def test_who_was_out_when_a_message_was_sent_hears_of_no_deletion(world: World) -> None:
    chat = world.process()
    group = await chat.groups.found(device(ANN), name="Us", user_ids=[BOB, EVE], op_id=None)
    await chat.groups.remove(device(ANN), group.id, EVE)
    written = await chat.say(device(ANN), conversation_id=group.id, text="x", op_id="1")
    await chat.delete(ANN, written.message.id)
    assert told(await world.log(EVE), "MESSAGE_DELETE") == []
    assert len(told(await world.log(BOB), "MESSAGE_DELETE")) == 1


@pytest.mark.parametrize("what", ["delivered", "read"])
async def test_a_marker_that_has_moved_on_is_not_told_by_the_telling_of_an_older_one(
    world: World, what: str
) -> None:
    chat = world.process()
    for n in range(5):
        await chat.say(device(ANN), to=BOB, text=f"{n}", op_id=f"{n}")
    store = ConversationStore(world.db)
    place = await store.membership(PAIR, BOB)
    assert place is not None
    now = world.clock.now()
    moved = [
        await store.mark(place, delivered_seq=seq, read_seq=seq if what == "read" else None, now=now)
        for seq in (2, 4)
    ]
    assert moved[0] is not None
    assert moved[1] is not None
    await store.marks_told(moved[0])
    after = await store.membership(PAIR, BOB)
    assert after is not None
    assert after.untold
    await store.marks_told(moved[1])
    after = await store.membership(PAIR, BOB)
    assert after is not None
    assert not after.untold


async def test_a_worker_that_was_taken_for_dead_finishes_no_bundle(db: Database, clock: VirtualClock) -> None:
    store = BundleStore(db)
    news = News(message_id="m1", seq=1, sender={}, preview="x", title=None)
    await store.add(news, conversation_id="c", user_ids=[BOB], now=clock.now())
    bundles = []
    for lease in ("one", "two"):
        now = clock.pass_(60)
        bundles.append(await store.claim(now, lease=lease, lease_until=now + timedelta(seconds=20)))
    one, two = bundles
    assert one is not None
    assert two is not None
    assert not await store.finish(one, now=clock.now())
    row = await db["push_messages"].find_one({})
    assert row is not None
    assert (row["lease"], row["waiting"], "due_at" in row) == ("two", [1], True)
    assert await store.finish(two, now=clock.now())


@pytest.mark.parametrize("what", ["taken back", "another worker's"])
async def test_no_ring_goes_out_that_was_taken_back_or_is_another_workers(
    db: Database, clock: VirtualClock, what: str
) -> None:
    store = RingStore(db)
    about: dict[str, Any] = {"call_id": "c", "call_type": "audio", "caller": {}, "callee_id": BOB}
    now = clock.now()
    await store.add_ring(**about, rings_until=now + timedelta(seconds=45), now=now)

    async def claimed(lease: str) -> Any:
        now = clock.now()
        return await store.claim([What.RING], now, lease=lease, lease_until=now + timedelta(seconds=20))

    todo = await claimed("one")
    if what == "taken back":
        late = now + timedelta(minutes=1)
        await store.turn_into(What.CANCELLED, **about, give_up_at=late, answered_on=None, now=now)
    else:
        clock.pass_(21)
        other = await claimed("two")
        assert await store.begin_ring(other)
    assert not await store.begin_ring(todo)

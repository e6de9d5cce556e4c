"""Many at once, at several processes: one dense row of numbers, each message once, and few exchanges."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from models.chat.rules import pair_id
from models.db import Database
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services.callkit import Killed
from tests.services.chat_house import ANN, BOB, EVE, World, build, device, refused, told


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors) -> World:
    return await build(db, clock, ids, doors)


async def group_of(world: World, *others: str, by: str = ANN) -> str:
    group = await world.process().groups.found(device(by), name="Us", user_ids=others, op_id=None)
    return group.id


async def test_e58_a_thousand_senders_at_once_at_two_processes_share_one_dense_row(world: World) -> None:
    """Eight people with 125 devices each, all of whom write at the same moment."""
    people = [ANN, BOB, EVE, *await world.crowd(5)]
    group_id = await group_of(world, *people[1:])
    machines = [world.machine("p1"), world.machine("p2")]
    for machine in machines:
        for user_id in people:
            machine.doors.connect(user_id, "reader")
    began = monotonic()
    written = await asyncio.gather(
        *(
            machines[n % 2].chat.say(
                device(people[n % 8], f"device {n // 8}"),
                conversation_id=group_id,
                text=f"message {n}",
                op_id=f"{n // 8}",
            )
            for n in range(1000)
        )
    )
    took = monotonic() - began
    assert sorted(one.message.seq for one in written) == list(range(2, 1002))
    assert await world.numbers(group_id) == list(range(1, 1002))
    rows: list[list[tuple[int, str]]] = []
    for user_id in people:
        seen = []
        for start in (0, 200, 400, 600, 800, 1000):
            page = await machines[0].chat.messages(user_id, group_id, after=start, limit=200)
            seen += [(one.message.seq, one.message.id) for one in page.items]
        rows.append(seen)
    assert all(row == rows[0] for row in rows), "the same order for all readers"
    # Each reader's log has each message once; within a process, letters are told in the order of their numbers.
    for user_id in people:
        query = {"user_id": user_id, "event": "CHAT_MESSAGE"}
        numbers = [row["payload"]["seq"] async for row in world.db["letters"].find(query)]
        assert sorted(numbers) == list(range(1, 1002))
        for machine in machines:
            heard = [x["seq"] for x in told(machine.doors.devices[user_id, "reader"], "CHAT_MESSAGE")]
            assert heard == sorted(heard)
    assert took < 30, "in a few seconds, on a machine with nothing else to do"


async def test_within_a_process_everybodys_log_has_the_messages_in_order_without_a_hole(world: World) -> None:
    inbox = world.doors.connect(BOB, "phone")
    chat = world.process()
    await asyncio.gather(
        *(
            chat.say(device((ANN, BOB)[n % 2], f"d{n}"), to=(BOB, ANN)[n % 2], text=f"{n}", op_id=f"{n}")
            for n in range(250)
        )
    )
    assert [letter["seq"] for letter in told(inbox, "CHAT_MESSAGE")] == list(range(1, 251))
    log = await world.log(ANN)
    assert [letter.payload["seq"] for letter in log] == list(range(1, 251))


async def test_what_waits_for_its_turn_goes_together(world: World) -> None:
    machine = world.machine("p1")
    await machine.chat.say(device(ANN), to=BOB, text="first", op_id="0")
    before = machine.life.calls
    await asyncio.gather(
        *(machine.chat.say(device(ANN), to=BOB, text=f"{n}", op_id=f"n{n}") for n in range(200))
    )
    spent = machine.life.calls - before
    assert spent <= 3 * 7, "200 messages in three turns: one, a hundred, the rest"


async def test_a_message_costs_seven_exchanges_in_four_steps(world: World) -> None:
    """Two reads (people, blocks), the message, its letters with the row's newest number and who is muted, done."""
    machine = world.machine("p1")
    for n in (1, 2):  # the first one begins the conversation and learns the heads of the logs
        await machine.chat.say(device(ANN), to=BOB, text="hello", op_id=f"{n}")
    before = machine.life.calls
    await machine.chat.say(device(ANN), to=BOB, text="hello", op_id="3")
    assert machine.life.calls - before == 7

    group_id = await group_of(world, *await world.crowd(40))
    await machine.chat.say(device(ANN), conversation_id=group_id, text="hello", op_id="4")
    before = machine.life.calls
    await machine.chat.say(device(ANN), conversation_id=group_id, text="hello", op_id="5")
    assert machine.life.calls - before == 7, "of a group as of a pair"


async def test_e57_a_retry_at_another_process_after_a_lost_ack_is_one_message_one_number_one_push(
    world: World,
) -> None:
    one, two = world.machine("p1"), world.machine("p2")
    phones = [machine.doors.connect(BOB, machine.name) for machine in (one, two)]
    first = await one.chat.say(device(ANN), to=BOB, text="hello", op_id="1")
    again = await two.chat.say(device(ANN), to=BOB, text="hello", op_id="1")
    assert again.message == first.message
    assert await world.numbers(pair_id(ANN, BOB)) == [1]
    assert [push["message_id"] for push in world.pusher.said] == [first.message.id]
    await two.mailbox.fetch()
    assert [[x["id"] for x in told(inbox, "CHAT_MESSAGE")] for inbox in phones] == [[first.message.id]] * 2
    assert len(await world.log(BOB)) == 1


async def test_e57_the_same_opid_at_four_processes_and_twice_in_one_turn_is_one_message(world: World) -> None:
    chats = [world.process() for _ in range(4)]
    answers = await asyncio.gather(
        *(chats[n % 4].say(device(ANN), to=BOB, text="hello", op_id="1") for n in range(12))
    )
    assert len({one.message.id for one in answers}) == 1
    assert await world.numbers(pair_id(ANN, BOB)) == [1]


async def test_one_that_is_refused_does_not_hold_up_those_who_wait_with_it(world: World) -> None:
    group_id = await group_of(world, BOB)
    chat = world.process()
    results = await asyncio.gather(
        *(
            chat.say(device(who), conversation_id=group_id, text="hello", op_id=f"{n}")
            for n, who in enumerate((ANN, EVE, BOB, EVE, ANN))
        ),
        return_exceptions=True,
    )
    assert [getattr(one, "code", None) for one in results] == [
        *(None, "CONVERSATION_UNKNOWN", None, "CONVERSATION_UNKNOWN", None)
    ]
    assert await world.numbers(group_id) == [1, 2, 3, 4]


async def test_what_a_dead_process_left_untold_is_told_before_anything_newer(world: World) -> None:
    """Its successor hears from somebody else first; each log has the messages in the order of their numbers."""
    group_id = await group_of(world, BOB, EVE)
    dead, heir = world.machine("p1"), world.machine("p2")
    await dead.chat.say(device(ANN), conversation_id=group_id, text="0", op_id="0")

    async def dies(*_: object, **__: object) -> None:
        raise Killed

    dead.mailbox.post = dies  # type: ignore[method-assign]
    for n in range(1, 4):
        with pytest.raises(Killed):
            await dead.chat.say(device(ANN), conversation_id=group_id, text=f"{n}", op_id=f"{n}")
    await heir.chat.say(device(BOB), conversation_id=group_id, text="4", op_id="4")
    for user_id in (ANN, BOB, EVE):
        assert [x["text"] for x in told(await world.log(user_id), "CHAT_MESSAGE")][1:] == list("01234")


async def test_who_is_removed_at_another_process_sees_nothing_of_what_comes_after(world: World) -> None:
    """The process of the sender remembers the group with Eve in it."""
    group_id = await group_of(world, BOB, EVE)
    one, two = world.machine("p1"), world.machine("p2")
    await one.chat.say(device(ANN), conversation_id=group_id, text="with eve", op_id="1")
    await two.chat.groups.remove(device(ANN), group_id, EVE)
    await one.chat.say(device(ANN), conversation_id=group_id, text="without eve", op_id="2")
    assert "without eve" not in [x.get("text") for x in told(await world.log(EVE), "CHAT_MESSAGE")]
    assert "without eve" in [x.get("text") for x in told(await world.log(BOB), "CHAT_MESSAGE")]
    assert await refused(one.chat.say(device(EVE), conversation_id=group_id, text="?", op_id="3")) == (
        "CONVERSATION_UNKNOWN"
    )


async def test_who_is_added_at_another_process_may_write_here_at_once(world: World) -> None:
    group_id = await group_of(world, BOB)
    one, two = world.machine("p1"), world.machine("p2")
    await one.chat.say(device(ANN), conversation_id=group_id, text="before", op_id="1")
    await two.chat.groups.add(device(ANN), group_id, [EVE])
    written = await one.chat.say(device(EVE), conversation_id=group_id, text="here I am", op_id="2")
    assert set(written.readers) == {ANN, BOB, EVE}


async def test_changes_of_a_group_and_messages_at_two_processes_share_the_row(world: World) -> None:
    people = await world.crowd(20)
    group_id = await group_of(world, BOB)
    one, two = world.machine("p1"), world.machine("p2")
    await asyncio.gather(
        *(
            one.chat.say(device(ANN, f"d{n}"), conversation_id=group_id, text=f"{n}", op_id=f"{n}")
            for n in range(40)
        ),
        *(two.chat.groups.add(device(ANN), group_id, [user_id]) for user_id in people[:10]),
        *(one.chat.groups.add(device(ANN), group_id, [user_id]) for user_id in people[10:]),
    )
    assert await world.numbers(group_id) == list(range(1, 62))
    assert set(await one.chat.members(group_id)) == {ANN, BOB, *people}
    # Whoever was added has heard what came after that, and nothing of what came before.
    for user_id in people:
        page = await one.chat.messages(user_id, group_id, limit=200)
        seen = sorted(one.message.seq for one in page.items)
        heard = sorted(x["seq"] for x in told(await world.log(user_id), "CHAT_MESSAGE"))
        assert heard == seen == list(range(seen[0], 62))


async def test_a_sender_who_is_cancelled_in_the_middle_leaves_the_others_in_peace(world: World) -> None:
    chat = world.process()
    # A driver that is cancelled while it connects leaves its socket open: here nobody has to connect.
    await _connections(world.db, 12)
    first = asyncio.ensure_future(chat.say(device(ANN), to=BOB, text="0", op_id="0"))
    others = [
        asyncio.ensure_future(chat.say(device(BOB), to=ANN, text=f"{n}", op_id=f"{n}")) for n in range(5)
    ]
    while not await world.numbers(pair_id(ANN, BOB)):
        await world.db.ping()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    written = await asyncio.gather(*others)
    assert [one.message.seq for one in written] == [2, 3, 4, 5, 6]


async def _connections(db: Database, count: int) -> None:
    """Open that many: each is busy while the others open, with a question to which there is no answer for a while."""
    known = (await db.db.command("hello"))["topologyVersion"]
    wait = {"topologyVersion": known, "maxAwaitTimeMS": 100}
    await asyncio.gather(*(db.db.command("hello", **wait) for _ in range(count)))

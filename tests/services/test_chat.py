"""Chat with a real database: sent once, in order, told to the right devices, never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from handlers.chat_views import CHAT_MESSAGE, ChatTeller
from models.chat.conversations.conversation import Conversation
from models.chat.ports import Written
from models.chat.rules import pair_id
from models.chat.service import ChatStores
from models.chat.store import TELL_SECONDS
from models.db import Database
from models.ports import Letter
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services.chat_house import ANN, BOB, EVE, NOBODY, World, build, device, refused


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Dying:
    """An announcer of a process that ends after posting ``posts`` letters."""

    world: World
    posts: int

    async def announce(self, conversation: Conversation, written: Sequence[Written], *, again: bool) -> None:
        class Some:
            async def post(_, letters: list[Letter], *, again: bool = False) -> None:
                await self.world.mailbox.post(letters[: self.posts], again=again)
                raise Killed

        teller: ChatTeller = self.world.teller(Some())
        await teller.announce(conversation, written, again=again)


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors) -> World:
    return await build(db, clock, ids, doors)


async def test_a_message_reaches_every_device_but_the_one_that_has_the_answer(world: World) -> None:
    for user_id in (ANN, BOB):
        for name in ("phone", "tablet"):
            world.doors.connect(user_id, name)
    written = await world.process().say(device(ANN), to=BOB, text="hello", op_id="1")
    assert world.doors.told(ANN, "phone") == []
    assert world.doors.told(ANN, "tablet") == [CHAT_MESSAGE]
    assert world.doors.told(BOB, "phone") == world.doors.told(BOB, "tablet") == [CHAT_MESSAGE]
    assert world.doors.last(BOB, "phone", CHAT_MESSAGE) == {
        "id": written.message.id,
        "conversationId": pair_id(ANN, BOB),
        "seq": 1,
        "version": 1,
        "sender": {
            "id": ANN,
            "username": "ann",
            "displayName": "Ann",
            "avatarUrl": None,
            "presence": "online",
            "ratePerMinuteMinor": None,
            "videoRatePerMinuteMinor": None,
            "currency": "NGN",
        },
        "text": "hello",
        "attachment": None,
        "replyTo": None,
        "encrypted": False,
        "ciphertext": None,
        "note": None,
        "createdAt": "2026-03-01T12:00:00.000Z",
        "editedAt": None,
        "deletedAt": None,
    }


async def test_e62_only_the_senders_own_devices_see_the_op_id(world: World) -> None:
    world.doors.connect(ANN, "tablet")
    world.doors.connect(BOB, "phone")
    await world.process().say(device(ANN), to=BOB, text="hello", op_id="mine")
    assert world.doors.last(ANN, "tablet", CHAT_MESSAGE)["opId"] == "mine"
    assert "opId" not in world.doors.last(BOB, "phone", CHAT_MESSAGE)


async def test_numbers_are_dense_in_one_conversation_from_both_sides(world: World) -> None:
    chat = world.process()
    first = await chat.say(device(ANN), to=BOB, text="1", op_id="a1")
    second = await chat.say(device(BOB), to=ANN, text="2", op_id="b1")
    third = await chat.say(device(BOB), conversation_id=first.message.conversation_id, text="3", op_id="b2")
    other = await chat.say(device(EVE), to=BOB, text="1", op_id="e1")
    assert [w.message.seq for w in (first, second, third, other)] == [1, 2, 3, 1]
    assert {w.message.conversation_id for w in (first, second, third)} == {pair_id(ANN, BOB)}


async def test_messages_sent_at_once_keep_their_order_for_every_reader(world: World) -> None:
    inbox, own = world.doors.connect(BOB, "phone"), world.doors.connect(ANN, "tablet")
    chat = world.process()
    sent = await asyncio.gather(
        *(chat.say(device(ANN), to=BOB, text=str(n), op_id=f"{n}") for n in range(20))
    )
    assert [w.message.seq for w in sent] == list(range(1, 21))
    assert [letter.payload["text"] for letter in inbox] == [str(n) for n in range(20)]
    assert [letter.payload["seq"] for letter in own] == list(range(1, 21))


async def test_e58_senders_at_several_processes_share_one_dense_row_of_numbers(world: World) -> None:
    processes = [world.process() for _ in range(4)]
    senders = (ANN, BOB)
    await asyncio.gather(
        *(
            processes[n % 4].say(device(senders[n % 2]), to=senders[1 - n % 2], text=str(n), op_id=str(n))
            for n in range(40)
        )
    )
    page = await processes[0].history(ANN, BOB, before=None, limit=200)
    assert [w.message.seq for w in page.items] == list(range(40, 0, -1))
    assert {w.message.text for w in page.items} == {str(n) for n in range(40)}


async def test_e57_a_resend_gets_the_first_message_and_tells_nobody_again(world: World) -> None:
    inbox = world.doors.connect(BOB, "phone")
    first = await world.process().say(device(ANN), to=BOB, text="hello", op_id="1")
    world.clock.pass_(3 * 24 * 3600)
    again = await world.process().say(device(ANN, "tablet"), to=BOB, text="hello", op_id="1")
    assert again.message == first.message
    assert len(inbox) == 1


async def test_e57_resends_at_the_same_time_at_two_processes_make_one_message(world: World) -> None:
    one, two = world.process(), world.process()
    answers = await asyncio.gather(
        *(chat.say(device(ANN), to=BOB, text="hello", op_id="1") for chat in (one, two, one, two))
    )
    assert len({w.message.id for w in answers}) == 1
    page = await one.history(ANN, BOB, before=None, limit=10)
    assert [w.message.seq for w in page.items] == [1]


async def test_the_same_op_id_for_something_else_is_refused(world: World) -> None:
    chat = world.process()
    await chat.say(device(ANN), to=BOB, text="hello", op_id="1")
    assert await refused(chat.say(device(ANN), to=BOB, text="other", op_id="1")) == "IDEMPOTENCY_MISMATCH"
    assert await refused(chat.say(device(ANN), to=EVE, text="hello", op_id="1")) == "IDEMPOTENCY_MISMATCH"
    assert (await chat.say(device(BOB), to=ANN, text="mine", op_id="1")).message.seq == 2


@pytest.mark.parametrize("posts", [0, 1, 2])
async def test_a_message_whose_process_died_while_telling_is_told_by_a_job(world: World, posts: int) -> None:
    inbox = world.doors.connect(BOB, "phone")
    dying = world.process(Dying(world, posts))
    with pytest.raises(Killed):
        await dying.say(device(ANN), to=BOB, text="hello", op_id="1")
    heir = world.process()
    assert await heir.tell_untold() == 0, "its sender may still be at it"
    world.clock.pass_(TELL_SECONDS)
    assert await heir.tell_untold() == 1
    assert await heir.tell_untold() == 0
    assert {letter.payload["text"] for letter in inbox} == {"hello"}
    for user_id in (ANN, BOB):
        missed = await world.mailbox.missed(user_id, "another", 0)
        assert [(letter.event, letter.seq) for letter in missed.letters] == [(CHAT_MESSAGE, 1)]


@pytest.mark.parametrize("posts", [0, 1, 2])
async def test_a_message_whose_process_died_while_telling_is_told_by_its_senders_retry(
    world: World, posts: int
) -> None:
    dying = world.process(Dying(world, posts))
    with pytest.raises(Killed):
        await dying.say(device(ANN), to=BOB, text="hello", op_id="1")
    heir = world.process()
    again = await heir.say(device(ANN), to=BOB, text="hello", op_id="1")
    assert again.message.seq == 1
    world.clock.pass_(TELL_SECONDS)
    assert await heir.tell_untold() == 0
    for user_id in (ANN, BOB):
        missed = await world.mailbox.missed(user_id, "another", 0)
        assert [letter.event for letter in missed.letters] == [CHAT_MESSAGE]


async def test_a_conversation_that_was_begun_without_a_message_goes_on_with_the_first(world: World) -> None:
    """Killed between the two writes of a first message."""
    members = (ANN, BOB)
    await ChatStores(world.db).conversations.begin(
        Conversation(id=pair_id(ANN, BOB), members=members), world.clock.now()
    )
    assert (await world.process().say(device(BOB), to=ANN, text="hello", op_id="1")).message.seq == 1


async def test_a_device_that_was_away_gets_the_message_by_replay(world: World) -> None:
    chat = world.process()
    await chat.say(device(ANN), to=BOB, text="1", op_id="1")
    await chat.say(device(ANN), to=BOB, text="2", op_id="2")
    missed = await world.mailbox.missed(BOB, "phone", 1)
    assert [letter.payload["text"] for letter in missed.letters] == ["2"]


async def test_e61_a_block_stops_messages_both_ways_and_nothing_arrives_at_the_unblock(world: World) -> None:
    chat = world.process()
    inbox = world.doors.connect(BOB, "phone")
    first = await chat.say(device(ANN), to=BOB, text="before", op_id="1")
    await world.users.block(BOB, ANN)
    assert await refused(chat.say(device(ANN), to=BOB, text="no", op_id="2")) == "USER_UNAVAILABLE"
    assert await refused(chat.say(device(BOB), to=ANN, text="no", op_id="1")) == "USER_BLOCKED"
    conversation_id = first.message.conversation_id
    by_conversation = chat.say(device(ANN), conversation_id=conversation_id, text="no", op_id="3")
    assert await refused(by_conversation) == "USER_UNAVAILABLE"
    assert (await chat.say(device(ANN), to=BOB, text="before", op_id="1")).message == first.message
    await world.users.unblock(BOB, ANN)
    world.clock.pass_(60)
    await chat.tell_untold()
    assert [letter.payload["text"] for letter in inbox] == ["before"]


@pytest.mark.parametrize(
    ("to", "status", "code"),
    [
        (NOBODY, None, "USER_UNKNOWN"),
        ("not an id", None, "USER_UNKNOWN"),
        (BOB, "deleted", "USER_UNKNOWN"),
        (BOB, "banned", "USER_UNAVAILABLE"),
        (ANN, None, "SELF_NOT_ALLOWED"),
    ],
)
async def test_who_cannot_be_written_to(world: World, to: str, status: str | None, code: str) -> None:
    if status:
        await world.set_status(to, status)
    assert await refused(world.process().say(device(ANN), to=to, text="hello", op_id="1")) == code
    assert await world.db["conversations"].count_documents({}) == 0


async def test_a_conversation_of_others_is_unknown(world: World) -> None:
    chat = world.process()
    written = await chat.say(device(ANN), to=BOB, text="hello", op_id="1")
    theirs = written.message.conversation_id
    assert await refused(chat.say(device(EVE), conversation_id=theirs, text="me too", op_id="1")) == (
        "CONVERSATION_UNKNOWN"
    )
    assert await refused(chat.say(device(EVE), conversation_id=NOBODY, text="hi", op_id="1")) == (
        "CONVERSATION_UNKNOWN"
    )


async def test_history_goes_back_page_by_page(world: World) -> None:
    chat = world.process()
    for n in range(1, 6):
        await chat.say(device(ANN), to=BOB, text=str(n), op_id=str(n))
    newest = await chat.history(BOB, ANN, before=None, limit=2)
    assert ([w.message.text for w in newest.items], newest.more) == (["5", "4"], True)
    assert newest.items[0].sender.username == "ann"
    older = await chat.history(BOB, ANN, before=newest.items[-1].message.seq, limit=3)
    assert ([w.message.text for w in older.items], older.more) == (["3", "2", "1"], False)


async def test_history_with_a_stranger_is_empty_and_with_nobody_unknown(world: World) -> None:
    chat = world.process()
    assert (await chat.history(ANN, EVE, before=None, limit=10)).items == []
    assert await refused(chat.history(ANN, NOBODY, before=None, limit=10)) == "USER_UNKNOWN"
    assert await refused(chat.history(ANN, ANN, before=None, limit=10)) == "SELF_NOT_ALLOWED"


async def test_history_outlives_a_block_and_a_deletion(world: World) -> None:
    chat = world.process()
    await chat.say(device(ANN), to=BOB, text="hello", op_id="1")
    await world.users.block(BOB, ANN)
    await world.set_status(ANN, "deleted")
    page = await chat.history(BOB, ANN, before=None, limit=10)
    assert [w.message.text for w in page.items] == ["hello"]

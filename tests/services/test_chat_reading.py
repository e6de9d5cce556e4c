"""Histories in both directions, searches, and the list of conversations."""

from __future__ import annotations

from typing import Any

import pytest
from pymongo.errors import ExecutionTimeout

from models.chat import store as chat_store
from models.chat.rules import pair_id
from models.db import Database, database_away
from models.mailbox.store import KEPT_DAYS
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services.chat_house import ANN, BOB, EVE, NOBODY, Spoken, World, build, device, refused

PAIR = pair_id(ANN, BOB)


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors) -> World:
    return await build(db, clock, ids, doors)


async def say(chat: Spoken, text: str, *, by: str = ANN, to: str = BOB) -> Any:
    return await chat.say(device(by), to=to, text=text, op_id=f"{by}:{to}:{text}")


def seqs(page: Any) -> list[int]:
    return [one.message.seq for one in page.items]


async def test_a_conversation_is_read_in_both_directions(world: World) -> None:
    chat = world.process()
    for n in range(7):
        await say(chat, f"{n}")
    newest = await chat.messages(BOB, PAIR, limit=3)
    assert (seqs(newest), newest.more) == ([7, 6, 5], True)
    older = await chat.messages(BOB, PAIR, before=5, limit=9)
    assert (seqs(older), older.more) == ([4, 3, 2, 1], False)
    newer = await chat.messages(BOB, PAIR, after=2, limit=3)
    assert (seqs(newer), newer.more) == ([3, 4, 5], True)
    rest = await chat.messages(BOB, PAIR, after=5, limit=3)
    assert (seqs(rest), rest.more) == ([6, 7], False)
    assert seqs(await chat.messages(BOB, PAIR, after=7, limit=3)) == []
    for who, where in ((EVE, PAIR), (ANN, NOBODY)):
        assert await refused(chat.messages(who, where, limit=3)) == "CONVERSATION_UNKNOWN"


async def test_e59_a_device_that_was_away_too_long_is_told_of_the_gap_and_reads_on_from_its_last_number(
    world: World,
) -> None:
    """Letters are thrown away after a week; the conversation has all of its messages."""
    chat = world.process()
    for n in range(3):
        await say(chat, f"old {n}")
    world.clock.pass_((KEPT_DAYS + 1) * 86_400)
    await world.mailbox.trim()
    for n in range(2):
        await say(chat, f"new {n}")
    missed = await world.mailbox.missed(BOB, "phone", 1)
    assert missed.gap is True, "never a silent hole"
    listed = (await chat.conversations(BOB, limit=50)).items
    assert [(one.conversation.id, one.unread) for one in listed] == [(PAIR, 5)]
    page = await chat.messages(BOB, PAIR, after=1, limit=50)
    assert [one.message.text for one in page.items] == ["old 1", "old 2", "new 0", "new 1"]


# -------------------------------------------------------------------------------------------------------------- search


async def found(chat: Spoken, user_id: str, query: str, **more: Any) -> list[str | None]:
    return [one.message.text for one in (await chat.search(user_id, query, limit=50, **more)).items]


async def test_a_search_finds_beginnings_of_words_whatever_their_case(world: World) -> None:
    chat = world.process()
    for text in ("Good morning, Bob!", "Schöne Grüße", "MORNINGS are early", "the good evening"):
        await say(chat, text)
    assert await found(chat, BOB, "morn") == ["MORNINGS are early", "Good morning, Bob!"]
    assert await found(chat, BOB, "good MORN") == ["Good morning, Bob!"]
    assert await found(chat, BOB, "morning good") == ["Good morning, Bob!"]
    assert await found(chat, BOB, "GRÜSSE") == ["Schöne Grüße"]
    assert await found(chat, BOB, "orning") == []
    assert await found(chat, BOB, "good night") == []
    for nothing in ("!?", "   ", "…"):
        assert await refused(chat.search(BOB, nothing, limit=9)) == "VALIDATION_FAILED"


async def test_a_search_is_over_ones_own_conversations_or_one_of_them(world: World) -> None:
    chat = world.process()
    await say(chat, "word to bob")
    await say(chat, "word to eve", to=EVE)
    await say(chat, "word between", by=BOB, to=EVE)
    assert await found(chat, ANN, "word") == ["word to eve", "word to bob"]
    assert await found(chat, EVE, "word") == ["word between", "word to eve"]
    assert await found(chat, ANN, "word", conversation_id=PAIR) == ["word to bob"]
    assert await refused(chat.search(EVE, "word", conversation_id=PAIR, limit=9)) == "CONVERSATION_UNKNOWN"
    assert await found(chat, NOBODY, "word") == []


async def test_a_search_goes_back_page_by_page_and_follows_edits(world: World) -> None:
    chat = world.process()
    sent = [await say(chat, f"word {n}") for n in range(5)]
    first = await chat.search(BOB, "word", limit=2)
    assert ([one.message.text for one in first.items], first.more) == (["word 4", "word 3"], True)
    rest = await chat.search(BOB, "word", before=first.items[-1].message.id, limit=3)
    assert ([one.message.text for one in rest.items], rest.more) == (["word 2", "word 1", "word 0"], False)
    await chat.edit(ANN, sent[0].message.id, "another thing")
    assert await found(chat, BOB, "word 0") == []
    assert await found(chat, BOB, "thing") == ["another thing"]


async def test_a_search_is_answered_by_the_index_of_words(world: World) -> None:
    chat = world.process()
    for n in range(300):
        await say(chat, f"noise {n}" if n else "a needle")
    profile = await world.db.db.command("profile", 2)
    try:
        assert await found(chat, BOB, "needle") == ["a needle"]
        row = await world.db.db["system.profile"].find_one({"ns": {"$regex": "messages$"}, "op": "query"})
    finally:
        await world.db.db.command("profile", profile["was"])
    assert row is not None
    assert row["docsExamined"] == 1, row["planSummary"]


# ---------------------------------------------------------------------------------------------------------- the list


async def test_conversations_are_listed_with_the_latest_activity_first(world: World) -> None:
    chat, people = world.process(), await world.crowd(5)
    for user_id in people:
        world.clock.pass_(1)
        await say(chat, f"to {user_id[-1]}", to=user_id)
    world.clock.pass_(1)
    await say(chat, "from 1", by=people[1], to=ANN)
    page = await chat.conversations(ANN, limit=3)
    assert [one.last.message.text for one in page.items if one.last] == ["from 1", "to 4", "to 3"]
    assert page.more
    last = page.items[-1].conversation
    assert last.active_at is not None
    rest = await chat.conversations(ANN, after=(last.active_at, last.id), limit=3)
    assert [one.last.message.text for one in rest.items if one.last] == ["to 2", "to 0"]
    assert not rest.more
    assert [one.unread for one in page.items] == [1, 0, 0]


async def test_conversations_of_the_same_instant_are_each_listed_once(world: World) -> None:
    chat, people = world.process(), await world.crowd(7)
    for user_id in people:
        await say(chat, "hello", to=user_id)
    seen: list[str] = []
    after = None
    while True:
        page = await chat.conversations(ANN, after=after, limit=2)
        seen += [one.conversation.id for one in page.items]
        if not page.more:
            break
        last = page.items[-1].conversation
        assert last.active_at is not None
        after = (last.active_at, last.id)
    assert sorted(seen) == sorted({pair_id(ANN, user_id) for user_id in people})


async def test_a_list_is_read_in_few_exchanges_however_long_it_is(world: World) -> None:
    chat, people = world.process(), await world.crowd(30)
    for user_id in people:
        await say(chat, "hello", to=user_id)
    machine = world.machine("p1")
    listed = await machine.chat.conversations(ANN, limit=50)
    assert len(listed.items) == 30
    assert machine.life.calls == 4, "the rows, the people, the blocks, the others' markers"


async def test_a_conversation_without_a_message_is_listed_without_one(world: World) -> None:
    chat = world.process()
    await chat.groups.found(device(ANN), name="Us", user_ids=[], op_id=None)
    one = (await chat.conversations(ANN, limit=1)).items[0]
    assert one.last is not None
    assert one.last.message.note is not None
    assert (one.unread, one.conversation.members) == (0, (ANN,))


async def test_a_former_member_and_a_deleted_person_do_not_break_a_list(world: World) -> None:
    chat = world.process()
    await say(chat, "hello")
    group = await chat.groups.found(device(ANN), name="Us", user_ids=[BOB, EVE], op_id=None)
    await chat.say(device(EVE), conversation_id=group.id, text="bye", op_id="1")
    await chat.groups.leave(device(EVE), group.id)
    await world.set_status(BOB, "deleted")
    listed = (await chat.conversations(ANN, limit=9)).items
    assert {one.conversation.id for one in listed} == {PAIR, group.id}
    assert (await chat.conversation(ANN, group.id)).conversation.members == (ANN, BOB)


async def test_who_is_in_a_conversation_for_other_features(world: World) -> None:
    chat = world.process()
    written = await say(chat, "hello")
    assert [await chat.is_member(one, PAIR) for one in (ANN, BOB, EVE)] == [True, True, False]
    assert set(await chat.members(PAIR)) == {ANN, BOB}
    assert await chat.members(NOBODY) == ()
    assert (await chat.evidence(BOB, written.message.id)).text == "hello"
    assert await refused(chat.evidence(EVE, written.message.id)) == "MESSAGE_UNKNOWN"


async def test_a_search_that_reads_too_much_ends_in_its_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = world.process()
    await chat.say(device(ANN), to=BOB, text="word", op_id="1")
    row = await world.db["messages"].find_one({})
    assert row is not None
    rows = [{**row, "_id": f"{n:08}", "seq": n, "op_id": f"op {n}"} for n in range(2, 20_000)]
    await world.db["messages"].insert_many(rows)
    assert len((await chat.search(BOB, "w", limit=50)).items) == 50
    monkeypatch.setattr(chat_store, "SEARCH_MS_MAX", 1)
    with pytest.raises(ExecutionTimeout) as late:
        await chat.search(BOB, "w", limit=50)
    assert database_away(late.value), "503: later, perhaps"

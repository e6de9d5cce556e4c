"""The trail with a real database: one row for each act, chained, and whoever meddles with it is found out."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pymongo.errors import OperationFailure
from structlog.testing import capture_logs

from models.db import Database, Session
from models.errors import Refusal
from models.trail import rules
from models.trail.rules import Act, Actor, Anchor, Malformed, Row, Target, Walk
from models.trail.service import Trail
from models.trail.store import HEAD, TRAIL, HeadMissing, TrailStore
from tests.databases import SPOILED
from tests.fakes import VirtualClock

ADA = "01950000-0000-7000-8000-00000000000a"
EVE = "01950000-0000-7000-8000-0000000000ee"


def act_of(number: int = 0, **more: Any) -> Act:
    said: dict[str, Any] = {
        "actor": Actor.admin(ADA, "ada", "10.0.0.7"),
        "act": "user.ban",
        "target": Target("user", f"u{number}", f"user{number}"),
        "reason": f"reason number {number}",
        "details": {"amount_minor": 2**40 + number, "currency": "NGN", "all": True, "none": None},
    }
    return Act(**{**said, **more})


class Book:
    """A trail and its database."""

    def __init__(self, db: Database, clock: VirtualClock) -> None:
        self.db, self.clock = db, clock
        self.trail = Trail(store=TrailStore(db), clock=clock)

    async def write(self, *acts: Act) -> list[Row]:
        rows = []
        for act in acts:
            async with self.trail.keeping(act) as note:
                await self.db.transaction(note.also)
            assert note.row is not None
            rows.append(note.row)
            self.clock.pass_(60)
        return rows

    async def rows(self) -> list[Row | Malformed]:
        return [row async for row in self.trail.lines()]


@pytest.fixture
def book(db: Database, clock: VirtualClock) -> Book:
    return Book(db, clock)


# --------------------------------------------------------------------------------------------------------- appending


async def test_rows_are_numbered_from_one_without_gaps_and_each_says_the_hash_of_the_one_before(
    book: Book,
) -> None:
    assert await book.trail.head() is None
    rows = await book.write(act_of(0), act_of(1), act_of(2))
    assert [row.seq for row in rows] == [1, 2, 3]
    assert [row.previous for row in rows] == [rules.GENESIS, rows[0].hash, rows[1].hash]
    assert await book.rows() == rows, "what is kept is what was said"
    assert await book.trail.head() == Anchor(3, rows[2].hash)
    verdict = await book.trail.verify()
    assert (verdict.ok, verdict.rows, verdict.hash, verdict.broken) == (True, 3, rows[2].hash, None)


async def test_the_hash_is_of_the_exported_line_without_it_so_that_anybody_can_verify_an_export(
    book: Book,
) -> None:
    [row] = await book.write(act_of(reason="naïve “quotes” ⚖"))
    said = json.loads(rules.line_of(row))
    kept = said.pop("hash")
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == kept == row.hash
    assert said["at"].endswith("Z")


async def test_an_empty_trail_holds(book: Book) -> None:
    assert (await book.trail.verify()).ok
    await book.trail.begin()
    assert (await book.trail.verify()).ok
    assert not (await book.trail.verify(Anchor(1, "0" * 64))).ok, "the log outside knows of a row"


async def test_time_does_not_go_back_along_the_chain_when_a_clock_does(book: Book) -> None:
    [first] = await book.write(act_of(0))
    slow = VirtualClock()
    slow.pass_(-3600)
    late = Book(book.db, slow)
    [second] = await late.write(act_of(1))
    assert second.at == first.at


async def test_a_refused_act_leaves_no_row_and_no_gap(book: Book) -> None:
    async def refused(session: Session) -> None:
        raise Refusal("USER_UNKNOWN")

    async def refused_after(session: Session) -> None:
        await note.also(session)
        raise Refusal("USER_UNKNOWN")

    for body in (refused, refused_after):
        with pytest.raises(Refusal):
            async with book.trail.keeping(act_of()) as note:
                await book.db.transaction(body)
    assert await book.rows() == []
    assert [row.seq for row in await book.write(act_of())] == [1]


async def test_each_committed_row_is_one_line_of_the_log_with_its_number_and_hash(book: Book) -> None:
    async def unchanged(session: Session) -> None:
        """An act finds all as it is to be, so it takes no row along."""

    with capture_logs() as logs:
        rows = await book.write(act_of(0), act_of(1))
        async with book.trail.keeping(act_of(2)):
            await book.db.transaction(unchanged)
    said = [entry for entry in logs if entry["event"] == "a row of the trail"]
    assert [(one["seq"], one["hash"]) for one in said] == [(row.seq, row.hash) for row in rows]
    assert said[0]["act"] == "user.ban"
    assert all("reason" not in one for one in said), "what was written about people stays in the database"


async def test_a_row_whose_transaction_was_given_up_is_not_said(book: Book) -> None:
    async def given_up(session: Session) -> None:
        await note.also(session)
        await session.abort_transaction()

    with capture_logs() as logs:
        async with book.trail.keeping(act_of()) as note:
            await book.db.transaction(given_up)
    assert note.row is None
    assert [entry for entry in logs if entry["event"] == "a row of the trail"] == []


async def test_many_appends_at_once_from_several_processes_stay_dense_and_chained(
    book: Book, mongo_uri: str
) -> None:
    processes, each = 3, 8
    await book.write(act_of())
    command = [sys.executable, "-m", "tests.services.trail_process", mongo_uri, book.db.db.name]
    running = [
        await asyncio.create_subprocess_exec(*command, f"p{number}", str(each)) for number in range(processes)
    ]
    here = [
        Book(book.db, book.clock).write(act_of(number, actor=Actor.operator("here"))) for number in range(8)
    ]
    await asyncio.gather(*here)
    assert [await one.wait() for one in running] == [0] * processes
    rows = [row for row in await book.rows() if isinstance(row, Row)]
    assert [row.seq for row in rows] == list(range(1, 1 + 8 + processes * each + 1))
    assert (await book.trail.verify()).ok
    for number in range(processes):
        mine = [row.target.id for row in rows if row.actor.name == f"p{number}"]
        assert mine == [f"p{number}-{n}" for n in range(each)], "each in its own order"


# --------------------------------------------------------------------------------------------------------- tampering

Meddling = Callable[[Book], Awaitable[Any]]


async def changed(book: Book) -> None:
    await book.db[TRAIL].update_one({"_id": 3}, {"$set": {"reason": "no reason at all"}})


async def changed_in_details(book: Book) -> None:
    await book.db[TRAIL].update_one({"_id": 3}, {"$set": {"details.amount_minor": 1}})


async def changed_with_its_hash(book: Book) -> None:
    row = await TrailStore(book.db).row(3)
    assert row is not None
    forged = rules.row_after(act_of(9), seq=2, previous=row.previous, at=row.at)
    change = {"reason": forged.reason, "target": {"kind": "user", "id": "u9", "name": "user9"}}
    other = {"details": dict(forged.details), "hash": forged.hash}
    await book.db[TRAIL].update_one({"_id": 3}, {"$set": {**change, **other}})


async def removed(book: Book) -> None:
    await book.db[TRAIL].delete_one({"_id": 3})


async def removed_first(book: Book) -> None:
    await book.db[TRAIL].delete_one({"_id": 1})


async def removed_last(book: Book) -> None:
    await book.db[TRAIL].delete_one({"_id": 5})


async def swapped(book: Book) -> None:
    third, fourth = [await book.db[TRAIL].find_one({"_id": number}) for number in (3, 4)]
    assert third is not None
    assert fourth is not None
    await book.db[TRAIL].replace_one({"_id": 3}, {**fourth, "_id": 3})
    await book.db[TRAIL].replace_one({"_id": 4}, {**third, "_id": 4})


async def inserted_behind(book: Book) -> None:
    last = await TrailStore(book.db).row(5)
    assert last is not None
    await _insert(book, rules.row_after(act_of(9), seq=5, previous=last.hash, at=last.at))


async def inserted_between(book: Book) -> None:
    for number in (5, 4):
        row = await book.db[TRAIL].find_one({"_id": number})
        assert row is not None
        await book.db[TRAIL].delete_one({"_id": number})
        await book.db[TRAIL].insert_one({**row, "_id": number + 1})
    third = await TrailStore(book.db).row(3)
    assert third is not None
    await _insert(book, rules.row_after(act_of(9), seq=3, previous=third.hash, at=third.at))
    await book.db[HEAD].update_one({}, {"$set": {"seq": 6}})


async def a_field_more(book: Book) -> None:
    await book.db.db.command("collMod", TRAIL, validator={})
    await book.db[TRAIL].update_one({"_id": 3}, {"$set": {"also": "this"}})


async def head_gone(book: Book) -> None:
    await book.db[HEAD].delete_one({})


async def head_set_back(book: Book) -> None:
    row = await TrailStore(book.db).row(4)
    assert row is not None
    await book.db[HEAD].update_one({}, {"$set": {"seq": 4, "hash": row.hash}})


async def _insert(book: Book, row: Row) -> None:
    said = {**rules.said_of(row), "at": row.at, "hash": row.hash}
    await book.db[TRAIL].insert_one({"_id": said.pop("seq"), **said})


MEDDLING: dict[Meddling, int] = {
    changed: 3,
    changed_in_details: 3,
    changed_with_its_hash: 4,  # its own hash is right; the next row says another one
    removed: 3,
    removed_first: 1,
    removed_last: 5,
    swapped: 3,
    inserted_behind: 6,
    inserted_between: 5,
    head_gone: 1,
    head_set_back: 5,
}


@pytest.mark.parametrize("meddling", MEDDLING, ids=lambda one: one.__name__)
async def test_whoever_meddles_with_the_rows_is_found_out_at_the_first_that_does_not_hold(
    book: Book, meddling: Meddling
) -> None:
    await book.write(*(act_of(number) for number in range(5)))
    assert (await book.trail.verify()).ok
    await meddling(book)
    verdict = await book.trail.verify()
    assert (verdict.ok, verdict.broken) == (False, MEDDLING[meddling])
    assert str(verdict.broken) in verdict.said or "head" in verdict.said


async def test_a_field_that_no_row_has_is_found_out_too(book: Book) -> None:
    SPOILED.add(book.db.db.name)  # its validator is taken away
    await book.write(*(act_of(number) for number in range(5)))
    await a_field_more(book)
    assert (await book.trail.verify()).broken == 3


async def test_a_tail_that_was_cut_off_with_its_head_is_found_out_by_the_log_outside(book: Book) -> None:
    rows = await book.write(*(act_of(number) for number in range(5)))
    await book.db[TRAIL].delete_many({"_id": {"$gt": 3}})
    await book.db[HEAD].update_one({}, {"$set": {"seq": 3, "hash": rows[2].hash}})
    assert (await book.trail.verify()).ok, "by itself the database cannot know"
    verdict = await book.trail.verify(Anchor(5, rows[4].hash))
    assert (verdict.ok, verdict.broken) == (False, 4)


async def test_a_chain_that_was_written_anew_is_found_out_by_the_log_outside(book: Book) -> None:
    rows = await book.write(*(act_of(number) for number in range(3)))
    await book.db[TRAIL].delete_many({})
    await book.db[HEAD].delete_many({})
    await Book(book.db, book.clock).write(*(act_of(number + 10) for number in range(3)))
    assert (await book.trail.verify()).ok
    for row in rows:
        assert (await book.trail.verify(Anchor(row.seq, row.hash))).broken == row.seq
    fresh = Book(book.db, book.clock)
    [head] = [await fresh.trail.head()]
    assert head is not None
    assert (await fresh.trail.verify(head)).ok


async def test_nothing_is_appended_to_a_trail_whose_head_is_gone(book: Book) -> None:
    await book.write(act_of(0), act_of(1))
    await head_gone(book)
    with pytest.raises(HeadMissing):
        await book.write(act_of(2))
    with pytest.raises(HeadMissing):
        await Book(book.db, book.clock).write(act_of(2))
    assert len(await book.rows()) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"hash": "short"},
        {"seq": 0},
        {"reason": ""},
        {"details": {"much": [1, 2]}},
        {"actor": {"kind": "nobody", "user_id": None, "name": None, "address": None}},
        {"more": 1},
    ],
    ids=["hash", "number", "reason", "details", "actor", "field"],
)
async def test_mongodb_itself_refuses_what_is_no_row(book: Book, change: dict[str, Any]) -> None:
    row = rules.row_after(act_of(), seq=0, previous=rules.GENESIS, at=book.clock.now())
    said = {**rules.said_of(row), "at": row.at, "hash": row.hash, **change}
    with pytest.raises(OperationFailure):
        await book.db[TRAIL].insert_one({"_id": said.pop("seq"), **said})


def test_an_export_is_verified_by_its_lines_alone() -> None:
    clock, previous, lines = VirtualClock(), rules.GENESIS, []
    for number in range(4):
        row = rules.row_after(act_of(number), seq=number, previous=previous, at=clock.now())
        previous = row.hash
        lines.append(rules.line_of(row))

    def walked(some: list[str]) -> rules.Verdict:
        walk = Walk()
        for line in some:
            try:
                walk.step(rules.row_of_line(line))
            except Malformed as fault:
                walk.step(fault)
        return walk.end(None)

    assert walked(lines).ok
    assert walked([*lines[:1], *lines[2:]]).broken == 2
    assert walked([lines[1], lines[0]]).broken == 1
    assert walked([lines[0], lines[1].replace("reason number 1", "no reason")]).broken == 2
    for nonsense in ("", "[]", "{}", "[" * 100_000, '{"seq":1}', "\ud800"):
        assert walked([nonsense]).broken == 1


# --------------------------------------------------------------------------------------------------------- searching


async def test_rows_are_found_by_actor_act_target_time_and_words_newest_first(book: Book) -> None:
    operator = Actor.operator("root")
    rows = await book.write(
        act_of(0),
        act_of(1, actor=operator, act="wallet.freeze", reason="Suspicion of fraud"),
        act_of(2, target=Target("user", EVE, "Évé"), reason="Rude   words"),
        act_of(3, act="user.unban", details={"report": "r-77"}),
    )
    find = book.trail.search

    async def numbers(**wanted: Any) -> list[int]:
        page = await find(**wanted)
        assert page.before is None
        return [row.seq for row in page.rows]

    assert await numbers() == [4, 3, 2, 1]
    assert await numbers(actor="ADA") == await numbers(actor=ADA) == [4, 3, 1]
    assert await numbers(actor="operator") == await numbers(actor="Root") == [2]
    assert await numbers(act="user") == [4, 3, 1]
    assert await numbers(act="user.unban") == [4]
    assert await numbers(target="évé") == await numbers(target=EVE) == [3]
    assert await numbers(target="u0") == await numbers(target="user0") == [1]
    assert await numbers(text="fraud suspicion") == [2]
    assert await numbers(text="rude words") == [3]
    assert await numbers(text="r-77") == [4]
    assert await numbers(since=rows[1].at, until=rows[3].at) == [3, 2]
    assert await numbers(actor="ada", text="no such words") == []
    assert await numbers(text="") == [4, 3, 2, 1], "an empty field narrows nothing"
    for hostile in ("$ne", '{"$gt":""}', ".*", "(", "\x00", "a" * 5000):
        assert await numbers(actor=hostile) == await numbers(target=hostile) == []


async def test_a_long_trail_is_read_page_by_page(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.trail.store.BATCH", 3)
    monkeypatch.setattr("models.trail.store.SCAN_MAX", 6)
    await book.write(*(act_of(number, reason="rare" if number == 0 else "usual") for number in range(11)))
    seen: list[int] = []
    before: int | None = None
    while True:
        page = await book.trail.search(before=before, limit=4)
        seen += [row.seq for row in page.rows]
        before = page.before
        if before is None:
            break
    assert seen == list(range(11, 0, -1))
    page = await book.trail.search(text="rare")
    assert (page.rows, page.before) == ((), 6), "one search looks at so many rows and says where to go on"
    page = await book.trail.search(text="rare", before=page.before)
    assert [row.seq for row in page.rows] == [1]
    assert (await book.trail.verify()).rows == 11


@pytest.mark.parametrize(
    ("said", "kept"),
    [(" two\n lines\t", "two lines"), ("turned \u202earound", "turned around"), ("e\u0301", "é")],
)
def test_a_reason_is_one_line_without_characters_that_steer(said: str, kept: str) -> None:
    assert rules.checked_reason(said) == kept


@pytest.mark.parametrize("said", ["", "   ", "\u200b", "x" * (rules.REASON_MAX + 1)])
def test_an_act_needs_a_reason_of_some_length(said: str) -> None:
    with pytest.raises(Refusal, match="VALIDATION_FAILED"):
        rules.checked_reason(said)

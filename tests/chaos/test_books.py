"""The books find what they are there to find: each kind of fault put into them by hand."""

from __future__ import annotations

from typing import Any

import pytest

from models.db import Database
from server.clock import Tasks
from tests.bench.people import Person
from tests.chaos import books as bookkeeping
from tests.chaos.books import Books
from tests.chaos.phone import ChaosPhone
from tests.chaos.story import Pair, Plan, Stage
from tests.chaos.town import Town


class Nobody:
    """In place of the node process."""

    def add(self, name: str, hear: Any) -> None:
        """Nothing comes."""


async def ends(call_id: str) -> bool:
    return True


def phone(name: str) -> ChaosPhone:
    nobody: Any = Nobody()
    made = ChaosPhone(nobody, Person(name, name, ""), ["http://127.0.0.1:1"], Tasks())
    made._hear(("SYNC", [{"seq": 0, "calls": []}]))
    return made


def hears(one: ChaosPhone, number: int, event: str = "CALL_ENDED", call_id: str = "c1") -> None:
    one._hear((event, [{"logSeq": number, "callId": call_id}]))


@pytest.fixture
async def town(db: Database) -> Town:
    rows = [
        {"user_id": "ann", "seq": 1, "key": "a", "event": "CALL_UPDATED", "call_id": "c1"},
        {"user_id": "ann", "seq": 2, "key": "b", "event": "CHAT_MESSAGE", "except_device": "phone-ann"},
        {"user_id": "ann", "seq": 3, "key": "c", "event": "CALL_ENDED", "call_id": "c1"},
    ]
    await db["letters"].insert_many(rows)
    nothing: Any = None
    return Town([], nothing, db)


@pytest.mark.parametrize(
    ("numbers", "lost", "doubled", "wrong"),
    [([1, 3], 0, 0, 0), ([3], 1, 0, 1), ([1, 1, 3], 0, 1, 1), ([1, 3, 4], 0, 0, 1), ([1, 3, 1], 0, 1, 2)],
    ids=["as it was", "lost", "doubled", "not in the log", "again, later"],
)
async def test_a_log_is_held_against_what_the_client_was_told(
    town: Town, numbers: list[int], lost: int, doubled: int, wrong: int
) -> None:
    ann, found = phone("ann"), Books()
    for number in numbers:
        hears(ann, number, "CALL_UPDATED")
    await bookkeeping._heard_all(town, ann, found)
    assert (found.lost, found.doubled, len(found.violations)) == (lost, doubled, wrong)


async def test_one_fact_under_two_numbers_is_found(town: Town) -> None:
    ann, found = phone("ann"), Books()
    hears(ann, 1)
    hears(ann, 3)
    await bookkeeping._heard_all(town, ann, found)
    assert (found.lost, found.doubled) == (0, 1)


@pytest.mark.parametrize(
    ("read", "written", "wrong"),
    [
        ([(1, "x"), (2, "y")], {"x": 1}, 0),
        ([(1, "x"), (3, "y")], {}, 1),
        ([(2, "y"), (1, "x")], {}, 1),
        ([(1, "x"), (1, "x")], {}, 2),
        ([(1, "x")], {"z": 2}, 1),
    ],
    ids=["as it was", "a hole", "out of order", "twice", "acknowledged and lost"],
)
async def test_a_conversation_is_dense_in_order_and_each_message_once(
    read: list[tuple[int, str]], written: dict[str, int], wrong: int
) -> None:
    ann, bob, found = phone("ann"), phone("bob"), Books()
    bob.read, ann.written = read, written
    bookkeeping._messages(Pair(0, ann, bob, Plan(), Stage(ends)), found)
    assert len(found.violations) == wrong, found.violations


def charged(**other: Any) -> dict[str, Any]:
    return {
        "id": "c1",
        "state": "ended",
        "endReason": "completed",
        "endedAt": "2026-03-02T12:00:10.000Z",
        "costMinor": 100,
        "intervals": [{"start": "2026-03-02T12:00:00.000Z", "end": "2026-03-02T12:00:10.000Z"}],
        "price": {
            "ratePerMinuteMinor": 600,
            "firstBlockSeconds": 1,
            "blockSeconds": 1,
            "connectFeeMinor": 0,
            "minimumMinor": 0,
        },
        **other,
    }


@pytest.mark.parametrize(
    ("other", "wrong"),
    [
        ({}, 0),
        ({"costMinor": 110}, 1),
        ({"endedAt": "2026-03-02T12:00:09.000Z"}, 1),
        ({"state": "active"}, 1),
    ],
    ids=["as it was", "too much", "beyond the end", "never ended"],
)
async def test_a_charge_is_that_of_the_intervals_and_none_is_longer_than_the_call(
    other: dict[str, Any], wrong: int
) -> None:
    found = Books()
    bookkeeping._charged(Pair(0, phone("ann"), phone("bob"), Plan(), Stage(ends)), charged(**other), found)
    assert len(found.violations) == wrong, found.violations


async def test_time_after_both_were_gone_is_found() -> None:
    found, pair = Books(), Pair(0, phone("ann"), phone("bob"), Plan(), Stage(ends))
    pair.left, pair.gone_at = "c1", 1_772_452_805.0
    bookkeeping._charged(pair, charged(), found)
    assert len(found.violations) == 1


async def test_what_is_left_in_the_database_is_found(db: Database) -> None:
    nothing: Any = None
    town = Town([], nothing, db)
    assert await bookkeeping._left(town) == {}
    await db["call_locks"].insert_one({"_id": "ann", "call_id": "c1"})
    assert await bookkeeping._left(town) == {"locks": ["ann"]}

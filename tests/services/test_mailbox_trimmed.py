"""Letters that are thrown away leave no number to be used twice, and no hole that nobody is told of."""

from __future__ import annotations

import pytest

from models.db import Database
from models.mailbox import store as mailbox_store
from models.mailbox.service import Mailbox, ThrownAway
from models.mailbox.store import KEPT_DAYS, MAILBOXES, PAGE_MAX, MailboxStore
from models.ports import Letter
from tests.fakes import FakeDoors, VirtualClock

KEPT_SECONDS = KEPT_DAYS * 86_400


def letter(key: str, user_id: str = "ada") -> Letter:
    return Letter(user_id=user_id, event="NEWS", payload={}, key=key)


def processes(db: Database, clock: VirtualClock) -> tuple[Mailbox, Mailbox]:
    one, other = (Mailbox(MailboxStore(db, name), FakeDoors(), clock) for name in ("one", "other"))
    return one, other


async def numbers(db: Database) -> list[int]:
    return [row["seq"] async for row in db["letters"].find({}, sort=[("seq", 1)])]


@pytest.mark.parametrize("many", [False, True])
async def test_a_number_is_not_used_again_after_its_letter_was_thrown_away(
    db: Database, clock: VirtualClock, many: bool
) -> None:
    """The first process remembers number 1; another has written 2 and 3 since, and all of them are gone."""
    one, other = processes(db, clock)
    await one.post([letter("1")])
    await other.post([letter("2")])
    await other.post([letter("3")])
    clock.pass_(KEPT_SECONDS + 86_400)
    assert await other.trim() == 3
    await one.post([letter("4"), letter("5")] if many else [letter("4")])
    assert await numbers(db) == ([4, 5] if many else [4])


async def test_a_device_that_was_away_misses_nothing_of_what_came_after_the_trim(
    db: Database, clock: VirtualClock
) -> None:
    one, other = processes(db, clock)
    await one.post([letter("1")])
    await other.post([letter("2")])
    await other.post([letter("3")])
    clock.pass_(KEPT_SECONDS + 86_400)
    await other.trim()
    await one.post([letter("4")])
    await other.post([letter("5")])
    missed = await one.missed("ada", "phone", 3)
    assert ([x.key for x in missed.letters], missed.gap) == (["4", "5"], False)


async def test_numbers_stay_dense_where_a_clock_was_set_back(db: Database, clock: VirtualClock) -> None:
    one, other = processes(db, clock)
    await one.post([letter("1")])
    clock.pass_(-3_600)
    await other.post([letter("2")])
    await one.post([letter("3")])
    await one.post([letter("4")])
    assert await numbers(db) == [1, 2, 3, 4]


@pytest.mark.parametrize("left", ["some", "none"])
async def test_what_is_thrown_away_between_two_looks_of_a_replay_is_no_silent_hole(
    db: Database, clock: VirtualClock, left: str
) -> None:
    mailbox = Mailbox(MailboxStore(db), FakeDoors(), clock)
    await mailbox.post([letter(f"{n}") for n in range(PAGE_MAX + 300)])
    clock.pass_(KEPT_SECONDS - 60)
    missed = await mailbox.missed("ada", "phone", 0)
    assert (missed.upto, missed.gap) == (PAGE_MAX, False)
    assert len((await mailbox.next("ada", "phone", missed.upto)).letters) == 300
    if left == "some":
        await mailbox.post([letter("new")])
    clock.pass_(120)
    await mailbox.trim()
    with pytest.raises(ThrownAway):
        await mailbox.next("ada", "phone", missed.upto)
    assert (await mailbox.missed("ada", "phone", missed.upto)).gap, "its next connection is told so"


async def test_the_end_of_the_log_is_no_hole_even_when_all_before_it_is_gone(
    db: Database, clock: VirtualClock
) -> None:
    mailbox = Mailbox(MailboxStore(db), FakeDoors(), clock)
    await mailbox.post([letter("1"), letter("2")])
    clock.pass_(KEPT_SECONDS + 1)
    await mailbox.trim()
    stretch = await mailbox.next("ada", "phone", 2)
    assert (stretch.letters, stretch.upto) == ((), 2)


async def test_more_than_one_exchange_brings_is_fetched_from_other_processes_in_one_turn(
    db: Database, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox_store, "FETCH_MAX", 3)
    one, other = processes(db, clock)
    for n in range(10):
        await other.post([letter(f"{n}", user_id=f"user-{n % 2}")])
    fetched = await one.fetch()
    assert [x.key for x in fetched if x.user_id == "user-0"] == ["0", "2", "4", "6", "8"]
    assert [x.key for x in fetched if x.user_id == "user-1"] == ["1", "3", "5", "7", "9"]
    assert await one.fetch() == []


async def test_everybodys_old_letters_go_and_their_numbers_are_noted(
    db: Database, clock: VirtualClock
) -> None:
    mailbox = Mailbox(MailboxStore(db), FakeDoors(), clock)
    people = [f"user-{n}" for n in range(30)]
    await mailbox.post([letter(key, user_id=user_id) for key in "ab" for user_id in people])
    clock.pass_(KEPT_SECONDS + 1)
    await mailbox.post([letter("c", user_id=people[0])])
    assert await mailbox.trim() == 60
    assert [(row["user_id"], row["seq"]) async for row in db["letters"].find({})] == [("user-0", 3)]
    assert {row["trimmed_to"] async for row in db[MAILBOXES].find({})} == {2}
    assert await mailbox.trim() == 0

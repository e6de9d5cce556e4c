"""Many letters in one go: every person's numbers stay dense, whoever else writes and whatever stands in the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest

from models.db import Database
from models.mailbox import store as mailbox_store
from models.mailbox.service import Mailbox
from models.mailbox.store import LETTERS, MailboxStore
from models.ports import Letter
from tests.fakes import FakeDoors, VirtualClock
from tests.services.callkit import Killed, Mortal


def letters(people: Sequence[str], keys: Sequence[str]) -> list[Letter]:
    return [
        Letter(user_id=user, event="NEWS", payload={"of": key}, key=key) for key in keys for user in people
    ]


async def log_of(db: Database, user_id: str) -> list[tuple[int, str]]:
    found = await db[LETTERS].find({"user_id": user_id}, sort=[("seq", 1)]).to_list()
    return [(row["seq"], row["key"]) for row in found]


async def test_the_letters_of_many_people_are_kept_in_one_exchange_and_each_in_order(
    db: Database, doors: FakeDoors, clock: VirtualClock
) -> None:
    people = [f"user-{n}" for n in range(20)]
    life = Mortal(db)
    mailbox = Mailbox(MailboxStore(life), doors, clock)  # type: ignore[arg-type]
    await mailbox.post(letters(people, ["first"]))
    before = life.calls
    await mailbox.post(letters(people, ["a", "b", "c"]))
    assert life.calls - before == 1
    for user in people:
        assert await log_of(db, user) == [(1, "first"), (2, "a"), (3, "b"), (4, "c")]


async def test_letters_that_are_known_are_passed_over_and_the_others_follow_on(
    db: Database, doors: FakeDoors, clock: VirtualClock
) -> None:
    inbox = doors.connect("ada", "phone")
    mailbox = Mailbox(MailboxStore(db), doors, clock)
    await mailbox.post(letters(["ada"], ["b", "d"]))
    await mailbox.post(letters(["ada", "bob"], ["a", "b", "c", "d", "e"]))
    assert await log_of(db, "ada") == [(1, "b"), (2, "d"), (3, "a"), (4, "c"), (5, "e")]
    assert [key for _, key in await log_of(db, "bob")] == ["a", "b", "c", "d", "e"]
    assert [(letter.seq, letter.key) for letter in inbox] == [(n + 1, key) for n, key in enumerate("bdace")]


async def test_letters_that_were_perhaps_told_go_out_again_under_the_number_they_have(
    db: Database, doors: FakeDoors, clock: VirtualClock
) -> None:
    mailbox = Mailbox(MailboxStore(db), doors, clock)
    await mailbox.post(letters(["ada"], ["a", "b"]))
    inbox = doors.connect("ada", "phone")
    await mailbox.post(letters(["ada"], ["a", "b", "c"]), again=True)
    assert [(letter.seq, letter.key) for letter in inbox] == [(1, "a"), (2, "b"), (3, "c")]


async def test_a_letter_for_the_moment_keeps_its_place_among_those_that_are_kept(
    db: Database, doors: FakeDoors, clock: VirtualClock
) -> None:
    inbox = doors.connect("ada", "phone")
    now = Letter(user_id="ada", event="TYPING", payload={})
    first, second = letters(["ada"], ["a", "b"])
    await Mailbox(MailboxStore(db), doors, clock).post([first, now, second])
    assert [(letter.event, letter.seq) for letter in inbox] == [("NEWS", 1), ("TYPING", None), ("NEWS", 2)]


@pytest.mark.parametrize("size", [3, 1_000])
async def test_processes_that_write_to_the_same_people_at_once_leave_no_hole_and_no_letter_out(
    db: Database, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(mailbox_store, "BATCH_MAX", size)
    people = [f"user-{n}" for n in range(5)]
    processes = [Mailbox(MailboxStore(db, name), FakeDoors(), clock) for name in ("one", "two")]
    posts = [
        process.post(letters(people, [f"{name}-{turn}-{n}" for n in range(4)]))
        for turn in range(5)
        for name, process in zip(("one", "two"), processes, strict=True)
    ]
    await asyncio.gather(*posts)
    for user in people:
        log = await log_of(db, user)
        assert [seq for seq, _ in log] == list(range(1, 41))
        for name in ("one", "two"):
            for turn in range(5):
                of_turn = [key for _, key in log if key.startswith(f"{name}-{turn}-")]
                assert of_turn == [f"{name}-{turn}-{n}" for n in range(4)], "each post keeps its order"


async def test_a_process_that_dies_in_between_leaves_no_hole(db: Database, clock: VirtualClock) -> None:
    """Two posts of the same letters, the first of which dies at every place that it can."""
    people = ["ada", "bob"]
    for dies_at in range(1, 6):
        life, keys = Mortal(db), [f"{dies_at}-{n}" for n in range(3)]
        life.dies_at = dies_at
        with contextlib.suppress(Killed):
            await Mailbox(MailboxStore(life), FakeDoors(), clock).post(letters(people, keys))  # type: ignore[arg-type]
        await Mailbox(MailboxStore(db), FakeDoors(), clock).post(letters(people, keys), again=True)
    for user in people:
        log = await log_of(db, user)
        assert [seq for seq, _ in log] == list(range(1, 16))
        assert [key for _, key in log] == [f"{dies_at}-{n}" for dies_at in range(1, 6) for n in range(3)]

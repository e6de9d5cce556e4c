"""Ringing to disturb is bounded, and whoever just calls people never notices (``models.calls.rings``)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from models.db import Database
from models.errors import Refusal
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Phone, Town, rings_of

COOL_OFF = timedelta(seconds=60)


async def town_of(db: Database, clock: VirtualClock, ids: CountingIds, *names: str) -> Town:
    town = Town(db, clock, ids)
    await town.people(*names)
    return town


async def wait_of(phone: Phone, to: Phone) -> tuple[str, int | None]:
    with pytest.raises(Refusal) as no:
        await phone.request(to)
    return no.value.code, no.value.retry_after_ms


async def declined(phone: Phone, by: Phone, times: int = 1) -> None:
    for _ in range(times):
        await by.reject(await phone.request(by))


async def talked(one: Phone, other: Phone) -> None:
    call = await one.request(other)
    await other.accept(call)
    await one.end(call)


async def rung(one: Phone, other: Phone) -> None:
    await one.end(await one.request(other))


async def test_one_person_rings_so_many_in_a_minute_and_so_many_in_an_hour(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    names = [f"n{number}" for number in range(4)]
    town = await town_of(db, clock, ids, "eve", "ann", *names)
    here = town.process("here")
    here.calls._rings = rings_of(db, clock, per_caller=3)
    eve, ann = town.phone(here, "eve"), town.phone(here, "ann")
    phones = [town.phone(here, name) for name in names]
    for _ in range(10):
        clock.pass_(60)
        for phone in phones[:3]:
            await rung(eve, phone)
        assert await wait_of(eve, phones[3]) == ("RATE_LIMITED", 60_000)
    await rung(ann, phones[3])
    clock.pass_(60)
    assert await wait_of(eve, phones[3]) == ("RATE_LIMITED", 3_000_000), "thirty in this hour"


async def test_strangers_together_make_a_phone_ring_so_often_and_who_has_talked_gets_through(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    names = [f"s{number}" for number in range(6)]
    town = await town_of(db, clock, ids, "bob", "friend", "called", *names)
    here = town.process("here")
    here.calls._rings = rings_of(db, clock, strangers=3)
    bob, friend, called = (town.phone(here, name) for name in ("bob", "friend", "called"))
    strangers = [town.phone(here, name) for name in names]
    await talked(friend, bob)
    await rung(bob, called)
    clock.pass_(60)
    for phone in strangers[:3]:
        await rung(phone, bob)
    assert await wait_of(strangers[3], bob) == ("RATE_LIMITED", 60_000)
    await rung(friend, bob)
    await rung(called, bob)
    # Who has called him without an answer is a stranger still.
    assert await wait_of(strangers[0], bob) == ("RATE_LIMITED", 60_000)
    clock.pass_(60)
    await rung(strangers[3], bob)


async def test_who_is_busy_is_said_to_be_busy_to_any_number_of_strangers_and_they_use_nothing_up(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    names = [f"s{number}" for number in range(6)]
    town = await town_of(db, clock, ids, "bob", "ann", *names)
    here = town.process("here")
    here.calls._rings = rings_of(db, clock, strangers=2)
    bob, ann = town.phone(here, "bob"), town.phone(here, "ann")
    strangers = [town.phone(here, name) for name in names]
    call = await ann.request(bob)
    for phone in strangers:
        assert (await wait_of(phone, bob))[0] == "CALL_BUSY"
    await ann.end(call)
    await rung(strangers[0], bob)


async def test_after_six_declines_in_a_row_there_is_a_wait_that_grows_with_each(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = await town_of(db, clock, ids, "ann", "bob", "cid")
    here, there = town.process("here"), town.process("there")
    for process in (here, there):
        process.calls._rings = rings_of(db, clock, cool_off=COOL_OFF)
    ann, bob, cid = (town.phone(here, name) for name in ("ann", "bob", "cid"))
    await declined(ann, bob, times=6)
    for seconds in (60, 300, 1800, 7200, 7200):
        assert await wait_of(ann, bob) == ("RATE_LIMITED", seconds * 1000)
        await rung(ann, cid)
        await rung(cid, bob)
        clock.pass_(seconds - 0.001)
        assert await wait_of(ann, bob) == ("RATE_LIMITED", 1)
        clock.pass_(0.001)
        await declined(ann, bob)
    # A day later it is forgotten.
    clock.pass_(86_400)
    await declined(ann, bob)
    await rung(ann, bob)


@pytest.mark.parametrize("how", ["answered", "called back", "not answered", "busy"])
async def test_what_is_no_decline_counts_as_none_and_an_answer_begins_anew(
    db: Database, clock: VirtualClock, ids: CountingIds, how: str
) -> None:
    town = await town_of(db, clock, ids, "ann", "bob")
    here = town.process("here")
    here.calls._rings = rings_of(db, clock, cool_off=COOL_OFF)
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    for _ in range(5):
        await declined(ann, bob)
        clock.pass_(60)
    if how == "answered":
        await talked(ann, bob)
    elif how == "called back":
        await rung(bob, ann)
    elif how == "not answered":
        await rung(ann, bob)
    else:
        await bob.reject(await ann.request(bob), reason="busy")
    clock.pass_(1)
    if how in ("answered", "called back"):
        await declined(ann, bob)
        await rung(ann, bob)
    else:
        await rung(ann, bob)
        await declined(ann, bob)
        assert (await wait_of(ann, bob))[0] == "RATE_LIMITED", "the two declines are in a row all the same"


async def test_a_first_ring_asks_the_database_nothing_more(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = await town_of(db, clock, ids, "ann", "bob")
    here = town.process("here")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    rings = here.calls._rings = rings_of(db, clock, cool_off=COOL_OFF)
    rings._past = None  # type: ignore[assignment]
    await rung(ann, bob)
    with pytest.raises(AttributeError):
        await ann.request(bob)

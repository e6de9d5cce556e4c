"""Two thousand calls at once: what is due for all of them is done evenly, and others get a turn in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from pymongo.errors import ConnectionFailure

from models.billing.service import GIVE_WAY_SECONDS, TICK_SECONDS, TICKS_AT_ONCE
from models.calls.call import Call, Party
from models.calls.deadlines import EARLY_PART
from models.calls.engine import AT_A_STRETCH_MAX
from models.calls.store import CALLS
from models.db import Database
from tests.fakes import CountingIds, VirtualClock
from tests.services.billing_house import PaidTown
from tests.services.callkit import Process

MANY = 2_000
TURN = 0.1


class Everybody:
    """Doors at which all are connected; ``asked`` counts how often somebody looked whether they are."""

    def __init__(self) -> None:
        self.asked = 0

    def online(self, user_id: str) -> bool:
        self.asked += 1
        return True

    def connected(self, user_id: str, device_id: str) -> bool:
        self.asked += 1
        return True


@pytest.fixture
async def town(db: Database, clock: VirtualClock, ids: CountingIds) -> PaidTown:
    return PaidTown(db, clock, ids)


async def crowd(town: PaidTown, here: Process, *, apart_seconds: float) -> list[Call]:
    """Running calls on the board of a process, one every ``apart_seconds``: like one that was real somewhere else."""
    await town.people("ann", "bob")
    there = town.process("there")
    await town.pay_in(there, "ann", 100_000)
    ann, bob = town.phone(there, "ann"), town.phone(there, "bob")
    real = await town.call(await bob.accept(await ann.request(bob)))
    await town.db[CALLS].delete_many({})
    legs = [replace(leg, process=here.name) for leg in (real.caller_leg, real.callee_leg) if leg is not None]
    made = []
    for number in range(MANY):
        later = timedelta(milliseconds=round(number * apart_seconds * 1000))
        assert real.renew_at is not None
        call = replace(
            real,
            id=f"call-{number:04d}",
            caller=_named(real.caller, f"payer-{number}"),
            callee=_named(real.callee, f"payee-{number}"),
            caller_leg=legs[0],
            callee_leg=legs[1],
            intervals=tuple(replace(one, start=one.start + later) for one in real.intervals),
            renew_at=real.renew_at + later,
            untold=(),
        )
        here.calls.board.update(call)
        made.append(call)
    return made


def _named(party: Party, user_id: str) -> Party:
    return replace(party, user_id=user_id)


class Onlooker:
    """A task beside a job: what happened at most between two of its turns."""

    def __init__(self, count) -> None:  # type: ignore[no-untyped-def]
        self._count = count
        self.most = 0

    async def __aenter__(self) -> Onlooker:
        self._task = asyncio.create_task(self._look())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)
        self._task.cancel()

    async def _look(self) -> None:
        before = self._count()
        while True:
            await asyncio.sleep(0)
            now = self._count()
            self.most, before = max(self.most, now - before), now


async def test_the_ticks_of_many_calls_never_hold_the_loop_for_more_than_a_slice(
    town: PaidTown, clock: VirtualClock
) -> None:
    here = town.process("here")
    doors = Everybody()
    here.billing._doors = doors  # type: ignore[assignment]
    await crowd(town, here, apart_seconds=0)
    told = 0
    async with Onlooker(lambda: doors.asked) as onlooker:
        async for ticks in here.billing.ticks():
            assert len(ticks) <= TICKS_AT_ONCE
            told += len(ticks)
    assert told == MANY, "each is told at the start"
    assert onlooker.most <= TICKS_AT_ONCE


async def test_between_two_slices_ticks_give_way_unless_they_are_late(
    town: PaidTown, clock: VirtualClock
) -> None:
    here, book = town.process("here"), list[str]()

    async def give_way() -> None:
        book.append("way")

    here.billing._give_way = give_way
    here.billing._doors = Everybody()  # type: ignore[assignment]
    await crowd(town, here, apart_seconds=0)
    async for ticks in here.billing.ticks():
        assert ticks
        book.append("slice")
    slices = -(-MANY // TICKS_AT_ONCE)
    assert book == ["slice", "way"] * slices
    book.clear()
    clock.pass_(TICK_SECONDS + GIVE_WAY_SECONDS + 0.001)
    async for _ in here.billing.ticks():
        book.append("slice")
    assert book == ["slice"] * slices


async def test_the_ticks_of_calls_that_began_together_come_apart_and_none_is_late(
    town: PaidTown, clock: VirtualClock
) -> None:
    here = town.process("here")
    here.billing._doors = Everybody()  # type: ignore[assignment]
    await crowd(town, here, apart_seconds=0)
    assert len(await here.billing.run_ticks()) == MANY
    last = dict.fromkeys((call.id for call in here.calls.board.calls()), clock.now())
    by_turn: list[int] = []
    while len(by_turn) < 200:
        clock.pass_(TURN)
        ticks = await here.billing.run_ticks()
        by_turn.append(len(ticks))
        for tick in ticks:
            assert clock.now() - last[tick.call.id] <= timedelta(seconds=TICK_SECONDS + TURN)
            last[tick.call.id] = clock.now()
    # A period from the second time on, when each goes at a phase of its own.
    evenly = MANY * TURN / TICK_SECONDS
    assert max(by_turn[50:]) <= 3 * evenly
    assert sum(count > evenly / 3 for count in by_turn[50:]) >= 0.8 * len(by_turn[50:])


async def test_a_turn_in_which_nothing_is_due_looks_at_no_call(town: PaidTown, clock: VirtualClock) -> None:
    here = town.process("here")
    doors = Everybody()
    here.billing._doors = doors  # type: ignore[assignment]
    await crowd(town, here, apart_seconds=0)
    await here.billing.run_ticks()
    doors.asked = 0
    clock.pass_(TURN)
    assert await here.billing.run_ticks() == []
    assert doors.asked == 0


async def test_legs_without_sockets_are_looked_for_among_many_calls_in_stretches(town: PaidTown) -> None:
    here = town.process("here")
    doors = Everybody()
    here.calls._doors = doors  # type: ignore[assignment]
    await crowd(town, here, apart_seconds=0)
    doors.asked = 0
    async with Onlooker(lambda: doors.asked) as onlooker:
        await here.calls.run_leases(8)
    assert doors.asked == 2 * MANY
    assert onlooker.most <= 2 * AT_A_STRETCH_MAX


class Renewed:
    """A stand-in for the renewal of a call, which costs nothing: it moves its time on by a minute."""

    def __init__(self, here: Process, clock: VirtualClock) -> None:
        self.at: dict[str, list[datetime]] = {}
        self.early: list[timedelta] = []
        self._here, self._clock = here, clock
        here.calls.renew = self.renew  # type: ignore[method-assign]

    async def renew(self, call_id: str, *, early: bool = False) -> bool:
        call, now = self._here.calls.board.call(call_id), self._clock.now()
        assert call is not None
        assert call.renew_at is not None
        assert early == (call.renew_at > now)
        self.at.setdefault(call_id, []).append(now)
        self.early.append(call.renew_at - now)
        after = replace(call, version=call.version + 1, renew_at=now + timedelta(seconds=60))
        self._here.calls.board.update(after)
        return True

    def by_second(self) -> Counter[int]:
        first = min(at for times in self.at.values() for at in times)
        return Counter(int((at - first).total_seconds()) for times in self.at.values() for at in times)


async def minutes(here: Process, clock: VirtualClock, count: int) -> None:
    for _ in range(round(count * 60 / TURN)):
        clock.pass_(TURN)
        if not here.rests(here.calls.board.renewals):
            await here.calls.run_renewals()


async def test_renewals_that_come_together_are_made_evenly_a_little_early_and_never_late(
    town: PaidTown, clock: VirtualClock
) -> None:
    here = town.process("here")
    calls = await crowd(town, here, apart_seconds=0)
    assert calls[0].renew_at is not None
    assert calls[0].charge is not None
    left = (calls[0].renew_at - clock.now()).total_seconds()
    renewed = Renewed(here, clock)
    clock.pass_(left - 15)
    await minutes(here, clock, 3)
    assert sorted(len(times) for times in renewed.at.values())[0] >= 2
    assert len(renewed.at) == MANY
    assert min(renewed.early) >= -timedelta(seconds=TURN), "none is late"
    assert max(renewed.early) <= timedelta(milliseconds=calls[0].charge.lead_ms // EARLY_PART)
    assert max(renewed.by_second().values()) <= 1.15 * MANY / 10, "ten seconds' worth, evenly"


async def test_renewals_that_come_evenly_are_made_when_they_are_due(
    town: PaidTown, clock: VirtualClock
) -> None:
    here = town.process("here")
    calls = await crowd(town, here, apart_seconds=60 / MANY)
    assert calls[0].renew_at is not None
    renewed = Renewed(here, clock)
    clock.pass_((calls[0].renew_at - clock.now()).total_seconds())
    await minutes(here, clock, 2)
    assert min(renewed.early) >= -timedelta(seconds=TURN)
    assert max(renewed.early) <= timedelta(), "nobody's money is reserved before its time"
    assert max(renewed.by_second().values()) <= 2 * MANY / 60


async def test_a_renewal_in_a_crowd_reserves_its_two_periods_though_it_is_early(
    town: PaidTown, clock: VirtualClock
) -> None:
    here = town.process("here")
    await town.people("ann", "bob")
    await town.pay_in(here, "ann", 100_000)
    call = await town.phone(here, "bob").accept(
        await town.phone(here, "ann").request(town.phone(here, "bob"))
    )
    clock.pass_(51)
    assert not await here.calls.renew(call.id), "nine seconds before its time nobody asks for it"
    assert await here.calls.renew(call.id, early=True)
    assert not await here.calls.renew(call.id, early=True), "and once is enough"
    after = await town.call(call)
    assert after.charge is not None
    assert (after.charge.granted_ms, after.charge.captured.total) == (171_000, 5_100)
    assert after.renew_at is not None
    assert after.active_at is not None
    assert (after.renew_at - after.active_at).total_seconds() == 111
    await town.books()


async def test_a_renewal_that_fails_is_tried_again_and_one_without_a_database_keeps_its_place(
    town: PaidTown, clock: VirtualClock
) -> None:
    here = town.process("here")
    await crowd(town, here, apart_seconds=1)
    asked: list[str] = []
    fault: Exception | None = RuntimeError("a fault of this call")

    async def renew(call_id: str, *, early: bool = False) -> bool:
        asked.append(call_id)
        if fault is not None:
            raise fault
        return False

    async def none_of_them(call_ids: list[str]) -> set[str]:
        return set()

    here.calls.renew = renew  # type: ignore[method-assign]
    here.calls.renew_together = none_of_them  # type: ignore[method-assign, assignment]
    clock.pass_(62)
    await here.calls.run_renewals()
    assert asked == ["call-0000", "call-0001", "call-0002"]
    await here.calls.run_renewals()
    assert len(asked) == 3, "not at once"
    fault = ConnectionFailure("no database")
    clock.pass_(1)
    with pytest.raises(ConnectionFailure):
        await here.calls.run_renewals()
    asked.clear()
    fault = None
    await here.calls.run_renewals()
    assert asked == ["call-0000", "call-0001", "call-0002", "call-0003"], "at once, and in their order"

"""The money as people see it run, and the end of it in time: by the process that holds the call, or by another one."""

from __future__ import annotations

from typing import Any

import pytest

from models.calls.call import Reason, State
from models.db import Database
from tests.fakes import CountingIds, VirtualClock
from tests.services.billing_house import opened
from tests.services.callkit import Killed

# How often the jobs run, in the tests as in the server.
TURN = 0.5


async def test_both_are_told_how_the_money_runs_at_the_start_and_at_least_every_five_seconds(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=50_000)
    call = await s.ann.request(s.bob)
    await s.town.pass_(3, s.here, step=TURN)
    assert s.ann.letters("BILLING_TICK") == [], "nobody pays for a ring"
    await s.bob.accept(call)
    began, heard = clock.now(), 0
    since_last: float = 0
    await s.here.jobs()
    assert len(s.ann.letters("BILLING_TICK")) == 1, "at the start"
    for _ in range(80):
        clock.pass_(TURN)
        await s.here.jobs()
        since_last += TURN
        if len(s.ann.letters("BILLING_TICK")) > heard:
            heard, since_last = len(s.ann.letters("BILLING_TICK")), 0
        assert since_last < 5
    talked = round((clock.now() - began).total_seconds())
    mine, theirs = s.ann.letters("BILLING_TICK"), s.bob.letters("BILLING_TICK")
    assert 1 + talked // 5 <= len(mine) <= 3 + talked // 5, "and not much more often"
    assert [{**tick, "availableMinor": None} for tick in theirs] == [
        {**tick, "availableMinor": None} for tick in mine
    ]
    assert not any("availableMinor" in tick for tick in theirs), "what the payer has is the payer's business"
    for tick in mine:
        assert (tick["callId"], tick["currency"], tick["availableMinor"]) == (call.id, "NGN", 38_000)
        assert tick["chargedMinor"] == 100 * max(
            0, 500 - tick["remainingSeconds"] - (tick["remainingMs"] % 1000 > 0)
        )
    assert mine[-1]["chargedMinor"] > 100 * (talked - 5)
    assert [tick["chargedMinor"] for tick in mine] == sorted(tick["chargedMinor"] for tick in mine)
    await s.ann.end(call)
    await s.town.pass_(10, s.here, step=TURN)
    assert len(s.ann.letters("BILLING_TICK")) == len(mine), "nothing after the end"


async def test_the_payer_is_warned_once_at_sixty_and_once_at_fifteen_seconds_and_again_after_a_payment(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=10_000)
    call = await s.talk()
    await s.town.pass_(90, s.here, step=1)
    assert warnings(s.ann) == [60, 15]
    await s.town.pay_in(s.here, "ann", 4_000)
    await s.here.billing.run_wanted()
    await s.town.pass_(49, s.here, step=1)
    assert warnings(s.ann) == [60, 15, 15], "50 s are left after the payment: 60 were not passed again"
    await s.town.pay_in(s.here, "ann", 10_000)
    await s.here.billing.run_wanted()
    await s.town.pass_(110, s.here, step=1)
    assert warnings(s.ann) == [60, 15, 15, 60, 15]
    assert (await s.now(call)).end_reason is Reason.INSUFFICIENT_FUNDS
    assert warnings(s.bob) == []
    await s.town.charged_rightly(call)


def warnings(phone: Any) -> list[int]:
    return [warning["remainingSeconds"] for warning in phone.letters("BILLING_LOW_BALANCE")]


async def test_a_payment_that_reached_another_process_is_in_the_next_tick_and_nobody_is_warned(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=7_000)
    there = s.town.process("there")
    for process in (there, s.here, there):
        await process.calls.run_leases(8)
    await s.talk()
    await s.town.pass_(8, s.here, there, step=TURN)
    assert s.ann.letters("BILLING_TICK")[-1]["remainingSeconds"] <= 65
    await s.town.pay_in(there, "ann", 20_000)
    await there.billing.run_wanted()
    await s.town.pass_(2 * TURN, s.here, step=TURN)
    assert s.ann.letters("BILLING_TICK")[-1]["remainingSeconds"] >= 260
    await s.town.pass_(60, s.here, there, step=TURN)
    assert warnings(s.ann) == []


async def test_the_warnings_of_a_short_call_are_one(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    """Money for ten seconds is below both marks from the start."""
    s = await opened(db, clock, ids, money=1_000)
    await s.talk()
    await s.town.pass_(12, s.here, step=TURN)
    assert warnings(s.ann) == [9]


@pytest.mark.parametrize("when", ["in the middle", "after the last renewal"])
async def test_the_end_of_the_money_is_noticed_within_two_seconds_when_the_process_of_the_call_is_dead(
    db: Database, clock: VirtualClock, ids: CountingIds, when: str
) -> None:
    s = await opened(db, clock, ids, money=30_000)
    there = s.town.process("there")
    for process in (s.here, there):
        await process.calls.beat()
    call = await s.ann.request(s.bob)
    s.bob.process = there
    await s.bob.back()
    await s.bob.accept(call)
    dies_after = 30 if when == "in the middle" else 250
    await s.town.pass_(dies_after, s.here, there, step=5)
    s.here.life.dead = True
    s.ann.process = there
    await s.ann.back()
    await s.ann.resume(call)
    ends_at = (await s.now(call)).active_at
    assert ends_at is not None
    left = 300 - dies_after
    await s.town.pass_(left - 1, there, step=5)
    assert (await s.now(call)).state is State.ACTIVE, "it has renewed what the dead one should have"
    noticed: float = -1  # the jobs run once a second, as in the server
    while (await s.now(call)).live:
        noticed += 1
        clock.pass_(1)
        await there.jobs()
        assert noticed <= 2
    over = await s.town.charged_rightly(call)
    assert (over.end_reason, over.cost_minor) == (Reason.INSUFFICIENT_FUNDS, 30_000)
    assert over.ended_at is not None
    assert (over.ended_at - ends_at).total_seconds() == 300, "at exactly the end of the grant, however late"
    assert [len(phone.letters("CALL_ENDED")) for phone in (s.ann, s.bob)] == [1, 1]
    await s.town.books()


async def test_a_call_of_two_without_sockets_is_renewed_and_ended_by_whoever_lives(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    """Nobody connects anywhere, so the process that is left has never heard of the call."""
    s = await opened(db, clock, ids, money=20_000)
    there = s.town.process("there")
    ann, bob = (s.town.phone(s.here, name, rest=True) for name in ("ann", "bob"))
    call = await bob.accept(await ann.request(bob))
    await s.here.calls.flush_told()  # or the other would tell it, and so know it
    s.here.life.dead = True
    await s.town.pass_(199, there, step=1)
    assert (await s.now(call)).state is State.ACTIVE
    await s.town.pass_(2, there, step=1)
    over = await s.town.charged_rightly(call)
    assert (over.end_reason, over.cost_minor) == (Reason.INSUFFICIENT_FUNDS, 20_000)
    await s.town.books()


async def test_the_local_timer_tells_the_end_of_the_money_without_a_database(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=1_000)
    other = s.town.process("other")
    call = await s.talk()
    assert s.here.alarms.armed[call.id] == clock.pass_(10)
    await s.here.calls.beat()  # it lived until the end of the money
    # Whatever comes to the database from here on: it is as if it were cut off.
    s.here.life.dead = True
    with pytest.raises(Killed):
        await s.here.calls.alarm(call.id)
    for phone in (s.ann, s.bob):
        (told,) = phone.letters("CALL_ENDED")
        assert (told["reason"], told["cost"]) == (
            "insufficient_funds",
            {"amountMinor": 1_000, "currency": "NGN"},
        )
        assert told["call"]["state"] == "ended"
    assert (await s.now(call)).state is State.ACTIVE, "nobody could write it down"
    clock.pass_(77)
    await other.jobs()
    over = await s.town.charged_rightly(call)
    assert (over.end_reason, over.cost_minor, intervals(over)) == (Reason.INSUFFICIENT_FUNDS, 1_000, [10.0])
    await s.town.books()


def intervals(call: Any) -> list[float]:
    return [(i.end - i.start).total_seconds() for i in call.intervals]

"""E43 to E46 on a real mongod, with virtual time: nobody pays twice, for nothing, or more than there is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from pymongo.errors import ConnectionFailure

from models.calls.call import Call, Reason, State
from models.calls.store import CALLS
from models.db import Database
from models.errors import Refusal
from models.ledger.journal import Kind
from tests.fakes import CountingIds, VirtualClock
from tests.services.billing_house import BY_THE_SECOND, Stage, opened

# ------------------------------------------------------------------------------------------------- E43: once each


async def test_e43_two_workers_renewing_one_call_all_the_time_charge_each_second_once(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=100_000)
    there = s.town.process("there")
    call = await s.talk()
    for _ in range(25):
        clock.pass_(10)
        # Both know the call, each at its own version of it, and nobody waits for the other.
        there.calls.board.update(await s.now(call))
        await asyncio.gather(
            *(p.calls.renew(call.id) for p in (s.here, there)),
            *(p.calls.run_renewals() for p in (s.here, there)),
            *(p.calls.run_due() for p in (s.here, there)),
        )
    renewed = await s.now(call)
    assert renewed.charge is not None
    assert await s.town.kinds(call) == {
        Kind.HOLD: renewed.charge.postings,
        Kind.CAPTURE: renewed.charge.postings - 1,
    }
    assert renewed.charge.postings == 5, "at the ring, and every minute"
    clock.pass_(0.25)
    await s.ann.end(call)
    await asyncio.gather(*(p.calls.run_money() for p in (s.here, there)))
    over = await s.town.charged_rightly(call)
    assert over.cost_minor == 250 * 100
    await s.town.books()


async def test_e43_events_delivered_twice_charge_once(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=100_000)
    first = await s.ann.request(s.bob, op_id="tap")
    again = await s.ann.request(s.bob, op_id="tap")
    assert again.id == first.id
    assert await s.town.kinds(first) == {Kind.HOLD: 1}
    await s.bob.accept(first)
    await s.bob.accept(first)
    clock.pass_(60)
    for _ in range(3):
        await s.here.calls.run_renewals()
    assert await s.town.kinds(first) == {Kind.HOLD: 2, Kind.CAPTURE: 1}
    clock.pass_(30)
    for phone in (s.ann, s.ann, s.bob, s.bob):
        await phone.end(first)
    for _ in range(3):
        await s.here.meter.close(await s.now(first))
        await s.here.calls.run_money()
    assert await s.town.kinds(first) == {Kind.HOLD: 2, Kind.CAPTURE: 2, Kind.RELEASE: 1, Kind.SETTLE: 1}
    clock.pass_(86_400)
    for _ in range(3):
        await s.here.meter.clear(await s.now(first))
    assert (await s.town.kinds(first))[Kind.CLEAR] == 1
    assert (await s.town.charged_rightly(first)).cost_minor == 9_000
    assert (await s.town.wallet("bob")).primary == 7_200
    await s.town.books()


# --------------------------------------------------------------------------------------------- E44: never connected


async def connects_never(s: Stage) -> Call:
    call = await s.ann.request(s.bob, reports_media=True)
    call = await s.bob.accept(call, reports_media=True)
    assert call.state is State.ACCEPTED
    await s.town.pass_(31, s.here)
    return call


async def rings_out(s: Stage) -> Call:
    call = await s.ann.request(s.bob)
    await s.bob.ringing(call)
    await s.town.pass_(46, s.here)
    return call


async def rings_nowhere(s: Stage) -> Call:
    call = await s.ann.request(s.bob)
    await s.town.pass_(46, s.here)
    return call


async def is_declined(s: Stage) -> Call:
    return await s.bob.reject(await s.ann.request(s.bob))


async def meets_a_phone_call(s: Stage) -> Call:
    return await s.bob.reject(await s.ann.request(s.bob), reason=Reason.BUSY)


async def is_cancelled(s: Stage) -> Call:
    call = await s.ann.request(s.bob)
    s.town.clock.pass_(5)
    return await s.ann.end(call)


async def is_cancelled_before_it_came(s: Stage) -> Call:
    assert await s.here.calls.end(s.ann.device, op_id="tap") is None
    return await s.ann.request(s.bob, op_id="tap")


async def loses_its_caller(s: Stage) -> Call:
    call = await s.ann.request(s.bob)
    await s.bob.ringing(call)
    await s.ann.drop()
    await s.town.pass_(20, s.here)
    return call


NEVER: dict[Reason, list[Callable[[Stage], Awaitable[Call]]]] = {
    Reason.CONNECT_FAILED: [connects_never],
    Reason.NO_ANSWER: [rings_out],
    Reason.UNREACHABLE: [rings_nowhere],
    Reason.DECLINED: [is_declined],
    Reason.BUSY: [meets_a_phone_call],
    Reason.CANCELLED: [is_cancelled, is_cancelled_before_it_came],
    Reason.CALLER_LOST: [loses_its_caller],
}


async def test_e44_a_call_that_never_connected_costs_nothing_and_gives_all_back(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    # With a fee and a minimum, which are due only once two people have talked.
    tariffs = replace(BY_THE_SECOND, connect_fee_minor=500, minimum_minor=1_000)
    s = await opened(db, clock, ids, money=100_000, tariffs=tariffs)
    for reason, ways in NEVER.items():
        for way in ways:
            s.ann.connect()
            over = await s.now(await way(s))
            assert (over.end_reason, over.cost_minor) == (reason, 0), way.__name__
            assert over.charge is not None, "money was held"
            assert await s.town.kinds(over) == {Kind.HOLD: 1, Kind.RELEASE: 1}, way.__name__
            assert await s.town.pockets("ann") == (100_000, 0), way.__name__
            clock.pass_(60)
    assert await s.town.ledger.wallet("bob", "NGN") is None, "nobody was paid"
    await s.town.books()


async def test_e44_somebody_who_is_in_a_call_already_costs_nothing_either(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=100_000, others=["eve"])
    await s.town.pay_in(s.here, "eve", 100_000)
    await s.talk()
    eve = s.town.phone(s.here, "eve")
    with pytest.raises(Refusal, match="CALL_BUSY"):
        await eve.request(s.bob)
    assert await s.town.pockets("eve") == (100_000, 0)
    (busy,) = await s.town.calls_of("eve")
    assert (busy.end_reason, busy.cost_minor, busy.charge) == (Reason.BUSY, 0, None)
    await s.town.books()


# ------------------------------------------------------------------------------------------------ E45: just enough


@pytest.mark.parametrize("block", [1, 6, 60])
async def test_e45_money_for_exactly_one_slice_is_one_slice_to_the_millisecond(
    db: Database, clock: VirtualClock, ids: CountingIds, block: int
) -> None:
    tariffs = replace(BY_THE_SECOND, first_block_seconds=block, block_seconds=block)
    s = await opened(db, clock, ids, money=100 * block, tariffs=tariffs)
    call = await s.talk()
    clock.pass_(block - 0.001)
    await s.here.jobs()
    assert (await s.now(call)).state is State.ACTIVE
    clock.pass_(0.001)
    await s.here.calls.alarm(call.id)
    over = await s.town.charged_rightly(call)
    assert (over.end_reason, over.ended_at, over.cost_minor) == (
        Reason.INSUFFICIENT_FUNDS,
        clock.now(),
        100 * block,
    )
    assert await s.town.pockets("ann") == (0, 0)
    await s.town.books()


async def test_e45_what_is_sent_away_in_mid_call_shortens_it_but_never_what_was_promised(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=300 * 100, others=["eve"])
    call = await s.talk()
    clock.pass_(10)
    before = await s.town.wallet("ann")
    assert before.primary_held == 12_000, "two periods are reserved"
    with pytest.raises(Refusal, match="INSUFFICIENT_FUNDS"):
        await s.town.send(s.here, "ann", "eve", before.primary + 1)
    await s.town.send(s.here, "ann", "eve", before.primary)
    await s.here.billing.run_wanted()
    shorter = await s.now(call)
    assert shorter.charge is not None
    assert (shorter.charge.reach_ms, shorter.charge.granted_ms) == (120_000, 120_000)
    assert await s.town.pockets("ann") == (0, 12_000)
    await s.town.pass_(112, s.here, step=1)
    over = await s.town.charged_rightly(call)
    assert (over.end_reason, over.cost_minor) == (Reason.INSUFFICIENT_FUNDS, 12_000)
    await s.town.books()


# --------------------------------------------------------------------------------------- E46: money comes and goes


async def test_e46_a_payment_that_reaches_another_process_in_the_last_second_lets_the_call_go_on(
    db: Database, clock: VirtualClock, ids: CountingIds, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By the machine's time, and this machine may be busy: here the database is there, however slow.
    monkeypatch.setattr("models.calls.upkeep.CUT_OFF_PATIENCE", 60)
    s = await opened(db, clock, ids, money=1_000)
    there = s.town.process("there")
    call = await s.talk()
    await s.here.jobs()
    clock.pass_(9.5)
    await s.town.pay_in(there, "ann", 20_000)
    await there.billing.run_wanted()
    # The process that holds the call has heard nothing yet when its own timer rings.
    clock.pass_(0.5)
    await s.here.calls.alarm(call.id)
    assert s.ann.letters("CALL_ENDED") == []
    assert (await s.now(call)).state is State.ACTIVE
    await s.here.jobs()
    assert s.ann.letters("BILLING_TICK")[-1]["remainingSeconds"] == 200
    await s.town.pass_(150, s.here, step=5)
    await s.ann.end(call)
    assert (await s.town.charged_rightly(call)).cost_minor == 16_000
    await s.town.books()


async def test_e46_money_that_comes_or_goes_moves_the_end_of_the_call_at_once(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=200 * 100, others=["eve"])
    call = await s.talk()
    said = []
    for change in (0, 6_000, -10_000):
        clock.pass_(10)
        if change > 0:
            await s.town.pay_in(s.here, "ann", change)
        elif change:
            await s.town.send(s.here, "ann", "eve", -change)
        held = (await s.town.wallet("ann")).primary_held
        await s.here.billing.run_wanted()
        assert (await s.town.wallet("ann")).primary_held == held, "nothing is due yet"
        await s.here.jobs()
        said.append(s.ann.letters("BILLING_TICK")[-1]["remainingSeconds"])
    assert said == [190, 240, 130]
    await s.ann.end(call)
    assert (await s.town.charged_rightly(call)).cost_minor == 3_000
    await s.town.books()


async def test_e46_a_wallet_frozen_in_mid_call_pays_what_it_has_promised_and_no_more(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=100_000)
    call = await s.talk()
    clock.pass_(10)
    frozen = await s.here.ledger.store.freeze("ann:NGN", True)
    assert frozen is not None
    await s.here.ledger.announce([frozen])
    await s.here.billing.run_wanted()
    await s.here.jobs()
    assert s.ann.letters("BILLING_TICK")[-1]["remainingSeconds"] == 110
    await s.town.pass_(112, s.here, step=1)
    over = await s.town.charged_rightly(call)
    assert (over.end_reason, over.cost_minor) == (Reason.INSUFFICIENT_FUNDS, 12_000)
    assert await s.town.pockets("ann") == (88_000, 0)
    with pytest.raises(Refusal, match="WALLET_FROZEN"):
        await s.ann.request(s.bob)
    await s.town.books()


async def test_a_call_that_another_transaction_holds_keeps_no_other_from_going_on_with_the_money_that_came(
    db: Database, clock: VirtualClock, ids: CountingIds, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = await opened(db, clock, ids, money=1_000, others=["cid", "dan"])
    await s.town.pay_in(s.here, "cid", 1_000)
    cid, dan = s.town.phone(s.here, "cid"), s.town.phone(s.here, "dan")
    held, free = await s.talk(), await dan.accept(await cid.request(dan))
    await s.here.billing.run_wanted()
    for name in ("ann", "cid"):
        await s.town.pay_in(s.here, name, 20_000)
    monkeypatch.setattr("models.db.TRANSACTION_SECONDS", 0.6)

    async def reach_ms() -> list[int | None]:
        return [
            charge.reach_ms for call in (held, free) if (charge := (await s.now(call)).charge) is not None
        ]

    async with db.client.start_session() as dead, await dead.start_transaction():
        await db[CALLS].update_one({"_id": held.id}, {"$set": {"held": True}}, session=dead)
        await s.here.billing.run_wanted()
        await dead.abort_transaction()
    assert await reach_ms() == [10_000, 210_000]
    await s.here.billing.run_wanted()
    assert await reach_ms() == [210_000, 210_000]
    await s.town.books()


async def test_without_a_database_all_keep_their_places_for_the_money_that_came(
    db: Database, clock: VirtualClock, ids: CountingIds, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = await opened(db, clock, ids, money=1_000)
    call, asked = await s.talk(), list[str]()
    s.here.billing.want(["ann", "bob", "cid"])

    async def away(user_id: str) -> None:
        asked.append(user_id)
        raise ConnectionFailure("no database")

    with monkeypatch.context() as gone:
        gone.setattr(s.here.calls, "renew_for", away)
        with pytest.raises(ConnectionFailure):
            await s.here.billing.run_wanted()
    assert len(asked) == 1, "the others would fail as well"
    await s.town.pay_in(s.town.process("there"), "ann", 20_000)
    await s.here.billing.run_wanted()
    charge = (await s.now(call)).charge
    assert charge is not None
    assert charge.reach_ms == 210_000

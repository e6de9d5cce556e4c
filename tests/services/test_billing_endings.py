"""E47 to E51 on a real mongod, with virtual time: what was proven is paid, at the quoted price, and the books agree."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from models.billing.tariffs import Tariffs
from models.calls.call import Reason, State
from models.calls.tariff import cost
from models.db import Database
from models.ledger.journal import Kind
from models.users.store import USERS
from tests.fakes import CountingIds, VirtualClock
from tests.services.billing_house import BY_THE_SECOND, intervals_ms, opened, price_of

# --------------------------------------------------------------------------------------------- E47: reconnecting


async def test_e47_the_slices_of_a_call_that_reconnects_are_its_intervals_and_no_more(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=60 * 100)
    call = await s.talk()
    for talked, away in ((10.4, 5), (0.35, 20), (12.2, 29)):
        clock.pass_(talked)
        await s.bob.drop()
        assert (await s.now(call)).state is State.RECONNECTING
        await s.town.pass_(away, s.here)
        tick = s.ann.letters("BILLING_TICK")
        assert len({one["chargedMinor"] for one in tick[-2:]}) == 1, "nothing is charged meanwhile"
        await s.bob.back()
        await s.bob.resume(call)
    # 54 s were lost and not paid for: what was bought is still 60 s of conversation.
    going = await s.now(call)
    assert going.charge is not None
    assert going.charge.granted_ms == 60_000
    assert going.deadline_at is not None
    assert round((going.deadline_at - clock.now()).total_seconds(), 3) == 60 - 22.95
    await s.town.pass_(38, s.here, step=0.5)
    over = await s.town.charged_rightly(call)
    assert (over.end_reason, over.cost_minor) == (Reason.INSUFFICIENT_FUNDS, 6_000)
    assert intervals_ms(over) == [10_400, 350, 12_200, 37_050]
    kinds = await s.town.kinds(call)
    assert kinds[Kind.SETTLE] == 1
    await s.town.books()


async def test_e47_who_never_comes_back_pays_up_to_the_last_proof(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=100_000)
    call = await s.talk()
    clock.pass_(100)
    await s.here.jobs()
    await s.bob.drop(unheard_seconds=7.5)
    await s.town.pass_(31, s.here)
    over = await s.town.charged_rightly(call)
    assert (over.end_reason, over.cost_minor) == (Reason.CONNECTION_LOST, 9_200)
    await s.town.books()


# ------------------------------------------------------------------------------------------------ E48: two ends


async def test_e48_hang_ups_of_both_and_the_end_of_the_money_at_one_instant_settle_once(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=10_000)
    there = s.town.process("there")
    call = await s.ann.request(s.bob)
    s.bob.process = there
    await s.bob.back()
    call = await s.bob.accept(call)
    clock.pass_(100)
    await asyncio.gather(
        s.ann.end(call),
        s.bob.end(call),
        s.here.calls.alarm(call.id),
        there.calls.alarm(call.id),
        there.calls.run_due(),
        s.here.calls.run_money(),
    )
    over = await s.town.charged_rightly(call)
    # Whoever was quicker: the money was over at this instant.
    assert (over.end_reason, over.cost_minor, over.ended_at) == (
        Reason.INSUFFICIENT_FUNDS,
        10_000,
        clock.now(),
    )
    kinds = await s.town.kinds(call)
    assert (kinds[Kind.SETTLE], Kind.RELEASE in kinds) == (1, False)
    for process in (s.here, there):
        await process.jobs()
    for phone in (s.ann, s.bob):
        assert (await s.town.log(phone.user_id)).count("CALL_ENDED") == 1
    await s.town.books()


# ------------------------------------------------------------------------------------------ E49: the quoted tariff


async def test_e49_whatever_the_rate_becomes_meanwhile_the_call_costs_what_was_quoted(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=1_000_000)
    await s.here.users.change_profile(
        "bob", {"rate_per_minute_minor": 1_200, "video_rate_per_minute_minor": 2_400}
    )
    s.town.tariffs = replace(BY_THE_SECOND, rate_minor=60_000, block_seconds=60, minimum_minor=9_999)
    s.town.share_bps = 5_000
    there = s.town.process("there")
    call = await s.ann.request(s.bob)
    assert call.price.rate_per_minute_minor == 1_200
    await s.here.users.change_profile("bob", {"rate_per_minute_minor": 600_000})
    call = await s.bob.accept(call)
    # From here on the other process does all the work.
    s.here.life.dead = True
    s.bob.process = s.ann.process = there
    for phone in (s.ann, s.bob):
        await phone.back()
    await s.town.pass_(130, there)
    await there.calls.ask_upgrade(s.bob.device, call.id, type="video")
    asked = (await s.now(call)).upgrade
    assert asked is not None
    assert asked.price.rate_per_minute_minor == 2_400
    await there.users.change_profile("bob", {"video_rate_per_minute_minor": 1_000_000})
    call = await there.calls.answer_upgrade(s.ann.device, call.id, accept=True)
    clock.pass_(30)
    over = await s.ann.end(call)
    over = await s.town.charged_rightly(over)
    (audio,) = over.earlier
    assert over.cost_minor == price_of(audio.price, [130_000]) + price_of(over.price, [30_000])
    assert (audio.price.rate_per_minute_minor, over.price.rate_per_minute_minor) == (1_200, 2_400)
    assert over.charge is not None
    assert over.charge.commission_minor == over.cost_minor - over.cost_minor * 8 // 10, (
        "the share of the ring"
    )
    await s.town.books()


# --------------------------------------------------------------------------------------------- E50: the payee goes


@pytest.mark.parametrize("how", ["blocked by the payer", "blocked by the payee", "banned"])
async def test_e50_a_payee_who_is_gone_in_mid_call_is_paid_for_the_proven_time(
    db: Database, clock: VirtualClock, ids: CountingIds, how: str
) -> None:
    s = await opened(db, clock, ids, money=100_000)
    call = await s.talk()
    clock.pass_(42)
    match how:
        case "blocked by the payer":
            await s.here.users.block("ann", "bob")
        case "blocked by the payee":
            await s.here.users.block("bob", "ann")
        case _:
            await db[USERS].update_one({"_id": "bob"}, {"$set": {"status": "banned"}})
            await s.here.calls.end_all("bob")
    over = await s.town.charged_rightly(call)
    assert (over.end_reason, over.cost_minor) == (Reason.POLICY, 4_200)
    assert (await s.town.wallet("bob")).pending == 3_360
    assert await s.town.pockets("ann") == (95_800, 0)
    clock.pass_(86_400)
    await s.here.jobs()
    assert (await s.town.wallet("bob")).primary == 3_360
    await s.town.books()


# ------------------------------------------------------------------------------------------- E51: at any instant


async def test_e51_the_books_agree_at_every_instant_of_a_long_day(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    tariffs = Tariffs(
        rate_minor=3_333, first_block_seconds=30, block_seconds=7, minimum_minor=50, connect_fee_minor=11
    )
    s = await opened(db, clock, ids, money=50_000, tariffs=tariffs, others=["eve"])
    await s.town.pay_in(s.here, "eve", 5_000)
    eve = s.town.phone(s.here, "eve")

    async def pass_(seconds: float, step: float = 13) -> None:
        while seconds > 0:
            clock.pass_(min(step, seconds))
            seconds -= step
            await s.here.jobs()
            await s.town.books()

    call = await s.ann.request(s.bob)
    await s.town.books()
    await s.bob.accept(call)
    await pass_(100)
    await s.bob.drop()
    await pass_(10)
    await s.bob.back()
    await s.bob.resume(call)
    await s.town.send(s.here, "ann", "eve", 20_000)
    await s.here.billing.run_wanted()
    await pass_(150)
    first = await s.ann.end(call)
    await s.town.books()
    back = await eve.request(s.bob)
    await pass_(5)
    await s.bob.reject(back)
    await s.town.books()
    second = await s.bob.accept(await eve.request(s.bob))
    await pass_(40)
    await s.bob.end(second)
    await s.here.calls.refund(first.id, amount_minor=1_234, key="first")
    await s.town.books()
    await pass_(86_400, step=43_200)
    await s.here.calls.refund(second.id)
    await s.here.calls.refund(first.id)
    await s.town.books()
    assert (await s.now(first)).cost_minor == (await s.now(second)).cost_minor == 0
    assert cost(await s.now(second)) > 0
    balances = [await s.town.wallet(name) for name in ("ann", "eve", "bob")]
    assert [w.spendable + w.primary_held for w in balances] == [30_000, 25_000, 0]
    assert (balances[2].owed, balances[2].pending) == (0, 0)

"""A paid call from the ring to the payee's purse, on a real mongod, with virtual time."""

from __future__ import annotations

import pytest

from models.audit.service import audit
from models.billing.tariffs import Tariffs
from models.calls import tariff
from models.calls.call import Purse, Reason, Stage, State
from models.db import Database
from models.errors import Refusal
from models.ledger.journal import Pocket
from models.users.store import USERS
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Phone, Process, Town

# 100 a second in whole minutes would be 6000; this one is by the second, so that every second shows.
BY_THE_SECOND = Tariffs(rate_minor=6_000, first_block_seconds=1, block_seconds=1, minimum_minor=0)


async def opened(
    db: Database, clock: VirtualClock, ids: CountingIds, *, money: int, tariffs: Tariffs = BY_THE_SECOND
) -> tuple[Town, Process, Phone, Phone]:
    """Ann, with money, and Bob, both at one process."""
    town = Town(db, clock, ids)
    town.tariffs = tariffs
    await town.people("ann", "bob")
    here = town.process("here")
    if money:
        await town.pay_in(here, "ann", money)
    return town, here, town.phone(here, "ann"), town.phone(here, "bob")


async def test_a_call_is_held_captured_released_settled_and_cleared(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, here, ann, bob = await opened(db, clock, ids, money=100_000)
    call = await ann.request(bob)
    wallet = await town.wallet("ann")
    assert (wallet.primary, wallet.primary_held) == (88_000, 12_000), "two periods of a minute are held"
    call = await bob.accept(call)
    assert call.state is State.ACTIVE
    await town.pass_(61, here, step=1)
    wallet = await town.wallet("ann")
    assert wallet.primary + wallet.primary_held == 100_000 - 6_000, "the first minute is captured"
    await town.pass_(4, here, step=1)
    call = await ann.end(call)
    assert (call.cost_minor, call.end_reason) == (6_500, Reason.COMPLETED)
    wallet = await town.wallet("ann")
    assert (wallet.primary, wallet.primary_held) == (93_500, 0)
    earned = await town.wallet("bob")
    assert (earned.pending, earned.primary) == (5_200, 0)
    await town.pass_(86_400 - 1, here, step=86_399)
    assert (await town.wallet("bob")).primary == 0
    await town.pass_(1, here)
    earned = await town.wallet("bob")
    assert (earned.pending, earned.primary) == (0, 5_200)
    charge = (await town.call(call)).charge
    assert charge is not None
    assert (charge.stage, charge.captured) == (Stage.CLEARED, Purse(0, 6_500))


async def test_without_money_nobody_rings(db: Database, clock: VirtualClock, ids: CountingIds) -> None:
    town, _, ann, bob = await opened(db, clock, ids, money=99)
    with pytest.raises(Refusal) as no:
        await ann.request(bob)
    assert (no.value.code, no.value.status) == ("INSUFFICIENT_FUNDS", 402)
    assert no.value.details == {"requiredMinor": 100, "availableMinor": 99, "currency": "NGN"}
    assert bob.told() == []
    assert await town.locks() == {}
    assert (await town.wallet("ann")).version == 1


async def test_call_credits_are_spent_before_the_primary_balance(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, here, ann, bob = await opened(db, clock, ids, money=100_000)
    await town.pay_in(here, "ann", 500, into=Pocket.CREDITS)
    call = await bob.accept(await ann.request(bob))
    await town.pass_(7, here, step=1)
    call = await ann.end(call)
    wallet = await town.wallet("ann")
    assert (wallet.credits, wallet.primary, call.cost_minor) == (0, 99_800, 700)


async def test_e45_money_for_ten_seconds_is_a_call_of_ten_seconds(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, here, ann, bob = await opened(db, clock, ids, money=1_050)
    call = await bob.accept(await ann.request(bob))
    assert call.deadline_at is not None
    assert (call.deadline_at - clock.now()).total_seconds() == 10
    await town.pass_(12, here, step=1)
    over = await town.call(call)
    assert (over.end_reason, over.cost_minor, over.spoken_seconds()) == (Reason.INSUFFICIENT_FUNDS, 1_000, 10)
    assert (await town.wallet("ann")).primary == 50
    assert [x["remainingSeconds"] for x in ann.letters("BILLING_LOW_BALANCE")] == [9]


async def test_e46_a_top_up_in_the_last_second_lets_the_call_go_on(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, here, ann, bob = await opened(db, clock, ids, money=1_000)
    call = await bob.accept(await ann.request(bob))
    clock.pass_(9.5)
    await town.pay_in(here, "ann", 500)
    await here.billing.run_wanted()
    clock.pass_(3)
    await here.jobs()
    assert (await town.call(call)).state is State.ACTIVE
    clock.pass_(3)
    await here.jobs()
    over = await town.call(call)
    assert (over.end_reason, over.cost_minor) == (Reason.INSUFFICIENT_FUNDS, 1_500)


async def test_video_at_another_price_is_a_segment_of_its_own(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    tariffs = Tariffs(
        rate_minor=6_000, video_rate_minor=12_000, first_block_seconds=1, block_seconds=1, minimum_minor=0
    )
    _town, here, ann, bob = await opened(db, clock, ids, money=100_000, tariffs=tariffs)
    call = await bob.accept(await ann.request(bob))
    clock.pass_(10)
    call = await here.calls.ask_upgrade(bob.device, call.id, type="video")
    assert ann.letters("CALL_UPGRADE")[-1]["price"]["ratePerMinuteMinor"] == 12_000
    clock.pass_(2)
    call = await here.calls.answer_upgrade(ann.device, call.id, accept=True)
    assert (call.type, call.price.rate_per_minute_minor) == ("video", 12_000)
    clock.pass_(5)
    call = await ann.end(call)
    assert call.cost_minor == 12 * 100 + 5 * 200
    assert [(s.type, s.talk_ms) for s in call.earlier] == [("audio", 12_000)]


async def test_a_refund_in_parts_takes_back_from_both_what_they_got(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, here, ann, bob = await opened(db, clock, ids, money=1_000)
    call = await bob.accept(await ann.request(bob))
    await town.pass_(30, here, step=1)
    first = await here.calls.refund(call.id, amount_minor=333, key="one")
    again = await here.calls.refund(call.id, amount_minor=333, key="one")
    assert first.cost_minor == again.cost_minor == 667
    assert (await town.wallet("bob")).pending == 667 * 8 // 10
    await here.calls.refund(call.id)
    assert ((await town.wallet("bob")).pending, (await town.wallet("ann")).primary) == (0, 1_000)
    with pytest.raises(Refusal) as no:
        await here.calls.refund(call.id)
    assert no.value.code == "REFUND_TOO_LARGE"


async def test_what_was_paid_out_already_is_owed_after_a_refund_and_kept_back_from_the_next_earnings(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, here, ann, bob = await opened(db, clock, ids, money=2_000)
    town.processes[0].meter._dispute *= 0
    call = await bob.accept(await ann.request(bob))
    clock.pass_(10)
    await ann.end(call)
    await here.jobs()
    wallet = await town.wallet("bob")
    assert wallet.primary == 800
    bobs = await bob.request(ann)
    ann_side = await ann.accept(bobs)
    clock.pass_(5)
    await bob.end(ann_side)
    await here.jobs()
    assert (await town.wallet("bob")).primary == 300
    await here.calls.refund(call.id)
    wallet = await town.wallet("bob")
    assert (wallet.primary, wallet.owed) == (0, 500)
    call = await bob.accept(await ann.request(bob))
    clock.pass_(10)
    await ann.end(call)
    await here.jobs()
    wallet = await town.wallet("bob")
    assert (wallet.primary, wallet.owed) == (300, 0)


async def test_what_was_silent_before_an_upgrade_is_charged_under_neither_price(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    """Proof of media until second 10, an upgrade at 16, and then the line is found dead: ten seconds were talked."""
    tariffs = Tariffs(
        rate_minor=6_000, video_rate_minor=12_000, first_block_seconds=1, block_seconds=1, minimum_minor=0
    )
    _town, here, ann, bob = await opened(db, clock, ids, money=100_000, tariffs=tariffs)
    call = await bob.accept(await ann.request(bob))
    clock.pass_(10)
    await bob.hears(call, 50)
    clock.pass_(6)
    await here.calls.ask_upgrade(ann.device, call.id, type="video")
    call = await here.calls.answer_upgrade(bob.device, call.id, accept=True)
    clock.pass_(1)
    call = await bob.hears(call, 0)
    assert [(s.type, s.talk_ms) for s in call.earlier] == [("audio", 10_000)]
    assert call.charge is not None
    assert (
        tariff.cost_of(call.price, (call.charge.granted_ms or 0) - 10_000)
        <= call.charge.secured_minor - 1_000
    )
    over = await ann.end(call)
    assert (over.cost_minor, over.talk_ms()) == (1_000, 10_000)
    assert (await audit(db, clock.now())).clean


async def test_video_in_another_currency_than_the_call_is_refused(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, here, ann, bob = await opened(db, clock, ids, money=100_000)
    await db[USERS].update_one(
        {"_id": "bob"}, {"$set": {"currency": "KWD", "video_rate_per_minute_minor": 500}}
    )
    call = await bob.accept(await ann.request(bob))
    with pytest.raises(Refusal) as no:
        await here.calls.ask_upgrade(ann.device, call.id, type="video")
    assert no.value.code == "CURRENCY_MISMATCH"
    assert (await town.call(call)).upgrade is None


async def test_the_payees_word_alone_keeps_a_paid_call_going_for_ten_minutes_and_no_longer(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    """A locked screen may stop the payer's heartbeat (E42), but nobody earns on their own reports for hours."""
    town, here, ann, bob = await opened(db, clock, ids, money=1_000_000)
    call = await bob.accept(await ann.request(bob))
    await bob.hears(call, 50)
    await ann.drop()
    for _ in range(130):
        await town.pass_(5, here, step=5)
        if not (await town.call(call)).live:
            break
        await bob.hears(call, 50)
    over = await town.call(call)
    assert over.end_reason is Reason.CONNECTION_LOST
    assert 595 <= over.spoken_seconds() <= 600
    assert over.cost_minor == 100 * over.spoken_seconds()


async def test_what_the_payer_has_is_not_told_to_the_payee_who_accepts_an_upgrade(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    """A payer who cannot pay for video is told when asking for it; the other side learns no amounts."""
    tariffs = Tariffs(
        rate_minor=6_000, video_rate_minor=600_000, first_block_seconds=1, block_seconds=1, minimum_minor=0
    )
    town, here, ann, bob = await opened(db, clock, ids, money=5_000, tariffs=tariffs)
    call = await bob.accept(await ann.request(bob))
    clock.pass_(2)
    with pytest.raises(Refusal) as no:
        await here.calls.ask_upgrade(ann.device, call.id, type="video")
    assert (no.value.code, no.value.details["requiredMinor"]) == ("INSUFFICIENT_FUNDS", 10_000)
    assert bob.letters("CALL_UPGRADE") == []
    await here.calls.ask_upgrade(bob.device, call.id, type="video")
    with pytest.raises(Refusal) as no:
        await here.calls.answer_upgrade(ann.device, call.id, accept=True)
    assert no.value.details["availableMinor"] == 4_800
    await here.calls.answer_upgrade(ann.device, call.id, accept=False)
    await town.pay_in(here, "ann", 10_000)
    await here.calls.ask_upgrade(ann.device, call.id, type="video")
    await here.ledger.freeze("ann", frozen=True)
    with pytest.raises(Refusal) as no:
        await here.calls.answer_upgrade(bob.device, call.id, accept=True)
    assert (no.value.code, no.value.details) == ("INSUFFICIENT_FUNDS", {})


async def test_a_key_refunds_one_amount(db: Database, clock: VirtualClock, ids: CountingIds) -> None:
    _town, here, ann, bob = await opened(db, clock, ids, money=1_000)
    call = await bob.accept(await ann.request(bob))
    clock.pass_(5)
    await ann.end(call)
    await here.calls.refund(call.id, amount_minor=100, key="k")
    assert (await here.calls.refund(call.id, amount_minor=100, key="k")).cost_minor == 400
    with pytest.raises(Refusal) as no:
        await here.calls.refund(call.id, amount_minor=101, key="k")
    assert no.value.code == "IDEMPOTENCY_MISMATCH"

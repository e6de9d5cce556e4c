"""Which calls cost what, and what is asked of whom before they do: free, in other currencies, merged, upgraded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.billing.tariffs import Tariffs
from models.calls.call import Call, Reason, State
from models.db import Database
from models.errors import Refusal
from models.ledger.journal import Kind, Pocket
from models.users.store import USERS
from tests.fakes import CountingIds, VirtualClock
from tests.services.billing_house import BY_THE_SECOND, Stage, opened, price_of
from tests.services.callkit import offer


async def test_a_free_call_needs_no_wallet_and_makes_none(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    # The fee and the minimum belong to calls that cost something.
    free = Tariffs(rate_minor=0, connect_fee_minor=500, minimum_minor=1_000)
    s = await opened(db, clock, ids, money=0, tariffs=free)
    call = await s.talk()
    await s.town.pass_(100, s.here, step=10)
    over = await s.ann.end(call)
    assert (over.cost_minor, over.charge, over.end_reason) == (0, None, Reason.COMPLETED)
    assert s.ann.letters("BILLING_TICK") == []
    assert await db["wallets"].count_documents({}) == await db["journal"].count_documents({}) == 0


async def test_a_frozen_payer_rings_nobody_and_a_frozen_payee_is_paid(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=1_000)
    await s.here.ledger.ensure("bob", "NGN")
    await s.here.ledger.store.freeze("bob:NGN", True)
    call = await s.talk()
    clock.pass_(5)
    await s.ann.end(call)
    assert (await s.town.wallet("bob")).pending == 400
    await s.here.ledger.store.freeze("ann:NGN", True)
    with pytest.raises(Refusal, match="WALLET_FROZEN"):
        await s.ann.request(s.bob)
    assert s.bob.told().count("CALL_REQUEST") == 1
    assert await s.town.locks() == {}
    await s.town.books()


async def test_of_two_who_call_each_other_the_one_whose_call_rings_pays(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=10_000)
    await s.town.pay_in(s.here, "bob", 10_000)
    rings = await s.ann.request(s.bob, offer=offer())
    merged = await s.bob.request(s.ann, offer=offer("other"))
    assert (merged.id, merged.state) == (rings.id, State.ACTIVE)
    assert [await s.town.pockets(name) for name in ("ann", "bob")] == [(0, 10_000), (10_000, 0)]
    clock.pass_(10)
    over = await s.town.charged_rightly(await s.bob.end(merged))
    assert over.cost_minor == 1_000
    assert [await s.town.pockets(name) for name in ("ann", "bob")] == [(9_000, 0), (10_000, 0)]
    assert (await s.town.wallet("bob")).pending == 800
    await s.town.books()


async def test_a_price_above_the_agreed_one_rings_nobody(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=10_000)
    with pytest.raises(Refusal) as no:
        await s.ann.request(s.bob, max_rate_per_minute_minor=5_999)
    assert (no.value.code, no.value.details) == (
        "PRICE_CHANGED",
        {"ratePerMinuteMinor": 6_000, "currency": "NGN"},
    )
    assert (s.bob.told(), await s.town.pockets("ann")) == ([], (10_000, 0))
    call = await s.ann.request(s.bob, max_rate_per_minute_minor=6_000)
    assert call.state is State.RINGING


# --------------------------------------------------------------------------------------------------------- upgrades


async def upgraded(s: Stage, call: Call) -> Call:
    """Bob asks for video and Ann, who pays, says yes."""
    await s.here.calls.ask_upgrade(s.bob.device, call.id, type="video")
    return await s.here.calls.answer_upgrade(s.ann.device, call.id, accept=True)


async def test_an_upgrade_that_cannot_be_paid_is_refused_and_the_call_goes_on_as_audio(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    tariffs = replace(BY_THE_SECOND, video_rate_minor=60_000)
    s = await opened(db, clock, ids, money=1_000, tariffs=tariffs)
    call = await s.talk()
    clock.pass_(5)
    before = await s.town.pockets("ann")
    # 500 have been talked and 500 are left: not a second of video, which costs 1000.
    with pytest.raises(Refusal) as no:
        await upgraded(s, call)
    assert (no.value.code, no.value.status) == ("INSUFFICIENT_FUNDS", 402)
    assert no.value.details == {"requiredMinor": 1_000, "availableMinor": 500, "currency": "NGN"}
    going = await s.now(call)
    assert (going.type, going.state, going.price.rate_per_minute_minor) == ("audio", State.ACTIVE, 6_000)
    assert going.upgrade is not None, "it can be agreed to once there is money"
    assert await s.town.pockets("ann") == before
    await s.town.pay_in(s.here, "ann", 1_000)
    video = await s.here.calls.answer_upgrade(s.ann.device, call.id, accept=True)
    assert video.type == "video"
    clock.pass_(1)
    await s.here.calls.alarm(call.id)
    over = await s.town.charged_rightly(call)
    assert (over.end_reason, over.cost_minor) == (Reason.INSUFFICIENT_FUNDS, 500 + 1_000)
    assert await s.town.pockets("ann") == (500, 0)
    await s.town.books()


async def test_free_audio_becomes_paid_video_and_only_the_video_is_paid(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    tariffs = replace(BY_THE_SECOND, rate_minor=0, video_rate_minor=12_000, connect_fee_minor=77)
    s = await opened(db, clock, ids, money=0, tariffs=tariffs)
    call = await s.talk()
    await s.town.pass_(300, s.here, step=30)
    with pytest.raises(Refusal, match="INSUFFICIENT_FUNDS"):
        await upgraded(s, call)
    await s.town.pay_in(s.here, "ann", 5_000)
    video = await s.here.calls.answer_upgrade(s.ann.device, call.id, accept=True)
    assert video.charge is not None
    assert video.charge.granted_ms == 300_000 + 25_000
    clock.pass_(10)
    over = await s.town.charged_rightly(await s.ann.end(call))
    assert over.cost_minor == price_of(over.price, [10_000]) == 2_000, (
        "without the fee, which a beginning costs"
    )
    assert (await s.town.wallet("bob")).pending == 1_600
    await s.town.books()


async def test_paid_audio_becomes_free_video_and_lasts_without_end(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=1_000, tariffs=replace(BY_THE_SECOND, video_rate_minor=0))
    call = await s.talk()
    clock.pass_(5)
    await upgraded(s, call)
    await s.town.pass_(600, s.here, step=60)
    assert s.ann.letters("BILLING_TICK")[-1]["remainingSeconds"] is None
    over = await s.town.charged_rightly(await s.ann.end(call))
    assert (over.cost_minor, over.end_reason) == (500, Reason.COMPLETED)
    assert await s.town.pockets("ann") == (500, 0)
    await s.town.books()


async def test_a_refused_upgrade_reserves_nothing(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=100_000, tariffs=replace(BY_THE_SECOND, video_rate_minor=12_000))
    call = await s.talk()
    await s.here.calls.ask_upgrade(s.bob.device, call.id, type="video")
    before = await s.town.pockets("ann")
    await s.here.calls.answer_upgrade(s.ann.device, call.id, accept=False)
    assert await s.town.pockets("ann") == before
    with pytest.raises(Refusal, match="PRICE_CHANGED"):
        await s.here.calls.ask_upgrade(s.ann.device, call.id, type="video", max_rate_per_minute_minor=11_999)
    clock.pass_(3)
    assert (await s.town.charged_rightly(await s.ann.end(call))).cost_minor == 300
    await s.town.books()


# ---------------------------------------------------------------------------------------------------- long, and far


async def test_a_long_call_with_a_full_wallet_takes_few_transactions(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=10_000_000)
    call = await s.talk()
    await s.town.pass_(7_200, s.here, step=20)
    kinds = await s.town.kinds(call)
    # 50 minutes ahead and more are paid for: every renewal reaches 5 minutes further.
    assert kinds[Kind.HOLD] == 1 + 7_200 // 300
    clock.pass_(100)
    over = await s.town.charged_rightly(await s.ann.end(call))
    assert over.cost_minor == 730_000
    assert await s.town.kinds(call) == {Kind.HOLD: 25, Kind.CAPTURE: 25, Kind.RELEASE: 1, Kind.SETTLE: 1}
    await s.town.books()


@pytest.mark.parametrize(
    ("currency", "rate", "talked_ms", "cost"),
    [
        (
            "JPY",
            75,
            [45_000, 44_100],
            112,
        ),  # 89.1 s are 90 s in blocks of 6: 112.5 yen, the even one of 112 and 113
        ("KWD", 1_001, [119_999], 2_002),  # 119.999 s are 120 s, two minutes: 2.002 dinars
    ],
)
async def test_yen_and_dinars_are_charged_in_their_own_minor_units(
    db: Database,
    clock: VirtualClock,
    ids: CountingIds,
    currency: str,
    rate: int,
    talked_ms: list[int],
    cost: int,
) -> None:
    # The callee's rate is in the callee's currency, whatever the platform's is.
    tariffs = Tariffs(
        rate_minor=6_000, first_block_seconds=30, block_seconds=6, minimum_minor=500, connect_fee_minor=3
    )
    s = await opened(db, clock, ids, money=0, tariffs=tariffs)
    await db[USERS].update_one(
        {"_id": "bob"}, {"$set": {"currency": currency, "rate_per_minute_minor": rate}}
    )
    await s.town.pay_in(s.here, "ann", 1_000_000)
    with pytest.raises(Refusal) as no:
        await s.ann.request(s.bob)
    assert (no.value.code, no.value.details["currency"]) == ("CURRENCY_MISMATCH", currency)
    await s.town.pay_in(s.here, "ann", 5_000, currency=currency)
    call = await s.talk()
    for number, ms in enumerate(talked_ms):
        if number:
            await s.bob.drop()
            clock.pass_(3)
            await s.bob.back()
            await s.bob.resume(call)
        clock.pass_(ms / 1000)
    over = await s.town.charged_rightly(await s.ann.end(call))
    assert (over.price.currency, over.cost_minor) == (currency, cost)
    assert (over.price.minimum_minor, over.price.connect_fee_minor) == (0, 0), "those are naira"
    bobs = await s.town.ledger.wallet("bob", currency)
    anns = await s.town.ledger.wallet("ann", currency)
    assert bobs is not None
    assert anns is not None
    assert over.charge is not None
    assert (bobs.pending, anns.primary, anns.primary_held) == (
        over.charge.earned_minor,
        5_000 - over.cost_minor,
        0,
    )
    assert (await s.town.wallet("ann")).primary == 1_000_000, "the naira have nothing to do with it"
    await s.town.books()


async def test_call_credits_and_primary_balance_are_held_and_given_back_each_to_its_own(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=1_000)
    await s.town.pay_in(s.here, "ann", 700, into=Pocket.CREDITS)
    await s.here.billing.run_wanted()
    call = await s.talk()
    wallet = await s.town.wallet("ann")
    assert (wallet.credits, wallet.credits_held, wallet.primary, wallet.primary_held) == (0, 700, 0, 1_000)
    clock.pass_(9)
    await s.ann.end(call)
    wallet = await s.town.wallet("ann")
    assert (wallet.credits, wallet.primary) == (0, 800)
    await s.here.calls.refund(call.id, amount_minor=300, key="some")
    wallet = await s.town.wallet("ann")
    assert (wallet.credits, wallet.primary) == (100, 1_000), "the primary balance first"
    await s.town.books()

"""Money that goes back: reversals that are told, refunds that we ask for; and call credits from the wallet."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from models.db import Database
from models.ledger.journal import Entry, Kind, Leg, Pocket, Wallet, account_of
from models.payments.gateway import GatewayAway, GatewayNo, PayState, RefundState
from models.payments.payment import Payment, Refund, RefundStage, Status
from models.payments.refunds.service import UNKNOWN_TRIES
from models.wallet.rules import Amount
from tests.fakes import CountingIds, VirtualClock
from tests.services.payments_house import ANN, BOB, PIN, House, Process
from tests.services.wallet_house import code_of, refused

HOUR = 3600
DAY = 24 * HOUR


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds) -> House:
    built = House(db, clock, ids)
    await built.people(ANN, BOB)
    return built


async def spend(house: House, minor: int) -> None:
    """Ann gives money away."""
    await house.one.wallets.transfer(
        *(ANN,), key=house.ids.new(), to=BOB, amount=Amount(minor=minor), currency=None, pin=PIN, note=None
    )


def back(house: House, payment: Payment, minor: int) -> None:
    """So much of it went back to who paid, in all."""
    state = PayState.REVERSED if minor >= payment.paid_minor else PayState.PAID
    house.till.now(payment.reference, state=state, reversed_minor=minor)


def pockets(wallet: Wallet) -> tuple[int, int, int]:
    return wallet.primary, wallet.credits, wallet.owed


# ---------------------------------------------------------------------------------------------------------- reversals


async def test_what_went_back_is_taken_from_the_wallet_which_is_frozen(house: House) -> None:
    payment = await house.paid()
    back(house, payment, 1000)
    await house.tell(house.till.tells(payment.reference, word="REVERSED"))
    wallet = await house.wallet()
    assert (pockets(wallet), wallet.frozen) == ((0, 0, 0), True)
    assert house.statuses(payment) == ["completed", "reversed"]
    name = f"{payment.gateway}:{payment.reference}"
    assert await house.entries(payment) == {f"pay:{name}": -1000, f"rev:{name}:1": 1000}
    for _ in range(3):
        await house.tell(house.till.tells(payment.reference, word="REVERSED"))
    assert pockets(await house.wallet()) == (0, 0, 0)
    await house.books()


async def test_what_was_spent_by_then_is_taken_from_the_other_account_and_then_owed(house: House) -> None:
    payment = await house.paid()
    await house.paid(into="call_credits", minor=300)
    await spend(house, 900)
    back(house, payment, 1000)
    await house.tell(house.till.tells(payment.reference))
    assert pockets(await house.wallet()) == (0, 0, 600)
    await house.books()


async def test_call_credits_that_were_paid_back_come_from_the_credits_first(house: House) -> None:
    await house.paid()
    payment = await house.paid(into="call_credits", minor=500)
    back(house, payment, 200)
    await house.tell(house.till.tells(payment.reference))
    assert pockets(await house.wallet()) == (1000, 300, 0)
    assert (await house.fresh(payment)).status is Status.COMPLETED, "in part"
    back(house, payment, 500)
    await house.tell(house.till.tells(payment.reference))
    assert pockets(await house.wallet()) == (1000, 0, 0)
    assert (await house.fresh(payment)).status is Status.REVERSED
    await house.books()


async def test_what_went_back_before_it_was_ever_credited_freezes_nobody(house: House) -> None:
    payment = await house.deposit()
    house.till.pays(payment.reference)
    house.till.now(payment.reference, state=PayState.REVERSED, reversed_minor=1000)
    await house.tell(house.till.tells(payment.reference))
    wallet = await house.wallet()
    assert (pockets(wallet), wallet.frozen) == ((0, 0, 0), False)
    assert (await house.fresh(payment)).status is Status.REVERSED
    await house.books()


async def test_a_wallet_that_was_opened_again_stays_open_when_the_same_is_told_once_more(
    house: House,
) -> None:
    payment = await house.paid()
    back(house, payment, 400)
    await house.tell(house.till.tells(payment.reference))
    await house.one.wallets.freeze(ANN, frozen=False)
    await house.tell(house.till.tells(payment.reference))
    assert not (await house.wallet()).frozen


@pytest.mark.parametrize("days", [1, 7, 30])
async def test_the_reconciler_finds_a_reversal_that_nobody_told(house: House, days: int) -> None:
    payment = await house.paid()
    house.clock.pass_(days * DAY - HOUR)
    await house.one.jobs()
    asked = house.till.asked["query"]
    back(house, payment, 1000)
    house.clock.pass_(HOUR)
    await house.one.jobs()
    assert house.till.asked["query"] == asked + 1
    assert (await house.fresh(payment)).status is Status.REVERSED


async def test_after_a_month_a_payment_is_let_be(house: House) -> None:
    await house.paid()
    for _ in range(60):
        house.clock.pass_(DAY)
        await house.one.jobs()
    assert house.till.asked["query"] == 1 + 3


async def test_held_money_is_not_taken_by_a_reversal(house: House) -> None:
    payment = await house.paid()
    key = f"{ANN}:NGN"
    legs = (
        Leg(account_of(key, Pocket.PRIMARY), -700, "NGN"),
        Leg(account_of(key, Pocket.PRIMARY_HELD), 700, "NGN"),
    )
    hold = Entry(id="call:c:h:0", kind=Kind.HOLD, at=house.clock.now(), legs=legs, call_id="c")
    await house.one.ledger.post([key], lambda _: [hold])
    back(house, payment, 1000)
    await house.tell(house.till.tells(payment.reference))
    wallet = await house.wallet()
    assert (wallet.primary, wallet.primary_held, wallet.owed) == (0, 700, 700)


# ------------------------------------------------------------------------------------------------------------ refunds


async def begun(house: House, payment: Payment, minor: int | None = None) -> Refund:
    return await house.one.refunds.begin(payment.reference, amount_minor=minor, reason="asked for")


async def test_a_refund_takes_the_money_first_and_is_done_by_the_gateway(house: House) -> None:
    payment = await house.paid()
    refund = await begun(house, payment, 400)
    assert (await house.money())[0] == 600
    assert house.till.asked["refund"] == 0
    done = await house.one.refunds.work(refund)
    assert (done.stage, house.till.asked["refund"]) == (RefundStage.DONE, 1)
    after = await house.fresh(payment)
    assert (after.status, after.reversed_minor, after.refunding_minor) == (Status.COMPLETED, 400, 0)
    assert not (await house.wallet()).frozen
    rest = await house.one.refunds.work(await begun(house, payment))
    assert (rest.amount_minor, (await house.fresh(payment)).status) == (600, Status.REVERSED)
    assert (await refused(begun(house, payment))).details == {"leftMinor": 0}
    await house.books()


async def test_no_more_is_refunded_than_is_left_and_there(house: House) -> None:
    payment = await house.paid()
    assert await code_of(begun(house, payment, 1001)) == "REFUND_TOO_LARGE"
    assert await code_of(begun(house, payment, 0)) == "REFUND_TOO_LARGE"
    await spend(house, 700)
    assert await code_of(begun(house, payment, 301)) == "INSUFFICIENT_FUNDS"
    assert (await begun(house, payment, 300)).amount_minor == 300
    assert await code_of(house.one.refunds.begin("no-such", amount_minor=1, reason="")) == "PAYMENT_UNKNOWN"
    assert await code_of(begun(house, await house.deposit())) == "REFUND_TOO_LARGE"
    await house.books()


async def test_refunds_at_once_never_give_back_more_than_came(house: House) -> None:
    payment = await house.paid()
    processes = [house.one, house.process()] * 3
    begin = (one.refunds.begin(payment.reference, amount_minor=400, reason="") for one in processes)
    done = await asyncio.gather(*begin, return_exceptions=True)
    assert sum(isinstance(one, Refund) for one in done) == 2
    assert (await house.fresh(payment)).reversed_minor == 800
    await house.books()


async def test_the_same_key_refunds_once_however_often_the_command_is_repeated(house: House) -> None:
    payment = await house.paid()
    processes = [house.one, house.process()] * 3

    async def begin(process: Process, minor: int | None = 400, key: str = "k") -> Refund:
        return await process.refunds.begin(payment.reference, amount_minor=minor, reason="", key=key)

    made = await asyncio.gather(*(begin(process) for process in processes))
    assert len({refund.id for refund in made}) == 1
    done = await house.one.refunds.work(made[0])
    assert await begin(house.one) == done
    assert await begin(house.one, None) == done
    assert await code_of(begin(house.one, 401)) == "IDEMPOTENCY_MISMATCH"
    assert (await house.money(), house.till.asked["refund"]) == ((600, 0), 1)
    assert (await begin(house.one, key="another")).id != done.id
    await house.books()


async def test_a_refund_and_more_money_at_the_same_moment_are_both_kept(house: House) -> None:
    other = house.process()
    for n in range(1, 6):
        payment = await house.paid(600)
        house.till.pays(payment.reference, 1000)
        await asyncio.gather(
            other.payments.looking.look(payment),
            house.one.refunds.begin(payment.reference, amount_minor=200, reason=""),
        )
        after = await house.fresh(payment)
        assert (after.paid_minor, after.reversed_minor) == (1000, 200)
        assert (await house.money())[0] == 800 * n
    await house.books()


async def test_a_refund_that_the_gateway_refuses_comes_back(house: House) -> None:
    payment = await house.paid(into="call_credits")
    house.till.fail("refund", GatewayNo("too_old"))
    refund = await house.one.refunds.work(await begun(house, payment))
    assert (refund.stage, refund.word) == (RefundStage.FAILED, "too_old")
    assert await house.money() == (0, 1000)
    after = await house.fresh(payment)
    assert (after.status, after.reversed_minor, after.refunding_minor) == (Status.COMPLETED, 0, 0)
    await house.books()
    again = await house.one.refunds.work(await begun(house, payment))
    assert (again.stage, (await house.fresh(payment)).status) == (RefundStage.DONE, Status.REVERSED)
    await house.books()


async def test_a_refund_that_takes_its_time_is_asked_for_until_it_is_known(house: House) -> None:
    for end in (RefundState.DONE, RefundState.FAILED):
        payment = await house.paid()
        house.till.refund_state = RefundState.PENDING
        refund = await house.one.refunds.work(await begun(house, payment))
        assert (refund.stage, refund.gateway_reference) == (RefundStage.PENDING, "R|1")
        assert (await house.fresh(payment)).status is Status.COMPLETED
        house.till.refunds[refund.id] = replace(house.till.refunds[refund.id], state=end)
        house.clock.pass_(HOUR)
        await house.one.jobs()
        assert (await house.refund(refund)).stage.value == end.value
        await house.books()
    assert house.till.asked["refund"] == 2


async def test_a_refund_that_may_have_been_taken_is_never_sent_again(house: House) -> None:
    payment = await house.paid()
    house.till.fail("refund", GatewayAway("timeout"), after=True)
    refund = await house.one.refunds.work(await begun(house, payment))
    assert (refund.stage, (await house.money())[0]) == (RefundStage.ASKING, 0)
    house.clock.pass_(HOUR)
    await house.one.jobs()
    assert (await house.refund(refund)).stage is RefundStage.DONE
    assert house.till.asked["refund"] == 1
    await house.books()


async def test_a_refund_that_certainly_did_not_leave_is_sent_later(house: House) -> None:
    payment = await house.paid()
    house.till.fail("refund", GatewayAway("no connection", sent=False))
    house.till.fail("refund", GatewayNo("busy", later=True))
    refund = await house.one.refunds.work(await begun(house, payment))
    assert refund.stage is RefundStage.WAITING
    for _ in range(2):
        house.clock.pass_(HOUR)
        await house.one.jobs()
    assert (await house.refund(refund)).stage is RefundStage.DONE
    assert house.till.asked["refund"] == 3


async def test_a_refund_that_the_gateway_never_heard_of_needs_a_person(house: House) -> None:
    payment = await house.paid()
    house.till.fail("refund", GatewayAway("timeout"))
    refund = await house.one.refunds.work(await begun(house, payment))
    for _ in range(UNKNOWN_TRIES + 2):
        house.clock.pass_(HOUR)
        await house.one.jobs()
    waits = await house.refund(refund)
    assert (waits.stage, waits.review is not None) == (RefundStage.ASKING, True)
    assert house.till.asked["refund"] == 1
    assert (await house.money())[0] == 0, "nobody knows whether it went"
    assert house.counts["review"] == 1
    assert [one.id for one in await house.one.refunds.store.for_review(5)] == [refund.id]
    settled = await house.one.refunds.settle(refund.id, done=False)
    assert (settled.stage, settled.review) == (RefundStage.FAILED, None)
    assert (await house.money())[0] == 1000
    assert await code_of(house.one.refunds.settle(refund.id, done=True)) == "PAYMENT_UNKNOWN"
    await house.books()


async def test_our_own_refund_that_the_gateway_shows_is_not_taken_twice(house: House) -> None:
    payment = await house.paid()
    await house.one.refunds.work(await begun(house, payment, 400))
    back(house, payment, 400)
    await house.tell(house.till.tells(payment.reference))
    wallet = await house.wallet()
    assert (wallet.primary, wallet.frozen) == (600, False)
    back(house, payment, 1000)
    await house.tell(house.till.tells(payment.reference))
    wallet = await house.wallet()
    assert (wallet.primary, wallet.frozen) == (0, True), "the rest is a chargeback"
    await house.books()


async def test_e140_a_refund_that_was_done_and_comes_back_is_in_the_wallet_again_once(house: House) -> None:
    payment = await house.paid()
    refund = await house.one.refunds.work(await begun(house, payment))
    assert refund.stage is RefundStage.DONE
    await house.tell(house.till.tells(refund.id, about="refund"))
    assert (await house.refund(refund)).stage is RefundStage.DONE, "it is only told again"
    # The payer's card was closed: their bank has sent it back, days later.
    house.clock.pass_(5 * DAY)
    house.till.refunds[refund.id] = replace(house.till.refunds[refund.id], state=RefundState.FAILED)
    for process in (house.one, house.process(), house.one):
        await house.tell(house.till.tells(refund.id, about="refund"), process)
    assert (await house.refund(refund)).stage is RefundStage.FAILED
    after = await house.fresh(payment)
    assert (after.status, after.reversed_minor, after.refunding_minor) == (Status.COMPLETED, 0, 0)
    assert await house.money() == (1000, 0)
    assert not (await house.wallet()).frozen
    await house.books()


async def test_a_notification_of_a_refund_makes_us_ask(house: House) -> None:
    payment = await house.paid()
    house.till.refund_state = RefundState.PENDING
    refund = await house.one.refunds.work(await begun(house, payment))
    house.till.refunds[refund.id] = replace(house.till.refunds[refund.id], state=RefundState.DONE)
    await house.tell(house.till.tells(refund.id, about="refund"))
    await house.one.refunds.run()
    assert (await house.refund(refund)).stage is RefundStage.DONE


# ----------------------------------------------------------------------------------------------- from one's own wallet


async def bought(house: House, **changes: Any) -> Payment:
    ask = {"key": "k", "amount": Amount(minor=300), "currency": None, "method": "wallet", **changes}
    return await house.one.payments.buy(ANN, **ask)


async def test_call_credits_are_bought_from_the_primary_balance(house: House) -> None:
    await house.paid()
    payment = await bought(house)
    assert (payment.status, payment.gateway, payment.into) == (Status.COMPLETED, "wallet", "call_credits")
    assert await house.money() == (700, 300)
    assert (await house.one.payments.payment(ANN, payment.id)).reference == payment.reference
    assert (await house.one.payments.verify(ANN, payment.reference)).payment.paid_minor == 300
    assert house.statuses(payment) == ["completed"]
    await house.books()


async def test_the_same_key_buys_once_ever(house: House) -> None:
    await house.paid()
    first = await bought(house)
    house.clock.pass_(90 * DAY)
    await house.one.wallets.freeze(ANN, frozen=True)
    again = await asyncio.gather(*(bought(house) for _ in range(4)))
    assert {one.id for one in again} == {first.id}
    assert await code_of(bought(house, amount=Amount(minor=301))) == "IDEMPOTENCY_MISMATCH"
    assert await code_of(bought(house, method="till")) == "IDEMPOTENCY_MISMATCH"
    deposit = await house.deposit(key="other")
    assert deposit.status is Status.PENDING
    assert await code_of(bought(house, key="other", amount=Amount(minor=1000))) == "IDEMPOTENCY_MISMATCH"
    assert await house.money() == (700, 300)
    await house.books()


async def test_the_same_key_at_once_buys_once(house: House) -> None:
    await house.paid()
    processes = [house.one, house.process()] * 3
    ask: Any = {"key": "k", "amount": Amount(minor=300), "currency": None, "method": "wallet"}
    done = await asyncio.gather(*(one.payments.buy(ANN, **ask) for one in processes))
    assert len({one.id for one in done}) == 1
    assert await house.money() == (700, 300)


async def test_what_is_not_there_or_frozen_buys_nothing(house: House) -> None:
    assert await code_of(bought(house)) == "INSUFFICIENT_FUNDS"
    await house.paid()
    assert await code_of(bought(house, key=None)) == "IDEMPOTENCY_KEY_REQUIRED"
    assert await code_of(bought(house, currency="KWD")) == "CURRENCY_MISMATCH"
    await house.one.wallets.freeze(ANN, frozen=True)
    assert await code_of(bought(house)) == "WALLET_FROZEN"
    assert await house.money() == (1000, 0)
    assert await house.db["payments"].count_documents({"gateway": "wallet"}) == 0


async def test_call_credits_come_by_a_gateway_as_well(house: House) -> None:
    for method in ("till", None):
        payment = await bought(house, key=f"k-{method}", method=method)
        assert (payment.into, payment.status) == ("call_credits", Status.PENDING)
        house.till.pays(payment.reference)
        await house.verify(payment)
    assert await house.money() == (0, 600)

"""Withdrawals with a real database and a bank that can be told anything: out once, or back, and never both."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from models.db import Database
from models.errors import Refusal
from models.payments.gateway import PayoutState
from models.payouts.payout import Payout, Reason, Stage, Status
from models.payouts.rules import Order, ask
from models.payouts.service import Worth
from models.payouts.store import PayoutStore
from models.wallet.rules import Amount, major_asked
from tests.fakes import CountingIds, VirtualClock
from tests.services.payouts_house import DAILY, FEE, LEAST, LIMITS, NUMBER, OTP, House, Till
from tests.services.wallet_house import (
    ANN,
    BOB,
    EVE,
    OTHER_PIN,
    PASSWORD,
    PIN,
    WRONG,
    PlainHasher,
    code_of,
    refused,
)


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds) -> House:
    built = House(db, clock, ids)
    for user_id, name in ((ANN, "ann"), (BOB, "bob"), (EVE, "eve")):
        await built.add_user(user_id, name)
    await built.saver()
    return built


async def lines(house: House) -> list[tuple[str, int, int]]:
    """Ann's statement: kind, amount and balance, the oldest first."""
    page = await house.wallets.statement(ANN, account=None, currency=None, after=None, limit=100)
    return [(line.kind, line.amount_minor, line.balance_after_minor) for line in reversed(page.lines)]


# ------------------------------------------------------------------------------------------------------ the way it goes


async def test_a_withdrawal_is_held_submitted_looked_up_and_paid(house: House) -> None:
    payout = await house.withdraw(1_000)
    assert (payout.stage, payout.status, payout.fee_minor) == (Stage.WAITING, Status.PENDING, FEE)
    assert await house.split() == (10_000 - 1_025, 1_025)
    assert house.bank.arrived == {}, "the gateway is asked by the job"
    await house.till.run()
    asked = house.bank.asks[payout.reference]
    assert (asked.amount_minor, asked.currency, asked.to.account_number) == (1_000, "NGN", NUMBER)
    assert (asked.to.account_name, asked.to.bank_code) == ("ANN OBI", "058")
    assert (await house.now(payout)).status is Status.PROCESSING
    house.bank.become(payout, PayoutState.PAID)
    await house.pass_and_run(60)
    done = await house.now(payout)
    assert (done.stage, done.status, done.gateway_fee_minor) == (Stage.PAID, Status.COMPLETED, 11)
    assert await house.split() == (10_000 - 1_025, 0)
    assert [status for _, status in house.till.told] == ["pending", "processing", "completed"]
    assert (await lines(house))[-1] == ("withdrawal", -1_025, 8_975)
    assert house.bank.arrived == {payout.reference: 1}
    await house.books()


async def test_paid_at_once_is_paid_with_the_answer(house: House) -> None:
    house.bank.told = ["paid"]
    payout = await house.withdraw()
    await house.till.run()
    assert (await house.now(payout)).stage is Stage.PAID
    await house.books()


@pytest.mark.parametrize("how", ["failed", "pending", "reversed"])
async def test_a_payout_that_fails_comes_back_with_its_fee_and_leaves_no_line(house: House, how: str) -> None:
    house.bank.told = ["failed" if how == "failed" else "pending"]
    payout = await house.withdraw()
    await house.till.run()
    if how != "failed":
        house.bank.become(payout, PayoutState.FAILED if how == "pending" else PayoutState.REVERSED)
        await house.pass_and_run(60)
    done = await house.now(payout)
    assert (done.status, done.reason, done.look_at) == (Status.FAILED, Reason.FAILED, None)
    assert await house.split() == (10_000, 0)
    assert [kind for kind, *_ in await lines(house)] == ["deposit"]
    await house.books()


async def test_a_definite_no_gives_the_money_back(house: House) -> None:
    house.bank.told = ["refused"]
    payout = await house.withdraw()
    await house.till.run()
    done = await house.now(payout)
    assert (done.status, done.reason, done.word) == (Status.FAILED, Reason.REFUSED, "NO_MONEY")
    assert await house.split() == (10_000, 0)
    assert [status for _, status in house.till.told][-1] == "failed"


async def test_e84_a_payout_that_comes_back_days_later_is_credited_with_its_fee(house: House) -> None:
    house.bank.told = ["paid"]
    payout = await house.withdraw()
    await house.till.run()
    await house.pass_and_run(2 * 86_400)
    assert (await house.now(payout)).stage is Stage.PAID
    house.bank.become(payout, PayoutState.REVERSED)
    await house.pass_and_run(5 * 86_400)
    done = await house.now(payout)
    assert (done.status, done.look_at) == (Status.REVERSED, None)
    assert await house.split() == (10_000, 0)
    assert [amount for kind, amount, _ in await lines(house) if kind != "deposit"] == [-1_025, 1_025]
    await house.pass_and_run(40 * 86_400)
    assert await house.split() == (10_000, 0)
    await house.books()


async def test_a_paid_one_is_looked_at_three_times_more_and_then_never(house: House) -> None:
    house.bank.told = ["paid"]
    payout = await house.withdraw()
    await house.till.run()
    for _ in range(60):
        await house.pass_and_run(86_400)
    assert house.bank.looks[payout.reference] == 3
    assert (await house.now(payout)).look_at is None


async def test_a_notification_makes_it_be_looked_at_now_whatever_it_says(house: House) -> None:
    work = house.till.payouts.work
    payout = await house.withdraw()
    assert await work.look(payout.reference), "before it was submitted: nothing is known there"
    assert await work.look("wd-of-somebody-else") is False
    await house.till.run()
    await work.look(payout.reference)
    assert (await house.now(payout)).stage is Stage.PENDING
    house.bank.become(payout, PayoutState.PAID)
    await work.look(payout.reference)
    assert (await house.now(payout)).stage is Stage.PAID
    house.bank.away = True
    house.bank.become(payout, PayoutState.REVERSED)
    assert await work.look(payout.reference)
    assert (await house.now(payout)).stage is Stage.PAID
    house.bank.away = False
    await house.pass_and_run(3_600)
    assert (await house.now(payout)).stage is Stage.REVERSED, "the job asks again"
    await house.books()


async def test_a_notification_of_what_is_over_is_looked_at_once(house: House) -> None:
    house.bank.told = ["failed"]
    payout = await house.withdraw()
    await house.till.run()
    for _ in range(3):
        await house.till.payouts.work.look(payout.reference)
    assert (await house.now(payout)).look_at is None
    looks = house.bank.looks[payout.reference]
    await house.pass_and_run(86_400)
    assert house.bank.looks[payout.reference] == looks


# -------------------------------------------------------------------------------------------------- nobody knows


async def test_e80_a_timeout_is_never_submitted_again_and_is_found_by_its_reference(house: House) -> None:
    house.bank.told = ["lost after it was taken"]
    payout = await house.withdraw()
    await house.till.run()
    assert (await house.now(payout)).stage is Stage.SUBMITTING
    assert await house.split() == (8_975, 1_025)
    house.bank.become(payout, PayoutState.PAID)
    await house.until(payout, Stage.PAID)
    assert house.bank.arrived == {payout.reference: 1}
    assert house.bank.money() == 1_000
    await house.books()


async def test_e80_what_is_not_known_there_stays_held_until_a_person_looks(house: House) -> None:
    house.bank.told = ["lost"]
    payout = await house.withdraw()
    for _ in range(72):
        await house.pass_and_run(3_600)
    found = await house.now(payout)
    assert found.stage is Stage.SUBMITTING
    assert found.review is not None
    assert house.bank.arrived == {payout.reference: 1}, "not in three days"
    assert await house.split() == (8_975, 1_025)
    assert found.status is Status.PROCESSING
    await house.books()
    house.bank.take(ask(payout), PayoutState.PAID)
    await house.pass_and_run(3_600)
    found = await house.now(payout)
    assert (found.stage, found.review) == (Stage.PAID, None), "it had been on its way all the time"
    await house.books()


async def test_the_gateway_is_away_before_anything_was_sent(house: House) -> None:
    house.bank.told = ["unsent", "unsent", "paid"]
    payout = await house.withdraw()
    await house.till.run()
    found = await house.now(payout)
    assert (found.stage, found.status) == (Stage.WAITING, Status.PENDING)
    await house.pass_and_run(5)
    await house.pass_and_run(15)
    assert (await house.now(payout)).stage is Stage.PAID
    assert house.bank.money() == 1_000
    assert {status for _, status in house.till.told} == {"pending", "completed"}
    await house.books()


async def test_a_gateway_that_is_away_for_a_day_gives_the_money_back(house: House) -> None:
    house.bank.away = True
    payout = await house.withdraw()
    done = await house.until(payout, Stage.FAILED, hours=30, seconds=900)
    assert done.reason is Reason.UNAVAILABLE
    assert timedelta(hours=23) < done.stage_at - done.created_at < timedelta(hours=26)
    assert await house.split() == (10_000, 0)
    assert house.bank.arrived == {}
    await house.books()


async def test_a_gateway_that_is_away_while_it_is_looked_up_changes_nothing(house: House) -> None:
    payout = await house.withdraw()
    await house.till.run()
    house.bank.away = True
    for _ in range(100):
        await house.pass_and_run(3_600)
    assert (await house.now(payout)).stage is Stage.PENDING
    assert await house.split() == (8_975, 1_025)
    house.bank.away = False
    house.bank.become(payout, PayoutState.PAID)
    await house.pass_and_run(3_600)
    assert (await house.now(payout)).stage is Stage.PAID


async def test_e86_the_same_again_within_two_minutes_waits_and_is_not_lost_or_doubled(house: House) -> None:
    first = await house.withdraw()
    await house.till.run()
    house.bank.told = ["later", "paid"]
    second = await house.withdraw()
    await house.till.run()
    found = await house.now(second)
    assert (found.stage, found.word) == (Stage.WAITING, "D07")
    await house.pass_and_run(120)
    assert house.bank.arrived[second.reference] == 1
    await house.pass_and_run(31)
    assert (await house.now(second)).stage is Stage.PAID
    assert house.bank.looks[second.reference] == 1, "it is asked for before it is submitted again"
    house.bank.become(first, PayoutState.PAID)
    await house.until(first, Stage.PAID)
    assert house.bank.money() == 2_000
    await house.books()


async def test_a_no_that_was_a_yes_is_found_before_another_submission(house: House) -> None:
    """Some gateways call a reference that they have taken a duplicate in the words of the two minutes."""
    house.bank.told = ["later"]
    payout = await house.withdraw()
    await house.till.run()
    house.bank.take(ask(payout), PayoutState.PAID)
    await house.pass_and_run(151)
    assert (await house.now(payout)).stage is Stage.PAID
    assert house.bank.arrived[payout.reference] == 1


async def test_taken_before_is_looked_up(house: House) -> None:
    payout = await house.withdraw()
    house.bank.take(ask(payout), PayoutState.PENDING)
    await house.till.run()
    assert (await house.now(payout)).stage is Stage.SUBMITTING
    await house.pass_and_run(2)
    assert (await house.now(payout)).stage is Stage.PENDING
    house.bank.become(payout, PayoutState.PAID)
    await house.until(payout, Stage.PAID)
    assert house.bank.money() == 1_000
    await house.books()


@pytest.mark.parametrize("wrong", [{"amount_minor": 999}, {"currency": "KES"}, {"reference": "wd-other"}])
async def test_an_answer_about_something_else_moves_nothing_and_needs_a_person(
    house: House, wrong: dict[str, object]
) -> None:
    payout = await house.withdraw()
    await house.till.run()
    house.bank.become(payout, PayoutState.PAID, **wrong)
    await house.pass_and_run(60)
    found = await house.now(payout)
    assert (found.stage, await house.split()) == (Stage.PENDING, (8_975, 1_025))
    assert found.review is not None
    house.bank.become(
        payout, PayoutState.PAID, amount_minor=1_000, currency="NGN", reference=payout.reference
    )
    await house.pass_and_run(3_600)
    found = await house.now(payout)
    assert (found.stage, found.review) == (Stage.PAID, None)
    await house.books()


async def test_paid_after_it_had_failed_needs_a_person_and_moves_nothing(house: House) -> None:
    house.bank.told = ["failed"]
    payout = await house.withdraw()
    await house.till.run()
    house.bank.become(payout, PayoutState.PAID)
    await house.till.payouts.work.look(payout.reference)
    found = await house.now(payout)
    assert (found.stage, await house.split()) == (Stage.FAILED, (10_000, 0))
    assert "twice" in (found.review or "")
    await house.books()


async def test_failed_after_it_was_paid_needs_a_person_who_may_give_it_back(house: House) -> None:
    house.bank.told = ["paid"]
    payout = await house.withdraw()
    await house.till.run()
    assert await code_of(house.till.payouts.desk.order(payout.id, Order.VOID)) == "PAYOUT_WRONG_STATE"
    house.bank.become(payout, PayoutState.FAILED)
    await house.till.payouts.work.look(payout.reference)
    found = await house.now(payout)
    assert (found.stage, await house.split()) == (Stage.PAID, (8_975, 0))
    assert found.review is not None
    await house.till.payouts.desk.order(payout.id, Order.VOID)
    assert ((await house.now(payout)).stage, await house.split()) == (Stage.REVERSED, (10_000, 0))
    await house.books()


# ----------------------------------------------------------------------------------------------------- the operator


async def waiting_for_password(house: House) -> Payout:
    house.bank.told = ["otp"]
    payout = await house.withdraw()
    await house.till.run()
    found = await house.now(payout)
    assert (found.stage, found.status) == (Stage.OTP, Status.PROCESSING)
    return found


async def test_e85_a_payout_waits_for_the_operators_password_a_wrong_one_changes_nothing(
    house: House,
) -> None:
    payout, desk = await waiting_for_password(house), house.till.payouts.desk
    no = await refused(desk.authorize(payout.id, "000000"))
    assert (no.code, no.details) == ("GATEWAY_REFUSED", {"reason": "WRONG_OTP"})
    assert (await house.now(payout)).stage is Stage.OTP
    await desk.resend(payout.id)
    assert house.bank.resent == 1
    assert (await desk.authorize(payout.reference, OTP)).stage is Stage.PENDING
    assert await code_of(desk.authorize(payout.id, OTP)) == "PAYOUT_WRONG_STATE"
    assert await code_of(desk.resend(payout.id)) == "PAYOUT_WRONG_STATE"
    assert await code_of(desk.authorize("nothing", OTP)) == "PAYOUT_UNKNOWN"
    house.bank.become(payout, PayoutState.PAID)
    await house.until(payout, Stage.PAID)
    assert house.bank.arrived[payout.reference] == 1


async def test_a_password_whose_answer_is_lost_is_looked_up(house: House) -> None:
    payout = await waiting_for_password(house)
    house.bank.away = True
    assert await code_of(house.till.payouts.desk.authorize(payout.id, OTP)) == "GATEWAY_AWAY"
    assert await code_of(house.till.payouts.desk.resend(payout.id)) == "GATEWAY_AWAY"
    house.bank.away = False
    house.bank.become(payout, PayoutState.PENDING)  # it had arrived
    await house.pass_and_run(60)
    assert (await house.now(payout)).stage is Stage.PENDING


async def test_a_password_given_in_the_gateways_own_dashboard_is_noticed(house: House) -> None:
    payout = await waiting_for_password(house)
    house.bank.become(payout, PayoutState.PAID)
    assert await code_of(house.till.payouts.desk.authorize(payout.id, OTP)) == "PAYOUT_WRONG_STATE"
    assert (await house.now(payout)).stage is Stage.PAID


async def test_the_operator_submits_again_or_gives_back_only_what_is_not_known_for_long(house: House) -> None:
    desk = house.till.payouts.desk
    house.bank.told = ["lost", "lost"]
    again, back = await house.withdraw(), await house.withdraw(2_000)
    await house.till.run()
    for order in Order:
        assert await code_of(desk.order(again.id, order)) == "PAYOUT_WRONG_STATE", "it may be on its way"
    for _ in range(40):
        await house.pass_and_run(60)
    house.bank.away = True
    assert await code_of(desk.order(again.id, Order.SUBMIT)) == "GATEWAY_AWAY", "nobody knows without it"
    house.bank.away = False
    await desk.order(again.id, Order.SUBMIT)
    assert (await desk.order(back.id, Order.VOID)).reason is Reason.CANCELLED
    await house.till.run()
    assert house.bank.arrived == {again.reference: 2, back.reference: 1}
    house.bank.become(again, PayoutState.PAID)
    await house.until(again, Stage.PAID)
    assert house.bank.money() == 1_000
    assert await house.split() == (8_975, 0)
    for order in Order:
        assert await code_of(desk.order(back.id, order)) == "PAYOUT_WRONG_STATE"
    await house.books()


async def test_the_operator_is_told_no_about_what_the_gateway_has(house: House) -> None:
    payout, desk = await house.withdraw(), house.till.payouts.desk
    await house.till.run()
    await house.pass_and_run(7_200)
    for order in Order:
        assert await code_of(desk.order(payout.id, order)) == "PAYOUT_WRONG_STATE"
    house.bank.become(payout, PayoutState.PAID)
    assert await code_of(desk.order(payout.id, Order.SUBMIT)) == "PAYOUT_WRONG_STATE"
    assert (await house.now(payout)).stage is Stage.PAID, "asking has found out"


async def test_the_operator_takes_back_what_was_not_submitted(house: House) -> None:
    payout = await house.withdraw()
    done = await house.till.payouts.desk.order(payout.id, Order.VOID)
    assert (done.stage, done.reason) == (Stage.FAILED, Reason.CANCELLED)
    await house.pass_and_run(60)
    assert (house.bank.arrived, await house.split()) == ({}, (10_000, 0))


# ------------------------------------------------------------------------------------------------ who may, and how much


async def test_a_withdrawal_needs_a_key_which_is_one_withdrawal_for_ever(house: House) -> None:
    for key in (None, ""):
        assert await code_of(house.withdraw(key=key)) == "IDEMPOTENCY_KEY_REQUIRED"
    first = await house.withdraw(1_000, key="once")
    house.clock.pass_(3 * 86_400)
    account = await house.account()
    assert (await house.withdraw(1_000, key="once", pin=WRONG)).id == first.id
    major = await house.withdraw(key="once", amount=Amount(major=major_asked("10")))
    assert major.id == first.id, "the same said in naira"
    assert await code_of(house.withdraw(1_001, key="once")) == "IDEMPOTENCY_MISMATCH"
    await house.till.accounts.remove(ANN, account.id)
    assert (await house.withdraw(1_000, key="once", bank_account_id=account.id)).id == first.id
    await house.saver(BOB)
    assert (await house.withdraw(1_000, key="once", user_id=BOB)).id != first.id
    assert await house.split() == (8_975, 1_025)


async def test_e82_the_same_key_at_once_at_two_processes_is_one_withdrawal(house: House) -> None:
    tills = [house.open_till(), house.open_till()]
    made = await asyncio.gather(*(house.withdraw(1_000, key="once", till=tills[n % 2]) for n in range(8)))
    assert len({payout.id for payout in made}) == 1
    assert await house.split() == (8_975, 1_025)


async def test_who_may_not_withdraw(house: House) -> None:
    account = await house.account()
    assert await code_of(house.withdraw(pin=WRONG)) == "PIN_WRONG"
    assert await code_of(house.withdraw(currency="KES")) == "CURRENCY_MISMATCH"
    assert await code_of(house.withdraw(bank_account_id="nothing")) == "BANK_ACCOUNT_UNKNOWN"
    await house.rich(BOB)
    assert await code_of(house.withdraw(user_id=BOB, bank_account_id=account.id)) == "BANK_ACCOUNT_UNKNOWN"
    theirs = await house.account(EVE)
    assert await code_of(house.withdraw(user_id=EVE, bank_account_id=theirs.id)) == "WALLET_UNKNOWN"
    no = await refused(house.withdraw(10_000))
    assert (no.code, no.details["requiredMinor"]) == ("INSUFFICIENT_FUNDS", 10_025), "with the fee"
    await house.wallets.freeze(ANN, frozen=True)
    assert await code_of(house.withdraw()) == "WALLET_FROZEN"
    assert await house.split() == (10_000, 0)


async def test_too_little_too_much_and_too_much_in_a_day(house: House) -> None:
    await house.fund(ANN, 200_000)
    for minor in (LEAST - 1, DAILY + 1):
        no = await refused(house.withdraw(minor))
        assert (no.code, no.details["leastMinor"], no.details["dailyMinor"]) == ("PAYOUT_LIMIT", LEAST, DAILY)
    first = await house.withdraw(DAILY - 1_000)
    no = await refused(house.withdraw(1_001))
    assert (no.code, no.details["leftMinor"]) == ("PAYOUT_LIMIT", 1_000)
    await house.withdraw(1_000)
    assert await code_of(house.withdraw(LEAST)) == "PAYOUT_LIMIT"
    await house.till.payouts.desk.order(first.id, Order.VOID)
    await house.withdraw(DAILY - 1_000)  # what came back does not count
    assert await code_of(house.withdraw(LEAST)) == "PAYOUT_LIMIT"
    house.clock.pass_(86_400)
    await house.withdraw(DAILY)


async def test_e83_the_daily_limit_holds_against_many_at_once_at_two_processes(house: House) -> None:
    await house.fund(ANN, 1_000_000)
    tills = [house.open_till(), house.open_till()]
    made = await asyncio.gather(
        *(house.withdraw(20_000, till=tills[n % 2]) for n in range(12)), return_exceptions=True
    )
    assert sum(isinstance(one, Payout) for one in made) == 2
    wallet = await house.wallet()
    assert wallet.primary_held == 2 * (20_000 + FEE)
    await house.books()


def with_rates(till: Till) -> Till:
    """A shilling is ten naira there."""

    async def worth() -> Worth:
        table = {("NGN", "KES"): lambda minor: minor // 10, ("KES", "NGN"): lambda minor: minor * 10}
        return lambda minor, source, target: table[source, target](minor)

    till.payouts.worth = worth
    return till


async def test_the_limits_are_the_same_worth_in_all_currencies_together(house: House) -> None:
    await house.fund(ANN, 200_000)
    shillings = await house.saver(currency="KES", minor=100_000)
    till = with_rates(house.open_till(limits=replace(LIMITS, currency="NGN")))

    async def in_shillings(minor: int) -> Payout:
        return await house.withdraw(minor, till=till, bank_account_id=shillings.id)

    no = await refused(in_shillings(DAILY // 10 + 1))
    assert (no.code, no.details["leastMinor"], no.details["dailyMinor"]) == (
        *("PAYOUT_LIMIT", LEAST // 10),
        DAILY // 10,
    )
    assert (await in_shillings(3_000)).fee_minor == FEE // 10
    no = await refused(house.withdraw(DAILY - 30_000 + 1, till=till))
    assert (no.code, no.details["leftMinor"]) == ("PAYOUT_LIMIT", DAILY - 30_000)
    await house.withdraw(DAILY - 30_000, till=till)
    assert await code_of(in_shillings(LEAST // 10)) == "PAYOUT_LIMIT"
    # While rates are away nothing else is withdrawn than what the limits are given in.
    till.payouts.worth = lambda: asyncio.sleep(0)
    assert await code_of(in_shillings(LEAST // 10)) == "SERVER_BUSY"
    house.clock.pass_(86_400)
    await house.withdraw(DAILY, till=till)
    await house.books()


async def test_e139_the_daily_limit_holds_against_two_at_once_from_two_wallets(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.fund(ANN, 200_000)
    shillings = await house.saver(currency="KES", minor=100_000)
    tills = [with_rates(house.open_till(limits=replace(LIMITS, currency="NGN"))) for _ in range(2)]
    read, both = [0], asyncio.Event()
    asked_since = PayoutStore.asked_since

    async def reads(store: PayoutStore, *args: Any) -> dict[str, int]:
        found = await asked_since(store, *args)
        read[0] += 1
        if read[0] == 2:
            both.set()
        # Whoever has read the sum gives the other the time to read the same.
        with suppress(TimeoutError):
            await asyncio.wait_for(both.wait(), 0.3)
        return found

    monkeypatch.setattr(PayoutStore, "asked_since", reads)
    made = await asyncio.gather(
        house.withdraw(30_000, till=tills[0]),
        house.withdraw(3_000, till=tills[1], bank_account_id=shillings.id),
        return_exceptions=True,
    )
    assert [one.code for one in made if isinstance(one, Refusal)] == ["PAYOUT_LIMIT"]
    assert sum(isinstance(one, Payout) for one in made) == 1
    await house.books()


async def test_e83_the_balance_holds_against_many_at_once_at_two_processes(house: House) -> None:
    tills = [house.open_till(), house.open_till()]
    made = await asyncio.gather(
        *(house.withdraw(3_000, till=tills[n % 2]) for n in range(12)), return_exceptions=True
    )
    assert sum(isinstance(one, Payout) for one in made) == 3
    assert await house.split() == (10_000 - 3 * 3_025, 3 * 3_025)
    await house.books()


async def test_e87_after_a_change_of_the_pin_nothing_goes_out_for_some_time(house: House) -> None:
    slow = house.open_till(limits=replace(LIMITS, cool_off=timedelta(hours=24)))
    house.clock.pass_(86_400)
    await house.withdraw(till=slow)  # the account is a day old, and the PIN the first one
    await house.till.pins.change(ANN, old=PIN, new=OTHER_PIN)
    house.clock.pass_(3_600)
    no = await refused(house.withdraw(till=slow, pin=OTHER_PIN))
    assert (no.code, no.retry_after_ms) == ("PAYOUT_COOLING_OFF", 23 * 3_600_000)
    assert await code_of(house.withdraw(till=slow, pin=PIN)) == "PIN_WRONG", (
        "only who has the PIN learns of it"
    )
    house.clock.pass_(23 * 3_600)
    await house.withdraw(till=slow, pin=OTHER_PIN)
    await house.till.pins.reset(ANN, password=PASSWORD, new=PIN)
    assert await code_of(house.withdraw(till=slow)) == "PAYOUT_COOLING_OFF"


async def test_e87_a_new_bank_account_has_to_wait_and_the_old_one_has_not(house: House) -> None:
    slow = house.open_till(limits=replace(LIMITS, cool_off=timedelta(hours=24)))
    assert await code_of(house.withdraw(till=slow)) == "PAYOUT_COOLING_OFF"
    house.clock.pass_(86_400)
    await house.withdraw(till=slow)
    house.bank.names["058", "9999999999"] = "ANN OBI"
    new = await house.till.accounts.add(ANN, currency="NGN", bank_code="058", account_number="9999999999")
    assert await code_of(house.withdraw(till=slow, bank_account_id=new.id)) == "PAYOUT_COOLING_OFF"
    await house.withdraw(till=slow)
    # Taken away and added again it is new again.
    old = (await house.till.accounts.of_user(ANN))[0]
    await house.till.accounts.remove(ANN, old.id)
    back = await house.till.accounts.add(ANN, currency="NGN", bank_code="058", account_number=NUMBER)
    assert await code_of(house.withdraw(till=slow, bank_account_id=back.id)) == "PAYOUT_COOLING_OFF"


async def test_e88_a_wallet_that_is_frozen_before_the_submission_keeps_its_money(house: House) -> None:
    payout = await house.withdraw()
    await house.wallets.freeze(ANN, frozen=True)
    for _ in range(12):
        await house.pass_and_run(3_600)
    assert (await house.now(payout)).stage is Stage.WAITING
    assert house.bank.arrived == {}
    await house.wallets.freeze(ANN, frozen=False)
    await house.pass_and_run(3_600)
    assert house.bank.arrived == {payout.reference: 1}


async def test_e88_a_freeze_while_the_pin_is_looked_at_is_seen(house: House) -> None:
    class Freezing(PlainHasher):
        async def verify(self, password: str, kept: str | None) -> bool:
            await house.wallets.freeze(ANN, frozen=True)
            return await super().verify(password, kept)

    house.till.pins._hasher = Freezing()
    assert await code_of(house.withdraw()) == "WALLET_FROZEN"
    assert await house.split() == (10_000, 0)


async def test_what_was_submitted_before_the_freeze_is_finished(house: House) -> None:
    for state, left in ((PayoutState.PAID, 8_975), (PayoutState.FAILED, 8_975)):
        payout = await house.withdraw()
        await house.till.run()
        await house.wallets.freeze(ANN, frozen=True)
        house.bank.become(payout, state)
        await house.until(payout, Stage.PAID, Stage.FAILED)
        assert await house.split() == (left, 0)
        await house.wallets.freeze(ANN, frozen=False)
    await house.books()


async def test_e88_an_account_with_an_open_withdrawal_is_not_empty(house: House) -> None:
    payout = await house.withdraw(9_975)
    assert await house.split() == (0, 10_000)
    assert await code_of(house.wallets.refuse_unless_empty(ANN)) == "WALLET_NOT_EMPTY"
    house.bank.told = ["paid"]
    await house.until(payout, Stage.PAID)
    await house.wallets.refuse_unless_empty(ANN)


async def test_ones_own_payouts_and_nobody_elses(house: House) -> None:
    made = [await house.withdraw() for _ in range(3)]
    service = house.till.payouts
    assert [one.id for one in await service.payouts(ANN, before_id=None, most=9)] == [
        one.id for one in reversed(made)
    ]
    assert [one.id for one in await service.payouts(ANN, before_id=made[1].id, most=9)] == [made[0].id]
    assert (await service.payout(ANN, made[0].id)).id == made[0].id
    assert await code_of(service.payout(BOB, made[0].id)) == "PAYOUT_UNKNOWN"
    assert await service.payouts(BOB, before_id=None, most=9) == []


async def test_a_gateway_that_is_gone_from_the_configuration(house: House) -> None:
    waiting, there = await house.withdraw(), await house.withdraw(2_000)
    await house.till.payouts.work.look_at(there)
    house.bank.told = ["pending", "pending"]
    await house.till.run()
    house.till.gateway.terms = replace(house.till.gateway.terms, payouts=frozenset())
    assert await code_of(house.withdraw()) == "GATEWAY_UNAVAILABLE"
    house.till.payouts.work.gateways = {}
    for _ in range(30):
        await house.pass_and_run(3_600)
    assert {(await house.now(one)).stage for one in (waiting, there)} == {Stage.PENDING}, (
        "held, and asked for"
    )
    await house.books()


async def test_without_a_fee_there_is_no_leg_of_it(house: House) -> None:
    free = house.open_till(limits=replace(LIMITS, fee_minor=0))
    house.bank.told = ["paid"]
    payout = await house.withdraw(till=free)
    await free.run()
    entry = await house.till.ledger.store.entry(f"wd:{payout.id}:ok")
    assert entry is not None
    assert sorted(leg.amount_minor for leg in entry.entry.legs) == [-1_000, 1_000]
    await house.books()


async def test_where_it_is_is_told_by_another_process_if_this_one_dies_over_it(house: House) -> None:
    async def fails(_: Payout) -> None:
        raise RuntimeError("gone")

    house.till.payouts.work.announcers[:] = [fails]
    payout = await house.withdraw()
    other = house.open_till()
    await other.payouts.work.run_untold()
    assert other.told == []
    house.clock.pass_(10)
    await other.payouts.work.run_untold()
    assert other.told == [(payout.id, "pending")]
    house.clock.pass_(1_000)
    await other.payouts.work.run_untold()
    assert len(other.told) == 1

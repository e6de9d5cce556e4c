"""Deposits, with a gateway that can be told anything: what was paid is credited, once, in the end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from models.db import Database
from models.ledger.journal import wallet_key
from models.money import AMOUNT_MAX
from models.payments import rules
from models.payments.gateway import GatewayAway, GatewayNo, PaymentSeen, PayState
from models.payments.payment import Asked, Payment, Status
from models.payments.service import OPEN_MAX
from models.wallet.rules import Amount, major_asked
from tests.fakes import CountingIds, VirtualClock
from tests.services.payments_house import ANN, BOB, CARD, House
from tests.services.wallet_house import EVE, NOBODY, code_of, refused

HOUR = 3600
DAY = 24 * HOUR


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds) -> House:
    built = House(db, clock, ids)
    await built.people(ANN, BOB)
    return built


# --------------------------------------------------------------------------------------------------------- beginning


async def test_a_deposit_is_kept_before_the_gateway_is_asked_and_credits_nothing(house: House) -> None:
    there: list[Payment | None] = []
    checkout = house.till.checkout

    async def watched(ask: Any) -> Any:
        there.append(await house.one.payments.store.by_reference(ask.reference))
        return await checkout(ask)

    house.till.checkout = watched  # type: ignore[method-assign]
    payment = await house.deposit()
    assert there[0] is not None
    assert (there[0].status, there[0].checkout_url) == (Status.PENDING, None)
    assert (payment.status, payment.gateway, payment.amount_minor) == (Status.PENDING, "till", 1000)
    assert payment.checkout_url == f"https://till.test/{payment.reference}"
    ask = house.till.opened[payment.reference]
    assert (ask.amount_minor, ask.currency, ask.payer_id, ask.payer_email) == (
        *(1000, "NGN", ANN, f"n{ANN[-4:]}@x.test"),
    )
    assert ask.return_url == f"https://app.test/?payment={payment.reference}"
    assert await house.money() == (0, 0)
    await house.books()


async def test_what_was_paid_is_credited_when_the_client_asks(house: House) -> None:
    payment = await house.deposit()
    assert (await house.verify(payment)).status is Status.PENDING
    house.till.pays(payment.reference)
    done = await house.verify(payment)
    assert (done.status, done.paid_minor, done.card) == (Status.COMPLETED, 1000, CARD)
    assert await house.money() == (1000, 0)
    assert await house.entries(payment) == {f"pay:till:{payment.reference}": -1000}
    assert house.statuses(payment) == ["completed"]
    credits = await house.paid(into="call_credits", minor=300)
    assert (credits.status, await house.money()) == (Status.COMPLETED, (1000, 300))
    await house.books()


@pytest.mark.parametrize("paid", [1, 999, 1001, 250_000])
async def test_another_amount_than_was_asked_for_is_credited_as_it_was_paid(house: House, paid: int) -> None:
    payment = await house.paid(paid)
    assert (payment.status, payment.paid_minor, payment.amount_minor) == (Status.COMPLETED, paid, 1000)
    assert await house.money() == (paid, 0)
    await house.books()


async def test_what_is_paid_in_several_parts_is_credited_part_by_part(house: House) -> None:
    payment = await house.paid(400)
    house.till.pays(payment.reference, 1000)
    await house.verify(payment)
    house.till.pays(payment.reference, 1500)
    await house.tell(house.till.tells(payment.reference))
    name = f"pay:till:{payment.reference}"
    assert await house.entries(payment) == {name: -400, f"{name}:2": -600, f"{name}:3": -500}
    house.till.pays(payment.reference, 1200)  # an older answer
    await house.tell(house.till.tells(payment.reference))
    assert await house.money() == (1500, 0)
    await house.books()


async def test_without_a_gateway_for_it_nothing_is_begun(house: House) -> None:
    assert await code_of(house.deposit(gateway="monnify")) == "GATEWAY_UNAVAILABLE"
    assert await code_of(house.deposit(user_id=EVE)) == "WALLET_UNKNOWN"
    assert await code_of(house.deposit(currency="KWD")) == "CURRENCY_MISMATCH"
    await house.one.ledger.ensure(ANN, "JPY")
    no = await refused(house.deposit(currency="JPY"))
    assert (no.code, no.details) == ("GATEWAY_UNAVAILABLE", {"currency": "JPY"})
    house.one.payments.gateways = {}
    assert await code_of(house.deposit()) == "GATEWAY_UNAVAILABLE"
    assert await house.db["payments"].count_documents({}) == 0


@pytest.mark.parametrize(
    "amount",
    [
        *(Amount(minor=0), Amount(minor=-5), Amount(minor=99), Amount(minor=10_000_000_001)),
        *(Amount(major=major_asked("1.005")), Amount(major=major_asked("0.99"))),
    ],
)
async def test_an_amount_that_the_gateway_does_not_take_is_refused(house: House, amount: Amount) -> None:
    assert await code_of(house.deposit(amount=amount)) == "VALIDATION_FAILED"
    assert house.till.asked["checkout"] == 0
    assert (await house.deposit(minor=100)).amount_minor == 100


async def test_a_wallet_that_cannot_hold_it_is_not_paid_into(house: House) -> None:
    await house.db["wallets"].update_one(
        {"_id": wallet_key(ANN, "NGN")}, {"$set": {"balances.primary": AMOUNT_MAX - 500}}
    )
    assert await code_of(house.deposit()) == "AMOUNT_TOO_LARGE"
    assert house.till.asked["checkout"] == 0


# ----------------------------------------------------------------------------------------------- the same once again


async def test_the_same_key_is_the_same_payment_at_any_time(house: House) -> None:
    first = await house.deposit(key="k")
    assert await house.deposit(key="k") == first
    house.till.pays(first.reference)
    house.clock.pass_(DAY)
    await house.one.jobs()
    again = await house.deposit(house.process(), key="k")
    assert (again.id, again.status) == (first.id, Status.COMPLETED)
    for other in ({"minor": 999}, {"into": "call_credits"}, {"gateway": "other"}):
        assert await code_of(house.deposit(key="k", **other)) == "IDEMPOTENCY_MISMATCH"
    assert (await house.deposit(user_id=BOB, key="k")).id != first.id
    assert house.till.asked["checkout"] == 2


async def test_nobody_begins_payments_without_end(house: House) -> None:
    await house.paid()
    for _ in range(OPEN_MAX):
        last = await house.deposit()
    no = await refused(house.deposit())
    assert (no.code, no.retry_after_ms) == ("RATE_LIMITED", 3_600_000)
    assert (await house.deposit(user_id=BOB)).status is Status.PENDING
    await house.one.payments.buy(ANN, key="w", amount=Amount(minor=1), currency=None, method="wallet")
    assert await code_of(house.deposit()) == "RATE_LIMITED", "nor by what is moved from one's own pocket"
    house.till.pays(last.reference)
    await house.verify(last)
    assert (await house.deposit()).status is Status.PENDING, "who pays goes on"
    for _ in range(OPEN_MAX - 1):
        await house.deposit()
    assert await code_of(house.deposit()) == "RATE_LIMITED"
    house.clock.pass_(HOUR)
    assert (await house.deposit()).status is Status.PENDING


async def test_the_same_key_at_once_at_two_processes_opens_one_checkout(house: House) -> None:
    processes = [house.one, house.process()] * 4
    done = await asyncio.gather(
        *(house.deposit(process, key="k") for process in processes), return_exceptions=True
    )
    opened = [one for one in done if isinstance(one, Payment)]
    assert {one.id for one in opened} == {opened[0].id}
    assert {getattr(one, "code", "") for one in done if not isinstance(one, Payment)} <= {
        "IDEMPOTENCY_IN_FLIGHT"
    }
    assert house.till.asked["checkout"] == 1


@pytest.mark.parametrize("sent", [True, False])
async def test_a_gateway_that_is_away_charges_nothing_and_the_same_key_goes_on(
    house: House, sent: bool
) -> None:
    house.till.fail("checkout", GatewayAway("timeout", sent=sent))
    no = await refused(house.deposit(key="k"))
    assert (no.code, no.status) == ("GATEWAY_AWAY", 503)
    again = await house.deposit(key="k")
    assert again.checkout_url is not None
    assert len(again.asked) == 1
    assert await house.db["payments"].count_documents({}) == 1


async def test_a_checkout_whose_answer_was_lost_is_opened_again_under_another_reference(house: House) -> None:
    house.till.fail("checkout", GatewayAway("cut"), after=True)
    assert await code_of(house.deposit(key="k")) == "GATEWAY_AWAY"
    payment = await house.deposit(key="k")
    second = f"{payment.reference}-2"
    assert payment.checkout_url == f"https://till.test/{second}"
    assert [one.reference for one in payment.asked] == [payment.reference, second]
    house.till.pays(second)
    assert (await house.verify(payment)).status is Status.COMPLETED
    # Nobody has the first one's address; if it is paid all the same, the money counts.
    house.till.pays(payment.reference, 300)
    await house.tell(house.till.tells(payment.reference))
    assert await house.money() == (1300, 0)
    assert (await house.one.payments.verify(ANN, second)).payment.paid_minor == 1300
    await house.books()


async def test_a_gateway_that_never_opens_it_is_asked_so_often_and_no_more(house: House) -> None:
    for _ in range(20):
        house.till.fail("checkout", GatewayNo("duplicate", taken=True))
    assert await code_of(house.deposit(key="k")) == "GATEWAY_AWAY"
    assert house.till.asked["checkout"] == rules.CHECKOUTS_MAX


async def test_what_the_gateway_refuses_has_failed(house: House) -> None:
    house.till.fail("checkout", GatewayNo("bad_email", "no"))
    for _ in range(2):
        assert await code_of(house.deposit(key="k")) == "GATEWAY_REFUSED"
    assert house.till.asked["checkout"] == 1
    [payment] = await house.one.payments.payments(ANN, before_id=None, most=5)
    assert (payment.status, payment.word) == (Status.FAILED, "bad_email")


async def test_what_may_be_taken_later_has_not_failed(house: House) -> None:
    house.till.fail("checkout", GatewayNo("busy", later=True))
    assert await code_of(house.deposit(key="k")) == "GATEWAY_AWAY"
    assert (await house.deposit(key="k")).checkout_url is not None


async def test_who_opens_it_has_it_for_a_while(house: House) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()
    checkout = house.till.checkout

    async def slow(ask: Any) -> Any:
        begun.set()
        await gate.wait()
        return await checkout(ask)

    house.till.checkout = slow  # type: ignore[method-assign]
    first = asyncio.create_task(house.deposit(key="k"))
    await begun.wait()
    assert await code_of(house.deposit(house.process(), key="k")) == "IDEMPOTENCY_IN_FLIGHT"
    gate.set()
    assert (await first).checkout_url is not None


# ------------------------------------------------------------------------------------------------- what is not believed


async def test_money_in_another_currency_credits_nothing_and_asks_for_a_person(house: House) -> None:
    payment = await house.deposit()
    house.till.pays(payment.reference, 1000, "USD")
    for _ in range(3):
        seen = await house.verify(payment)
    assert (seen.status, seen.paid_minor) == (Status.PENDING, 0)
    assert seen.review == "paid in USD: USD 10.00"
    assert await house.money() == (0, 0)
    assert house.counts["review"] == 1
    await house.books()


async def test_an_answer_about_another_payment_counts_for_nothing(house: House) -> None:
    payment, other = await house.deposit(), await house.deposit(user_id=BOB)
    house.till.pays(other.reference)
    house.till.payments[payment.reference] = house.till.payments[other.reference]
    assert (await house.verify(payment)).status is Status.PENDING
    assert await house.money(ANN) == (0, 0)


async def test_more_than_a_wallet_can_hold_waits_for_a_person_and_then_comes(house: House) -> None:
    payment = await house.deposit()
    house.till.pays(payment.reference, AMOUNT_MAX)
    await house.paid()
    seen = await house.verify(payment)
    assert (seen.paid_minor, seen.review) == (0, "paid, and more than the wallet can hold")
    await house.one.ledger.post([], lambda _: [])
    house.till.pays(payment.reference, AMOUNT_MAX - 1000)
    house.clock.pass_(2 * HOUR)
    await house.one.jobs()
    assert (await house.fresh(payment)).paid_minor == AMOUNT_MAX - 1000
    await house.books()


async def test_a_payment_is_its_owners(house: House) -> None:
    made = []
    for _ in range(5):
        made.append((await house.paid()).id)
        house.clock.pass_(1)
    first = await house.one.payments.payments(ANN, before_id=None, most=3)
    rest = await house.one.payments.payments(ANN, before_id=first[-1].id, most=3)
    assert [one.id for one in (*first, *rest)] == made[::-1]
    assert (await house.one.payments.payment(ANN, made[0])).id == made[0]
    reference = first[0].reference
    for work in (
        house.one.payments.payment(BOB, made[0]),
        house.one.payments.verify(BOB, reference),
        house.one.payments.payment(ANN, NOBODY),
        house.one.payments.verify(ANN, "no-such"),
    ):
        assert await code_of(work) == "PAYMENT_UNKNOWN"


async def test_asking_again_and_again_asks_the_gateway_now_and_then(house: House) -> None:
    payment = await house.deposit()
    for _ in range(10):
        await house.one.payments.verify(ANN, payment.reference)
    assert house.till.asked["query"] == 1
    house.till.pays(payment.reference)
    assert (await house.verify(payment)).status is Status.COMPLETED
    for _ in range(3):
        await house.verify(payment)
    assert house.till.asked["query"] == 2, "what was paid in full is known"


async def test_while_the_gateway_is_away_a_payment_is_as_we_know_it(house: House) -> None:
    payment = await house.deposit()
    house.till.pays(payment.reference)
    house.till.fail("query", GatewayAway("timeout"))
    house.till.fail("query", GatewayNo("who are you"))
    assert (await house.verify(payment)).status is Status.PENDING
    assert (await house.verify(payment)).status is Status.PENDING
    assert (await house.verify(payment)).status is Status.COMPLETED


# ------------------------------------------------------------------------------------------------------ the reconciler


async def test_the_reconciler_finds_what_nobody_told(house: House) -> None:
    payment = await house.deposit()
    house.till.pays(payment.reference)
    house.clock.pass_(59)
    await house.one.jobs()
    assert house.till.asked["query"] == 0
    house.clock.pass_(1)
    await house.one.jobs()
    assert await house.money() == (1000, 0)
    await house.books()


async def test_it_asks_by_a_back_off_and_gives_up_after_three_days(house: House) -> None:
    payment = await house.deposit()
    began, asked = house.clock.now(), []
    over = began + timedelta(hours=80)
    while house.clock.now() < over:
        before = house.till.asked["query"]
        await house.one.payments.run_looks()
        if house.till.asked["query"] > before:
            asked.append((house.clock.now() - began).total_seconds())
        # To half a minute before it is to be asked again, when nothing is.
        due = min((await house.fresh(payment)).look_at or over, over)
        house.clock.pass_(max(0, (due - house.clock.now()).total_seconds() - 30))
        before = house.till.asked["query"]
        await house.one.payments.run_looks()
        assert house.till.asked["query"] == before
        house.clock.pass_(30)
    assert asked[:6] == [60, 180, 480, 1380, 4980, 8580]
    assert asked[-1] == 72 * HOUR
    assert (await house.fresh(payment)).status is Status.CANCELLED
    assert house.statuses(payment) == ["cancelled"]


async def test_what_is_paid_after_that_is_credited_when_it_is_told(house: House) -> None:
    payment = await house.deposit()
    house.clock.pass_(72 * HOUR)
    await house.one.jobs()
    assert (await house.fresh(payment)).status is Status.CANCELLED
    house.clock.pass_(DAY)
    house.till.pays(payment.reference)
    await house.tell(house.till.tells(payment.reference))
    assert house.statuses(payment) == ["cancelled", "completed"]
    assert await house.money() == (1000, 0)
    await house.books()


async def test_what_is_paid_after_that_and_told_by_nobody_is_found_in_the_end(house: House) -> None:
    payment = await house.deposit()
    house.clock.pass_(72 * HOUR)
    await house.one.jobs()
    asked = house.till.asked["query"]
    house.clock.pass_(2 * DAY)
    await house.one.jobs()
    house.till.pays(payment.reference)
    house.clock.pass_(2 * DAY)
    await house.one.jobs()
    assert house.till.asked["query"] == asked + 1
    assert house.statuses(payment) == ["cancelled", "completed"]
    for _ in range(80):
        house.clock.pass_(DAY)
        await house.one.jobs()
    assert house.till.asked["query"] == asked + 1 + 3, "as any that was paid"


@pytest.mark.parametrize("state", [PayState.FAILED, PayState.CANCELLED])
async def test_a_payment_that_failed_may_be_paid_after_all(house: House, state: PayState) -> None:
    payment = await house.deposit()
    house.till.now(payment.reference, state=state)
    assert (await house.verify(payment)).status.value == state.value
    house.till.now(payment.reference, state=PayState.PENDING)
    assert (await house.verify(payment)).status.value == state.value, "never back"
    house.till.pays(payment.reference)
    house.clock.pass_(2 * HOUR)
    await house.one.jobs()
    assert (await house.fresh(payment)).status is Status.COMPLETED
    assert await house.money() == (1000, 0)


async def test_while_the_gateway_is_away_nothing_is_given_up(house: House) -> None:
    payment = await house.deposit()
    house.till.pays(payment.reference)
    house.till.down = True
    for _ in range(100):
        house.clock.pass_(HOUR)
        await house.one.jobs()
    assert (await house.fresh(payment)).status is Status.PENDING
    house.till.down = False
    house.clock.pass_(HOUR)
    await house.one.jobs()
    assert (await house.fresh(payment)).status is Status.COMPLETED


async def test_what_was_paid_in_part_is_asked_for_until_it_is_old(house: House) -> None:
    payment = await house.paid(400)
    house.till.pays(payment.reference, 1000)
    house.clock.pass_(2 * HOUR)
    await house.one.jobs()
    assert (await house.fresh(payment)).paid_minor == 1000


async def test_two_processes_that_look_at_once_credit_once(house: House) -> None:
    processes = [house.one, *(house.process() for _ in range(3))]
    for _ in range(10):
        payment = await house.deposit()
        house.till.pays(payment.reference)
        found = [await one.payments.store.find(payment.id) for one in processes]
        looks = (one.payments.looking.look(it) for one, it in zip(processes, found, strict=True) if it)
        await asyncio.gather(*looks)
    assert await house.money() == (10_000, 0)
    assert await house.db["journal"].count_documents({}) == 10
    await house.books()


async def test_a_change_that_was_not_told_is_told_by_the_job(house: House) -> None:
    payment = await house.deposit()
    house.till.pays(payment.reference)
    broken = house.process()

    async def dies(payment: Payment) -> None:
        raise OSError("gone")

    broken.payment = dies  # type: ignore[method-assign]
    await house.verify(payment, broken)
    assert house.statuses(payment) == []
    house.clock.pass_(10)
    await house.one.jobs()
    await house.one.jobs()
    assert house.statuses(payment) == ["completed"]


# ----------------------------------------------------------------------------------------------------------- pure rules


def a_payment(**more: Any) -> Payment:
    fields: dict[str, Any] = {
        "id": "p",
        "reference": "r",
        "user_id": "u",
        "gateway": "g",
        "amount_minor": 1000,
        "currency": "NGN",
        "into": "primary",
        "status": Status.PENDING,
        "checkout_url": None,
        "created_at": VirtualClock().now(),
        "asked": (Asked(reference="r"),),
    }
    return Payment(**{**fields, **more})


def seen(**more: Any) -> dict[str, PaymentSeen]:
    fields: dict[str, Any] = {"reference": "r", "gateway_reference": None, "state": PayState.PAID}
    return {"r": PaymentSeen(**{**fields, "currency": "NGN", **more})}


def test_a_reversal_without_an_amount_is_one_of_everything() -> None:
    now = VirtualClock().now()
    step = rules.step(a_payment(), seen(state=PayState.REVERSED, paid_minor=700), now)
    assert (step.credit_minor, step.reverse_minor, step.punish) == (700, 700, False)
    assert step.payment.status is Status.REVERSED
    later = rules.step(step.payment, seen(state=PayState.REVERSED, paid_minor=700), now)
    assert (later.credit_minor, later.reverse_minor) == (0, 0)


def test_no_more_goes_back_than_came() -> None:
    now = VirtualClock().now()
    step = rules.step(a_payment(), seen(paid_minor=700, reversed_minor=900), now)
    assert (step.credit_minor, step.reverse_minor) == (700, 700)
    assert rules.step(a_payment(), seen(state=PayState.FAILED, paid_minor=700), now).credit_minor == 0
    assert rules.step(a_payment(), seen(paid_minor=-700, reversed_minor=-1), now).payment.paid_minor == 0

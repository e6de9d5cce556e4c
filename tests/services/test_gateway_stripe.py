"""Stripe's adapter against its stand-in; what holds for every gateway is in test_gateway_faults."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe as library
from hypothesis import given
from hypothesis import strategies as st

from models.db import Database
from models.payments.gateway import About, GatewayAway, GatewayNo, NoticeInvalid, PayState, RefundState
from models.payments.payment import Status
from server.adapters.gateways.stripe import LEAST_MINOR, Stripe
from tests.fakes import CountingIds, VirtualClock
from tests.services.gatewayhouse import START, Naps, Pair, beside, fate, stripe_pair
from tests.services.payments_house import ANN, House
from tests.services.test_gateway_faults import lowered
from tests.standins.gatewaykit import Hook
from tests.standins.stripe import WEBHOOK_SECRET, StripeStandIn


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with beside(stripe_pair) as made:
        yield made


def gateway(*secrets: str) -> Stripe:
    return Stripe(secret_key="sk_test_x", webhook_secrets=secrets or (WEBHOOK_SECRET,))


def session_event(standin: StripeStandIn) -> Hook:
    thing = {"id": "cs_1", "object": "checkout.session", "client_reference_id": "pay-1", "metadata": {}}
    return standin.event("checkout.session.completed", thing)


@pytest.mark.parametrize("secrets", [(), ("",), (WEBHOOK_SECRET, "")])
def test_without_its_secrets_there_is_no_gateway(secrets: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="secret"):
        Stripe(secret_key="sk_test_x", webhook_secrets=secrets)
    with pytest.raises(ValueError, match="secret"):
        Stripe(secret_key="", webhook_secrets=(WEBHOOK_SECRET,))


def test_what_the_stand_in_signs_is_what_the_official_library_accepts() -> None:
    standin = StripeStandIn(VirtualClock())
    hook = standin.sign(session_event(standin).raw, "pay-1", at=int(time.time()))
    event = library.Webhook.construct_event(hook.raw, hook.headers["Stripe-Signature"], WEBHOOK_SECRET)
    assert event.id == "evt_1"
    assert gateway().parse(hook.raw, lowered(hook.headers), START.fromtimestamp(time.time(), START.tzinfo)).id


@pytest.mark.parametrize(
    ("seconds", "fine"), [(-301, False), (-300, True), (0, True), (300, True), (301, False)]
)
def test_a_signature_is_good_for_five_minutes_to_both_sides(seconds: int, fine: bool) -> None:
    clock = VirtualClock(START)
    standin = StripeStandIn(clock)
    hook = standin.sign(session_event(standin).raw, "", at=int(clock.now().timestamp()) + seconds)
    if fine:
        assert gateway().parse(hook.raw, lowered(hook.headers), clock.now()).reference == "pay-1"
    else:
        with pytest.raises(NoticeInvalid):
            gateway().parse(hook.raw, lowered(hook.headers), clock.now())


def test_the_time_that_was_signed_is_the_time_that_counts() -> None:
    """A second ``t`` beside the signed one, before or after it, helps nobody."""
    clock = VirtualClock(START)
    standin = StripeStandIn(clock)
    now = int(clock.now().timestamp())
    old = standin.sign(session_event(standin).raw, "", at=now - 4000)
    signature = old.headers["Stripe-Signature"]
    for header in (f"t={now},{signature}", f"{signature},t={now}", signature.replace("t=", "t=0")):
        with pytest.raises(NoticeInvalid):
            gateway().parse(old.raw, {"stripe-signature": header}, clock.now())


def test_while_a_secret_is_replaced_the_old_and_the_new_one_are_both_good() -> None:
    clock = VirtualClock(START)
    standin = StripeStandIn(clock)
    replaced = gateway("whsec_new", "whsec_old")
    for signed_by in (["whsec_new"], ["whsec_old"], ["whsec_new", "whsec_old"], ["whsec_other", "whsec_old"]):
        standin.secrets = signed_by
        hook = session_event(standin)
        assert replaced.parse(hook.raw, lowered(hook.headers), clock.now()).reference == "pay-1"
    standin.secrets = ["whsec_other"]
    hook = session_event(standin)
    with pytest.raises(NoticeInvalid):
        replaced.parse(hook.raw, lowered(hook.headers), clock.now())


@given(st.text(max_size=80), st.binary(max_size=200))
def test_whatever_stands_in_the_header_or_the_body_is_refused_and_breaks_nothing(
    header: str, raw: bytes
) -> None:
    with pytest.raises(NoticeInvalid):
        gateway().parse(raw, {"stripe-signature": header}, START)
    with pytest.raises(NoticeInvalid):
        gateway().parse(raw, {"stripe-signature": f"t={int(START.timestamp())},v1={header}"}, START)


async def test_a_lost_answer_is_the_same_answer_again_under_the_same_key(pair: Pair) -> None:
    pair.standin.stumble("create", "cut_after")
    assert await fate(pair.adapter.checkout(pair.ask())) == "unknown"
    opened = await pair.adapter.checkout(pair.ask())
    assert pair.standin.count("create") == 2
    assert [one.theirs for one in pair.standin.payments.values()] == [
        opened.gateway_reference.removeprefix("cs_test_")
    ]
    assert pair.standin.last("create").headers["idempotency-key"] == "pay-1"
    with pytest.raises(GatewayNo) as no:
        await pair.adapter.checkout(pair.ask(amount_minor=1))
    assert no.value.taken


async def test_a_fault_that_stripe_has_kept_is_no_answer_however_often_it_is_asked(pair: Pair) -> None:
    pair.standin.stumble("create", "500_after")
    for _ in range(3):
        assert await fate(pair.adapter.checkout(pair.ask())) == "unknown"
    assert len(pair.standin.payments) == 1


async def test_a_payment_whose_session_was_never_learnt_is_found_by_its_metadata(pair: Pair) -> None:
    pair.standin.stumble("create", "cut_after")
    assert await fate(pair.adapter.checkout(pair.ask())) == "unknown"
    assert await pair.adapter.query("pay-1", None) is None  # nobody has tried to pay yet
    await pair.standin.pay("pay-1")
    seen = await pair.adapter.query("pay-1", None)
    assert seen is not None
    assert (seen.state, seen.paid_minor) == (PayState.PAID, 10_050)
    assert seen.gateway_reference == f"cs_test_{pair.standin.payments['pay-1'].theirs}"
    asked = pair.standin.count("search")
    assert await pair.adapter.query("pay-1' OR metadata['x']:'y", None) is None
    assert pair.standin.count("search") == asked


async def test_complete_and_unpaid_waits_until_it_is_paid_or_has_failed(pair: Pair) -> None:
    for name, ends in (("pay-1", PayState.PAID), ("pay-2", PayState.FAILED)):
        opened = await pair.adapter.checkout(pair.ask(name))
        await pair.standin.slow(name)
        seen = await pair.adapter.query(name, opened.gateway_reference)
        assert seen is not None
        assert (seen.state, seen.paid_minor, seen.word) == (PayState.PENDING, 0, "complete/unpaid")
        await (pair.standin.pay(name) if ends is PayState.PAID else pair.standin.end(name, "FAILED"))
        seen = await pair.adapter.query(name, opened.gateway_reference)
        assert seen is not None
        assert seen.state is ends
    await pair.adapter.checkout(pair.ask("pay-3"))
    await pair.standin.end("pay-3", "EXPIRED")
    seen = await pair.adapter.query("pay-3", f"cs_test_{pair.standin.payments['pay-3'].theirs}")
    assert seen is not None
    assert seen.state is PayState.CANCELLED


async def test_an_answer_about_another_payment_is_not_believed(pair: Pair) -> None:
    first = await pair.adapter.checkout(pair.ask("pay-1"))
    await pair.standin.pay("pay-1")
    with pytest.raises(GatewayAway):
        await pair.adapter.query("pay-2", first.gateway_reference)


@pytest.mark.parametrize("amount", [100.0, "x", -1, True, None])
async def test_an_amount_that_is_no_whole_number_is_left_unread(pair: Pair, amount: Any) -> None:
    opened = await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1")
    pair.standin.payments["pay-1"].more["intent_answer"] = {"amount_received": amount}
    with pytest.raises(GatewayAway):
        await pair.adapter.query("pay-1", opened.gateway_reference)


async def test_what_is_refunded_or_disputed_has_gone_back_and_a_dispute_that_was_won_has_not(
    pair: Pair,
) -> None:
    opened = await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1")

    async def back() -> tuple[PayState, int]:
        seen = await pair.adapter.query("pay-1", opened.gateway_reference)
        assert seen is not None
        assert (seen.paid_minor, seen.fee_minor) == (10_050, 59)
        return seen.state, seen.reversed_minor

    assert await back() == (PayState.PAID, 0)
    pair.standin.payments["pay-1"].reversed_minor = 50
    assert await back() == (PayState.PAID, 50)
    await pair.standin.dispute("pay-1", 4_000, "warning_needs_response")
    assert await back() == (PayState.PAID, 50)
    await pair.standin.dispute("pay-1", 10_000)
    assert await back() == (PayState.REVERSED, 10_050)
    pair.standin.disputes[-1]["status"] = "won"
    assert await back() == (PayState.PAID, 50)


async def test_currencies_without_and_with_three_decimals_go_out_in_stripes_units(pair: Pair) -> None:
    for currency in ("JPY", "USD", "KWD"):
        ask = pair.ask(f"pay-{currency}", amount_minor=5_000)
        pair.currency = currency
        ask = pair.ask(f"pay-{currency}", amount_minor=5_000)
        opened = await pair.adapter.checkout(ask)
        await pair.standin.pay(f"pay-{currency}")
        seen = await pair.adapter.query(f"pay-{currency}", opened.gateway_reference)
        assert seen is not None
        assert (seen.currency, seen.paid_minor) == (currency, 5_000)
    assert set(pair.adapter.terms.currencies) == set(LEAST_MINOR)


async def test_a_refund_is_asked_for_once_and_found_again(pair: Pair) -> None:
    opened = await pair.adapter.checkout(pair.ask())
    ask = pair.refund(theirs=opened.gateway_reference)
    assert await fate(pair.adapter.refund(ask)) == "no"  # nothing was paid
    assert await pair.adapter.refund_status(ask, None) is None
    await pair.standin.pay("pay-1")
    pair.standin.stumble("refund", "cut_after")
    assert await fate(pair.adapter.refund(ask)) == "unknown"
    found = await pair.adapter.refund_status(ask, None)
    assert found is not None
    assert found.state is RefundState.PENDING
    again = await pair.adapter.refund(ask)
    assert again.gateway_reference == found.gateway_reference
    assert len(pair.standin.refunds) == 1
    pair.standin.refunds[0]["status"] = "succeeded"
    seen = await pair.adapter.refund_status(ask, found.gateway_reference)
    assert seen is not None
    assert seen.state is RefundState.DONE
    assert await pair.adapter.refund_status(ask, "re_404") is None
    pair.standin.stumble("retrieve", "500", "500", "500")
    assert await fate(pair.adapter.refund(ask)) == "unsent"


async def test_events_say_what_they_are_about(pair: Pair) -> None:
    named = {"metadata": {"reference": "pay-1"}}
    for word, thing, about, reference in (
        ("checkout.session.expired", {"id": "cs_1", "client_reference_id": "pay-1"}, About.PAYMENT, "pay-1"),
        ("payment_intent.succeeded", {"object": "payment_intent", **named}, About.PAYMENT, "pay-1"),
        ("charge.refunded", {"object": "charge", **named}, About.PAYMENT, "pay-1"),
        ("charge.refund.updated", {"object": "refund", "id": "re_1", **named}, About.REFUND, "pay-1"),
        ("refund.failed", {"object": "refund", "id": "re_1", **named}, About.REFUND, "pay-1"),
        ("charge.dispute.created", {"object": "dispute", "payment_intent": "pi_1"}, About.PAYMENT, None),
        ("customer.created", {"object": "customer"}, About.OTHER, None),
    ):
        hook = pair.standin.event(word, thing)
        notice = pair.adapter.parse(hook.raw, lowered(hook.headers), pair.clock.now())
        assert (notice.about, notice.reference, notice.word) == (about, reference, word)
        assert notice.id == json.loads(hook.raw)["id"]


async def test_e140_a_dispute_takes_the_money_back_when_it_is_told_however_late_that_is(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    pair = await stripe_pair(clock, Naps())
    house = House(db, clock, ids)
    house.till = pair.adapter
    house.one = house.process()
    await house.people(ANN)
    payment = await house.deposit(minor=5_000)
    await pair.standin.pay(payment.reference)
    assert (await house.verify(payment)).status is Status.COMPLETED
    clock.pass_(100 * 24 * 3600)
    await house.one.payments.run_looks()
    pair.standin.hooks.clear()
    await pair.standin.dispute(payment.reference, 5_000)
    (hook,) = pair.standin.hooks
    await house.one.inbox.take("stripe", hook.raw, lowered(hook.headers))
    await house.one.inbox.run()
    assert (await house.fresh(payment)).status is Status.REVERSED
    wallet = await house.wallet()
    assert (wallet.primary, wallet.frozen) == (0, True)
    await house.books()
    # Somebody else's, or none at all.
    for strange in ("pi_404", "../refunds", "ch_1"):
        assert await pair.adapter.reference_of(strange) is None
    await pair.adapter.close()
    await pair.standin.stop()


async def test_it_pays_nothing_out(pair: Pair) -> None:
    assert pair.adapter.terms.payouts == frozenset()
    assert await fate(pair.adapter.pay_out(pair.payout())) == "no"
    assert await fate(pair.adapter.authorize_payout("x", None, "1")) == "no"
    assert await fate(pair.adapter.resend_password("x", None)) == "no"
    assert await pair.adapter.banks("USD") == []
    assert await pair.adapter.account_name(pair.payout().to, "USD") is None
    assert await pair.adapter.payout_status("x", None) is None


async def test_nothing_is_told_of_the_machine_and_no_secret_is_in_a_fault(pair: Pair) -> None:
    await pair.adapter.checkout(pair.ask())
    told = pair.standin.last("create").headers["x-stripe-client-user-agent"]
    assert "platform" not in told
    for fault in ("500", "cut", "html_after", "401"):
        pair.standin.stumble("create", fault)
        with pytest.raises(GatewayAway) as away:
            await pair.adapter.checkout(pair.ask(f"pay-{fault.replace('_', '-')}"))
        assert "sk_test" not in f"{away.value!r}{away.value.__cause__!r}"
        assert "ada@" not in f"{away.value!r}{away.value.__cause__!r}"

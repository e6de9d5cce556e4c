"""Paystack's adapter against its stand-in; what holds for every gateway is in test_gateway_faults."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from models.payments.gateway import About, GatewayAway, GatewayNo, PayoutState, PayState, RefundState
from server.adapters.gateways.paystack import Paystack
from tests.services.gatewayhouse import Pair, beside, fate, paystack_pair
from tests.services.test_gateway_faults import lowered
from tests.standins.paystack import OTP


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with beside(paystack_pair) as made:
        yield made


def test_without_its_secret_there_is_no_gateway() -> None:
    with pytest.raises(ValueError, match="secret"):
        Paystack(secret_key="")


@pytest.mark.parametrize(
    ("word", "state", "credited"),
    [
        ("success", PayState.PAID, 10_050),
        ("failed", PayState.FAILED, 0),
        ("abandoned", PayState.PENDING, 0),
        ("ongoing", PayState.PENDING, 0),
        ("pending", PayState.PENDING, 0),
        ("processing", PayState.PENDING, 0),
        ("queued", PayState.PENDING, 0),
        ("reversed", PayState.REVERSED, 10_050),
        ("something-new", PayState.PENDING, 0),
    ],
)
async def test_each_word_for_a_payment_has_its_state_and_only_paid_ones_credit(
    pair: Pair, word: str, state: PayState, credited: int
) -> None:
    await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1")
    pair.standin.payments["pay-1"].state = word
    seen = await pair.adapter.query("pay-1", None)
    assert seen is not None
    assert (seen.state, seen.paid_minor, seen.word) == (state, credited, word)


@pytest.mark.parametrize("amount", [100.5, "100.5", -1, None, True, [], "1e4", 2**60])
async def test_an_amount_that_is_no_whole_number_of_kobo_is_left_unread(pair: Pair, amount: Any) -> None:
    await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1")
    pair.standin.payments["pay-1"].more["answer"] = {"amount": amount}
    with pytest.raises(GatewayAway):
        await pair.adapter.query("pay-1", None)


async def test_an_answer_about_another_payment_is_not_believed(pair: Pair) -> None:
    await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1")
    pair.standin.payments["pay-1"].more["answer"] = {"reference": "pay-2"}
    with pytest.raises(GatewayAway):
        await pair.adapter.query("pay-1", None)


async def test_kobo_go_out_as_kobo(pair: Pair) -> None:
    await pair.adapter.checkout(pair.ask(amount_minor=10_010))
    assert pair.standin.last("initialize").json["amount"] == 10_010


async def test_a_payout_has_its_recipient_made_first_and_one_that_cannot_be_made_moves_nothing(
    pair: Pair,
) -> None:
    pair.standin.stumble("recipient", "500", "cut", "503")
    assert await fate(pair.adapter.pay_out(pair.payout())) == "unsent"
    pair.standin.stumble("recipient", "500")
    seen = await pair.adapter.pay_out(pair.payout())
    assert (seen.state, seen.amount_minor, seen.currency) == (PayoutState.PENDING, 10_050, "NGN")
    with pytest.raises(GatewayNo):
        await pair.adapter.pay_out(replace(pair.payout("wd-0000000000000002"), currency="USD"))
    pair.standin.accounts.clear()
    to = replace(pair.payout("wd-0000000000000003").to, account_number="1")
    assert await fate(pair.adapter.pay_out(replace(pair.payout("wd-0000000000000003"), to=to))) == "no"
    assert list(pair.standin.payouts) == ["wd-0000000000000001"]


async def test_a_payout_waits_for_the_operators_password(pair: Pair) -> None:
    pair.standin.otp = True
    seen = await pair.adapter.pay_out(pair.payout())
    assert seen.state is PayoutState.OTP
    await pair.adapter.resend_password(seen.reference, None)  # the answer with its code may have been lost
    assert pair.standin.last("resend-otp").json["transfer_code"] == seen.gateway_reference
    assert await fate(pair.adapter.authorize_payout(seen.reference, seen.gateway_reference, "0")) == "no"
    seen = await pair.adapter.authorize_payout(seen.reference, None, OTP)
    assert seen.state is PayoutState.PENDING
    await pair.standin.settle(seen.reference, "SUCCESS")
    done = await pair.adapter.payout_status(seen.reference, None)
    assert done is not None
    assert done.state is PayoutState.PAID
    hook = pair.standin.hooks[-1]
    notice = pair.adapter.parse(hook.raw, lowered(hook.headers), pair.clock.now())
    assert (notice.about, notice.reference, notice.gateway_reference) == (
        About.PAYOUT,
        seen.reference,
        seen.gateway_reference,
    )
    assert await fate(pair.adapter.resend_password("wd-0000000000000404", None)) == "no"


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("pending", PayoutState.PENDING),
        ("processing", PayoutState.PENDING),
        ("received", PayoutState.PENDING),
        ("success", PayoutState.PAID),
        ("failed", PayoutState.FAILED),
        ("rejected", PayoutState.FAILED),
        ("blocked", PayoutState.FAILED),
        ("reversed", PayoutState.REVERSED),
        ("something-new", PayoutState.PENDING),
    ],
)
async def test_each_word_for_a_payout_has_its_state(pair: Pair, word: str, state: PayoutState) -> None:
    pair.standin.immediate = word
    assert (await pair.adapter.pay_out(pair.payout())).state is state


async def test_who_holds_an_account_is_asked_of_the_bank_and_nobody_is_an_answer(pair: Pair) -> None:
    to = pair.payout().to
    assert await pair.adapter.account_name(to, "NGN") == "ADA OBI"
    assert await pair.adapter.account_name(replace(to, account_number="1"), "NGN") is None


async def test_the_list_of_banks_is_read_to_its_end(pair: Pair) -> None:
    for number in range(5):
        pair.standin.accounts[f"10{number}", "1"] = "X"
    assert [one.code for one in await pair.adapter.banks("NGN")] == ["100", "101", "102", "103", "104"]
    assert pair.standin.count("banks") == 3
    assert await pair.adapter.banks("USD") == []


async def test_a_refund_is_found_again_by_our_reference_when_its_answer_was_lost(pair: Pair) -> None:
    await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1")
    ask = pair.refund()
    assert await pair.adapter.refund_status(ask, None) is None
    pair.standin.stumble("refund", "cut_after")
    assert await fate(pair.adapter.refund(ask)) == "unknown"
    found = await pair.adapter.refund_status(ask, None)
    assert found is not None
    assert found.gateway_reference is not None
    for word, state in (
        ("processing", RefundState.PENDING),
        ("needs-attention", RefundState.PENDING),
        ("processed", RefundState.DONE),
        ("failed", RefundState.FAILED),
    ):
        pair.standin.refunds[0]["status"] = word
        seen = await pair.adapter.refund_status(ask, found.gateway_reference)
        assert seen is not None
        assert seen.state is state
    assert await pair.adapter.refund_status(ask, "404") is None
    assert await fate(pair.adapter.refund(pair.refund(amount_minor=999_999))) == "no"


async def test_a_part_that_was_refunded_in_the_dashboard_has_gone_back_once_it_is_processed(
    pair: Pair,
) -> None:
    await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1")
    number = int(pair.standin.payments["pay-1"].theirs)
    for status, amount, back in (
        ("pending", 40, 0),
        ("failed", 50, 0),
        ("processed", 60, 60),
        ("processed", 7, 67),
    ):
        pair.standin.refunds.append({"id": 9, "transaction": number, "amount": amount, "status": status})
        seen = await pair.adapter.query("pay-1", None)
        assert seen is not None
        assert (seen.state, seen.paid_minor, seen.reversed_minor) == (PayState.PAID, 10_050, back)
    pair.standin.refunds.append({"id": 9, "transaction": number, "amount": 10**6, "status": "processed"})
    seen = await pair.adapter.query("pay-1", None)
    assert seen is not None
    assert seen.reversed_minor == 10_050


async def test_a_refund_or_a_dispute_that_is_notified_lets_its_payment_be_looked_at(pair: Pair) -> None:
    for event, data in (
        ("refund.processed", {"transaction_reference": "pay-1", "status": "processed"}),
        ("charge.dispute.create", {"transaction": {"reference": "pay-1"}}),
    ):
        hook = pair.standin.hook(event, data)
        notice = pair.adapter.parse(hook.raw, lowered(hook.headers), pair.clock.now())
        assert (notice.about, notice.reference) == (About.PAYMENT, "pay-1")
    hook = pair.standin.hook("customeridentification.success", {"customer_id": "x"})
    assert pair.adapter.parse(hook.raw, lowered(hook.headers), pair.clock.now()).about is About.OTHER


async def test_a_card_is_kept_only_as_a_token_and_only_when_it_may_be_used_again(pair: Pair) -> None:
    await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1")
    card = {"authorization_code": "AUTH_1", "last4": "4081", "exp_month": "12", "exp_year": "2030"}
    card |= {"channel": "card", "card_type": "visa ", "brand": "visa"}
    for more, kept in (
        ({"reusable": False}, False),
        ({"reusable": True}, True),
        ({"channel": "bank"}, False),
    ):
        pair.standin.payments["pay-1"].more["card"] = {**card, "reusable": True, **more}
        seen = await pair.adapter.query("pay-1", None)
        assert seen is not None
        assert (seen.card is not None) is kept
        if seen.card is not None:
            assert (seen.card.token, seen.card.last4, seen.card.expires) == ("AUTH_1", "4081", "12/2030")
        assert seen.fee_minor == 150

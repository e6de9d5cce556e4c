"""Monnify's adapter against its stand-in: tokens, words, naira, one-time passwords; the rest in test_gateway_faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from models.payments.gateway import (
    About,
    GatewayAway,
    GatewayNo,
    NoticeInvalid,
    PayoutState,
    PayState,
    RefundState,
)
from server.adapters.gateways.monnify import Monnify
from server.adapters.gateways.monnify_words import instant
from tests.fakes import VirtualClock
from tests.services.gatewayhouse import Pair, beside, fate, monnify_pair
from tests.services.test_gateway_faults import lowered
from tests.standins.monnify import OTP

# The example of the page on webhooks: its key, its body and its hash.
DOCUMENTED_KEY = "91MUDL9N6U3BQRXBQ2PJ9M0PW4J22M1Y"
DOCUMENTED_HASH = (
    "f04fb635e04d71648bd3cc7999003da6861483342c856d05ddfa9b2dafacb873"
    "b0de1d0f8f67405d0010b4348b721c49fa171d317972618debba6b638aedcd3c"
)
DOCUMENTED_BODY = (
    b'{"eventData":{"product":{"reference":"111222333","type":"OFFLINE_PAYMENT_AGENT"},'
    b'"transactionReference":"MNFY|76|20211117154810|000001","paymentReference":"0.01462001097368737",'
    b'"paidOn":"17/11/2021 3:48:10 PM","paymentDescription":"Mockaroo Jesse","metaData":{},'
    b'"destinationAccountInformation":{},"paymentSourceInformation":{},"amountPaid":78000,"totalPayable":78000,'
    b'"offlineProductInformation":{"code":"41470","type":"DYNAMIC"},"cardDetails":{},"paymentMethod":"CASH",'
    b'"currency":"NGN","settlementAmount":77600,"paymentStatus":"PAID","customer":{"name":"Mockaroo Jesse",'
    b'"email":"111222333@ZZAMZ4WT4Y3E.monnify"}},"eventType":"SUCCESSFUL_TRANSACTION"}'
)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with beside(monnify_pair) as made:
        yield made


def documented() -> Monnify:
    return Monnify(api_key="MK_TEST_X", secret_key=DOCUMENTED_KEY, contract_code="1", clock=VirtualClock())


def test_the_documented_example_of_a_signature_is_accepted_and_read() -> None:
    now = datetime(2021, 11, 17, 15, 0, tzinfo=UTC)
    notice = documented().parse(DOCUMENTED_BODY, {"monnify-signature": DOCUMENTED_HASH}, now)
    assert (notice.about, notice.word) == (About.PAYMENT, "SUCCESSFUL_TRANSACTION")
    assert notice.reference == "0.01462001097368737"
    assert notice.gateway_reference == "MNFY|76|20211117154810|000001"
    assert notice.at == datetime(2021, 11, 17, 14, 48, 10, tzinfo=UTC)
    for raw in (DOCUMENTED_BODY.replace(b"78000", b"78001"), DOCUMENTED_BODY.replace(b":{}", b": {}")):
        with pytest.raises(NoticeInvalid):
            documented().parse(raw, {"monnify-signature": DOCUMENTED_HASH}, now)


@pytest.mark.parametrize("missing", ["api_key", "secret_key", "contract_code"])
def test_without_a_secret_there_is_no_gateway_rather_than_one_that_believes_everything(missing: str) -> None:
    keys = {"api_key": "MK_TEST_X", "secret_key": "s", "contract_code": "1"} | {missing: ""}
    with pytest.raises(ValueError, match="needs"):
        Monnify(**keys, clock=VirtualClock())


@pytest.mark.parametrize(
    ("told", "at"),
    [
        ("25/07/2022 11:20:20 AM", datetime(2022, 7, 25, 10, 20, 20, tzinfo=UTC)),
        ("17/11/2021 3:48:10 PM", datetime(2021, 11, 17, 14, 48, 10, tzinfo=UTC)),
        ("2021-11-17 11:28:42.615", datetime(2021, 11, 17, 10, 28, 42, 615000, tzinfo=UTC)),
        ("2023-06-26 00:53:55.0", datetime(2023, 6, 25, 23, 53, 55, tzinfo=UTC)),
        ("2022-07-25T10:20:20.000+00:00", datetime(2022, 7, 25, 10, 20, 20, tzinfo=UTC)),
        ("01/01/0001 12:00:00 AM", None),
        ("yesterday", None),
        ("", None),
        (None, None),
        (1637142490, None),
    ],
)
def test_every_form_of_a_time_is_read_as_lagos_time(told: Any, at: datetime | None) -> None:
    assert instant(told) == at


@pytest.mark.parametrize(
    ("word", "state", "credited"),
    [
        ("PAID", PayState.PAID, 10_050),
        ("OVERPAID", PayState.PAID, 10_050),
        ("PARTIALLY_PAID", PayState.PAID, 10_050),
        ("PENDING", PayState.PENDING, 0),
        ("ABANDONED", PayState.CANCELLED, 0),
        ("CANCELLED", PayState.CANCELLED, 0),
        ("EXPIRED", PayState.CANCELLED, 0),
        ("FAILED", PayState.FAILED, 0),
        ("REVERSED", PayState.REVERSED, 10_050),
        ("SOMETHING_NEW", PayState.PENDING, 0),
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


@pytest.mark.parametrize(
    "amount", ["100.505", "1e2.5", "-1.00", "NaN", "Infinity", "", None, True, [], "12,50"]
)
async def test_an_amount_that_cannot_be_kobo_is_not_rounded_but_left_unread(pair: Pair, amount: Any) -> None:
    await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1")
    pair.standin.payments["pay-1"].more["answer"] = {"amountPaid": amount}
    with pytest.raises(GatewayAway):
        await pair.adapter.query("pay-1", None)


@pytest.mark.parametrize(
    ("amount", "minor"),
    [("100.5", 10_050), (100.1, 10_010), (3000, 300_000), ("0.07", 7), (4503599627370.49, 450359962737049)],
)
async def test_amounts_are_exact_as_numbers_and_as_text(pair: Pair, amount: Any, minor: int) -> None:
    await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1")
    pair.standin.payments["pay-1"].more["answer"] = {"amountPaid": amount, "settlementAmount": None}
    seen = await pair.adapter.query("pay-1", None)
    assert seen is not None
    assert seen.paid_minor == minor
    assert seen.fee_minor is None


async def test_naira_go_out_with_their_kobo_and_never_as_kobo_or_by_a_float(pair: Pair) -> None:
    await pair.adapter.checkout(pair.ask(amount_minor=123_456_789_012_307))
    assert b'"amount":1234567890123.07,' in pair.standin.last("init").body
    await pair.adapter.pay_out(pair.payout(amount_minor=10_010))
    assert b'"amount":100.10,' in pair.standin.last("transfer").body
    body = pair.standin.last("transfer").json
    assert body["currency"] == "NGN"
    assert "currencyCode" not in body
    assert body["destinationAccountName"] == "ADA OBI"
    assert body["sourceAccountNumber"] == "3934178936"


async def test_a_reference_with_bars_is_encoded_in_the_path(pair: Pair) -> None:
    opened = await pair.adapter.checkout(pair.ask())
    assert opened.gateway_reference is not None
    assert "|" in opened.gateway_reference
    seen = await pair.adapter.query("pay-1", opened.gateway_reference)
    assert seen is not None
    assert seen.gateway_reference == opened.gateway_reference
    assert "%7C" in pair.standin.last("status").path
    assert "|" not in pair.standin.last("status").path


async def test_an_answer_about_another_payment_is_not_believed(pair: Pair) -> None:
    first = await pair.adapter.checkout(pair.ask("pay-1"))
    await pair.adapter.checkout(pair.ask("pay-2"))
    await pair.standin.pay("pay-1")
    with pytest.raises(GatewayAway):
        await pair.adapter.query("pay-2", first.gateway_reference)


async def test_a_token_is_taken_once_for_many_and_renewed_before_it_ends(pair: Pair) -> None:
    await asyncio.gather(*(pair.adapter.query(f"pay-{n}", None) for n in range(20)))
    assert pair.standin.count("login") == 1
    pair.clock.pass_(3500)
    await pair.adapter.query("pay-1", None)
    assert pair.standin.count("login") == 1
    pair.clock.pass_(60)  # it lives another minute, and is not trusted with it
    await asyncio.gather(*(pair.adapter.query(f"pay-{n}", None) for n in range(20)))
    assert pair.standin.count("login") == 2


async def test_a_token_that_is_refused_is_renewed_once_for_all_who_wait_and_what_was_asked_is_sent_again(
    pair: Pair,
) -> None:
    await pair.adapter.query("pay-1", None)
    pair.standin.tokens.clear()
    await asyncio.gather(*(pair.adapter.checkout(pair.ask(f"pay-{n}")) for n in range(20)))
    assert pair.standin.count("login") == 2
    assert len(pair.standin.payments) == 20


async def test_a_wrong_key_is_no_answer_about_money_and_is_not_asked_for_ever(pair: Pair) -> None:
    pair.standin.stumble("login", *["401"] * 9)
    assert await fate(pair.adapter.pay_out(pair.payout())) == "unsent"
    assert pair.standin.count("login") == 1
    assert pair.standin.count("transfer") == 0


async def test_a_login_that_fails_on_the_way_is_tried_again_and_nothing_has_left(pair: Pair) -> None:
    pair.standin.stumble("login", "500", "cut")
    await pair.adapter.checkout(pair.ask())
    assert pair.standin.count("login") == 3
    pair.clock.pass_(4000)
    pair.standin.stumble("login", "500", "500", "500")
    assert await fate(pair.adapter.pay_out(pair.payout())) == "unsent"
    assert pair.standin.count("transfer") == 0


async def test_the_same_amount_to_the_same_account_within_two_minutes_is_a_no_for_now(pair: Pair) -> None:
    await pair.adapter.pay_out(pair.payout("wd-0000000000000001"))
    with pytest.raises(GatewayNo) as no:
        await pair.adapter.pay_out(pair.payout("wd-0000000000000002"))
    assert (no.value.code, no.value.taken, no.value.later) == ("D07", False, True)
    pair.clock.pass_(121)
    await pair.adapter.pay_out(pair.payout("wd-0000000000000002"))
    assert len(pair.standin.payouts) == 2


async def test_a_payout_waits_for_the_operators_password(pair: Pair) -> None:
    pair.standin.otp = True
    seen = await pair.adapter.pay_out(pair.payout())
    assert seen.state is PayoutState.OTP
    await pair.adapter.resend_password(seen.reference, seen.gateway_reference)
    assert pair.standin.count("resend-otp") == 1
    with pytest.raises(GatewayNo) as no:
        await pair.adapter.authorize_payout(seen.reference, seen.gateway_reference, "000000")
    assert not no.value.taken
    seen = await pair.adapter.authorize_payout(seen.reference, seen.gateway_reference, OTP)
    assert seen.state is PayoutState.PENDING
    await pair.standin.settle(seen.reference, "SUCCESS")
    done = await pair.adapter.payout_status(seen.reference, None)
    assert done is not None
    assert (done.state, done.amount_minor, done.fee_minor) == (PayoutState.PAID, 10_050, 3_500)
    hook = pair.standin.hooks[-1]
    notice = pair.adapter.parse(hook.raw, lowered(hook.headers), pair.clock.now())
    assert (notice.about, notice.reference) == (About.PAYOUT, seen.reference)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("AWAITING_PROCESSING", PayoutState.PENDING),
        ("IN_PROGRESS", PayoutState.PENDING),
        ("OTP_EMAIL_DISPATCH_FAILED", PayoutState.OTP),
        ("COMPLETED", PayoutState.PAID),
        ("SUCCESS", PayoutState.PAID),
        ("FAILED", PayoutState.FAILED),
        ("EXPIRED", PayoutState.FAILED),
        ("REVERSED", PayoutState.REVERSED),
        ("SOMETHING_NEW", PayoutState.PENDING),
    ],
)
async def test_each_word_for_a_payout_has_its_state(pair: Pair, word: str, state: PayoutState) -> None:
    pair.standin.immediate = word
    assert (await pair.adapter.pay_out(pair.payout())).state is state


async def test_without_an_account_to_pay_from_it_pays_nothing_out(pair: Pair) -> None:
    made = documented()
    assert made.terms.payouts == frozenset()
    with pytest.raises(GatewayNo):
        await made.pay_out(pair.payout())


async def test_who_holds_an_account_is_asked_of_the_bank_and_nobody_is_an_answer(pair: Pair) -> None:
    to = pair.payout().to
    assert await pair.adapter.account_name(to, "NGN") == "ADA OBI"
    pair.standin.accounts.clear()
    assert await pair.adapter.account_name(to, "NGN") is None
    pair.standin.accounts["232", "1"] = "X"
    assert [(one.code, one.name) for one in await pair.adapter.banks("NGN")] == [("232", "Bank 232")]
    assert await pair.adapter.banks("USD") == []


async def test_a_refund_is_believed_done_only_when_it_is_looked_at_again(pair: Pair) -> None:
    await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1")
    ask = pair.refund()  # what Monnify calls the payment was never learnt
    seen = await pair.adapter.refund(ask)
    assert seen.state is RefundState.PENDING
    assert b'"refundAmount":0.50,' in pair.standin.last("refund").body
    body = pair.standin.last("refund").json
    assert len(body["refundReason"]) == 64
    assert len(body["customerNote"]) == 16
    assert await fate(pair.adapter.refund(ask)) == "taken"
    for word, state in (
        ("PENDING", RefundState.PENDING),
        ("COMPLETED", RefundState.DONE),
        ("FAILED", RefundState.FAILED),
    ):
        pair.standin.refunds["rf-1"]["refundStatus"] = word
        now = await pair.adapter.refund_status(ask, None)
        assert now is not None
        assert now.state is state
    pair.standin.refunds.clear()
    assert await pair.adapter.refund_status(ask, None) is None


async def test_a_card_is_kept_only_as_a_token_and_only_when_it_may_be_used_again(pair: Pair) -> None:
    await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1")
    card = {"cardType": "MasterCard", "last4": "9098", "expMonth": "7", "expYear": "23", "bin": "539941"}
    for more, kept in (
        ({}, False),
        ({"cardToken": "T"}, False),
        ({"cardToken": "T", "reusable": True}, True),
    ):
        pair.standin.payments["pay-1"].more["card"] = card | more
        seen = await pair.adapter.query("pay-1", None)
        assert seen is not None
        assert (seen.card is not None) is kept
    assert seen.card is not None
    assert (seen.card.token, seen.card.last4, seen.card.brand, seen.card.expires) == (
        "T",
        "9098",
        "MasterCard",
        "07/2023",
    )


async def test_the_fee_is_what_is_not_settled(pair: Pair) -> None:
    await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1")
    seen = await pair.adapter.query("pay-1", None)
    assert seen is not None
    assert seen.fee_minor == 1_000
    assert Decimal(seen.paid_minor) == 10_050


async def test_what_is_said_of_a_fault_names_no_secret(pair: Pair) -> None:
    for fault in ("500", "cut", "html_after"):
        pair.standin.stumble("init", fault)
        with pytest.raises(GatewayAway) as away:
            await pair.adapter.checkout(pair.ask(fault.replace("_", "-")))
        told = f"{away.value!r} {away.value.__cause__!r}"
        assert "token-" not in told
        assert "SECRET" not in told
        assert "ada@" not in told

"""Adapters beside their stand-ins, for tests that hold for every gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from models.payments.gateway import (
    BankAccount,
    Checkout,
    Gateway,
    GatewayAway,
    GatewayNo,
    PayoutAsk,
    RefundAsk,
)
from server.adapters.gateways.http import Http
from server.adapters.gateways.monnify import Monnify
from server.adapters.gateways.paystack import Paystack
from server.adapters.gateways.stripe import Stripe
from tests.fakes import VirtualClock
from tests.standins import monnify, paystack, stripe
from tests.standins.gatewaykit import StandIn

# Long enough for loopback, short enough for a test that waits for it to be over.
ANSWER_SECONDS = 0.4
START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class Naps:
    """Waits that are over at once, and what they were."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


@dataclass(slots=True)
class Pair:
    """A gateway's adapter, its stand-in, and what its endpoints are called. ``naps`` are the waits between tries."""

    adapter: Gateway
    standin: Any
    clock: VirtualClock
    naps: Naps
    currency: str = "NGN"
    moving: dict[str, str] = field(default_factory=dict)  # verb -> endpoint that is asked once
    reading: dict[str, str] = field(default_factory=dict)  # verb -> endpoint that is asked again
    opened: str | None = None  # what the gateway calls "pay-q"

    def ask(self, reference: str = "pay-1", amount_minor: int = 10_050, **more: Any) -> Checkout:
        """A payment to open."""
        values: dict[str, Any] = {
            "reference": reference,
            "amount_minor": amount_minor,
            "currency": self.currency,
            "payer_id": "u1",
            "payer_name": "Ada Obi",
            "payer_email": "ada@example.org",
            "description": "A deposit",
            "return_url": "https://calls.example.org/back",
        }
        return Checkout(**(values | more))

    def payout(self, reference: str = "wd-0000000000000001", amount_minor: int = 10_050) -> PayoutAsk:
        """A payout to submit, to an account that the stand-in knows."""
        self.standin.accounts["058", "0123456789"] = "ADA OBI"
        to = BankAccount(bank_code="058", account_number="0123456789", account_name="ADA OBI")
        return PayoutAsk(
            reference=reference, amount_minor=amount_minor, currency="NGN", to=to, narration="Withdrawal"
        )

    def refund(self, payment: str = "pay-1", theirs: str | None = None, amount_minor: int = 50) -> RefundAsk:
        """A refund of a payment."""
        return RefundAsk(
            reference="rf-1",
            payment_reference=payment,
            payment_gateway_reference=theirs,
            amount_minor=amount_minor,
            currency=self.currency,
            reason="a call that never was, and a reason that is longer than sixty-four characters",
        )


@asynccontextmanager
async def beside(make: Callable[[VirtualClock, Naps], Awaitable[Pair]]) -> AsyncIterator[Pair]:
    """Started, and stopped again."""
    pair = await make(VirtualClock(START), Naps())
    try:
        yield pair
    finally:
        await pair.adapter.close()
        standin: StandIn = pair.standin
        await standin.stop()


async def monnify_pair(clock: VirtualClock, naps: Naps) -> Pair:
    """Monnify, with an account for payouts."""
    standin = monnify.MonnifyStandIn(clock)
    await standin.start()
    adapter = Monnify(
        api_key=monnify.API_KEY,
        secret_key=monnify.SECRET_KEY,
        contract_code=monnify.CONTRACT,
        account=monnify.ACCOUNT,
        clock=clock,
        http=Http("monnify", standin.url, sleep=naps, answer_seconds=ANSWER_SECONDS),
    )
    return Pair(
        adapter,
        standin,
        clock,
        naps,
        moving={"checkout": "init", "pay_out": "transfer", "refund": "refund"},
        reading={"query": "status", "payout_status": "summary", "banks": "banks", "account_name": "validate"},
    )


async def paystack_pair(clock: VirtualClock, naps: Naps) -> Pair:
    """Paystack."""
    standin = paystack.PaystackStandIn(clock)
    await standin.start()
    http = Http("paystack", standin.url, sleep=naps, answer_seconds=ANSWER_SECONDS)
    return Pair(
        Paystack(secret_key=paystack.SECRET_KEY, http=http),
        standin,
        clock,
        naps,
        moving={"checkout": "initialize", "pay_out": "transfer", "refund": "refund"},
        reading={
            "query": "verify",
            "payout_status": "verify-transfer",
            "banks": "banks",
            "account_name": "resolve",
        },
    )


async def stripe_pair(clock: VirtualClock, naps: Naps) -> Pair:
    """Stripe, in US dollars."""
    standin = stripe.StripeStandIn(clock)
    await standin.start()
    adapter = Stripe(
        secret_key=stripe.SECRET_KEY,
        webhook_secrets=("whsec_the_next_one", stripe.WEBHOOK_SECRET),
        url=standin.url,
        sleep=naps,
        answer_seconds=ANSWER_SECONDS,
    )
    return Pair(
        adapter,
        standin,
        clock,
        naps,
        currency="USD",
        moving={"checkout": "create", "refund": "refund"},
        reading={"query": "retrieve"},
    )


PAIRS = {"monnify": monnify_pair, "paystack": paystack_pair, "stripe": stripe_pair}


async def verb(pair: Pair, name: str, reference: str = "") -> Any:
    """Ask for something by the verb's name, with a sensible ask."""
    gateway = pair.adapter
    match name:
        case "checkout":
            return await gateway.checkout(pair.ask(reference or "pay-1"))
        case "pay_out":
            return await gateway.pay_out(pair.payout(reference or "wd-0000000000000001"))
        case "refund":
            return await gateway.refund(pair.refund("pay-q", pair.opened))
        case "query":
            return await gateway.query(reference or "pay-q", pair.opened)
        case "payout_status":
            return await gateway.payout_status(reference or "wd-0000000000000001", None)
        case "banks":
            return await gateway.banks("NGN")
    return await gateway.account_name(pair.payout().to, "NGN")


async def fate(work: Awaitable[Any]) -> str:
    """How it went in one word: ``done``, ``no``, ``taken``, ``unsent`` or ``unknown``."""
    try:
        await work
    except GatewayNo as no:
        return "taken" if no.taken else "no"
    except GatewayAway as away:
        return "unknown" if away.sent else "unsent"
    return "done"

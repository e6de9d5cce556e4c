"""What Stripe's answers and events say, in the port's words and in our minor units."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from models.money import exponent
from models.payments.gateway import About, GatewayAway, PaymentSeen, PayState, RefundSeen, RefundState
from server.adapters.gateways.http import mapping, text, whole_minor

# How many decimals Stripe counts in, where that is not two.
_DECIMALS = dict.fromkeys(
    ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"),
    0,
) | dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), 3)
# Of a dispute, where Stripe has taken no money, or has given it back.
HARMLESS = {"won", "prevented", "warning_needs_response", "warning_under_review", "warning_closed"}
_REFUND = {
    "succeeded": RefundState.DONE,
    "failed": RefundState.FAILED,
    "canceled": RefundState.FAILED,
}


def data_of(found: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    data = (found or {}).get("data")
    return [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []


def to_stripe(amount_minor: int, currency: str) -> int:
    """Our minor units as Stripe's, which are others in some currencies."""
    return _scaled(amount_minor, _DECIMALS.get(currency, 2) - exponent(currency))


def of_stripe(amount: object, currency: str) -> int:
    return _scaled(whole_minor(amount), exponent(currency) - _DECIMALS.get(currency, 2))


def _scaled(amount: int, places: int) -> int:
    if places >= 0:
        return amount * 10**places
    if amount % 10**-places:
        raise GatewayAway("an amount with more decimals than its currency has")
    return amount // 10**-places


def payment_seen(said: Mapping[str, Any], reference: str, disputed: int) -> PaymentSeen:
    intent = mapping(said.get("payment_intent"))
    charge = mapping(intent.get("latest_charge"))
    told = text(intent.get("currency") or said.get("currency"), 3)
    if told is None:
        raise GatewayAway("a payment without a currency")
    currency = told.upper()
    status, paying = str(said.get("status"))[:40], str(said.get("payment_status"))[:40]
    paid = back = 0
    fee = None
    if paying == "paid":
        paid = of_stripe(intent.get("amount_received") if intent else said.get("amount_total"), currency)
        gone = whole_minor(charge.get("amount_refunded") or 0) + disputed
        back = min(paid, of_stripe(gone, currency))
        balance = mapping(charge.get("balance_transaction"))
        if balance.get("currency") == told and balance.get("fee") is not None:
            fee = of_stripe(balance["fee"], currency)
        state = PayState.REVERSED if paid and back == paid else PayState.PAID
    elif status == "expired":
        state = PayState.CANCELLED
    elif status == "complete" and intent.get("status") in ("requires_payment_method", "canceled"):
        state = PayState.FAILED
    else:
        state = PayState.PENDING
    return PaymentSeen(
        reference=reference,
        gateway_reference=text(said.get("id")),
        state=state,
        currency=currency,
        paid_minor=paid,
        reversed_minor=back,
        fee_minor=fee,
        word=f"{status}/{paying}",
    )


def refund_seen(said: Mapping[str, Any], reference: str) -> RefundSeen:
    word = str(said.get("status"))[:40]
    return RefundSeen(
        reference=reference,
        state=_REFUND.get(word, RefundState.PENDING),
        gateway_reference=text(said.get("id")),
        word=word,
    )


def about_of(word: str, thing: Mapping[str, Any]) -> tuple[About, str | None, str | None]:
    """What an event is about, our reference, and the session's id where it has one."""
    named = text(mapping(thing.get("metadata")).get("reference"))
    if word.startswith("checkout.session."):
        return About.PAYMENT, text(thing.get("client_reference_id")) or named, text(thing.get("id"))
    if word.startswith("charge.dispute."):
        # A dispute has none of the payment's own metadata: which one it is the payment intent says.
        return About.PAYMENT, None, text(thing.get("payment_intent"))
    if word.startswith(("payment_intent.", "charge.")):
        if thing.get("object") == "refund":
            return About.REFUND, named, text(thing.get("id"))
        return About.PAYMENT, named, None
    if word.startswith("refund."):
        return About.REFUND, named, text(thing.get("id"))
    return About.OTHER, None, None


def instant(seconds: object) -> datetime | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None

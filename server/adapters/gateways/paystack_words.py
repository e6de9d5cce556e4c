"""What Paystack's answers and notifications say, in the port's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from models.payments.gateway import (
    About,
    CardToken,
    GatewayAway,
    PaymentSeen,
    PayoutSeen,
    PayoutState,
    PayState,
    RefundSeen,
    RefundState,
)
from server.adapters.gateways.http import mapping, text, whole_minor

_PAYMENT = {
    "success": PayState.PAID,
    "failed": PayState.FAILED,
    "reversed": PayState.REVERSED,
}
_PAYOUT = {
    "otp": PayoutState.OTP,
    "success": PayoutState.PAID,
    "failed": PayoutState.FAILED,
    "rejected": PayoutState.FAILED,
    "blocked": PayoutState.FAILED,
    "abandoned": PayoutState.FAILED,
    "reversed": PayoutState.REVERSED,
}
_REFUND = {"processed": RefundState.DONE, "failed": RefundState.FAILED}


def gone_back(refunds: Iterable[Mapping[str, Any]]) -> int:
    """What of a payment was refunded, wherever that was asked for: here or in the dashboard."""
    return sum(whole_minor(one.get("amount")) for one in refunds if one.get("status") == "processed")


def payment_seen(
    said: Mapping[str, Any], reference: str, refunds: Iterable[Mapping[str, Any]] = ()
) -> PaymentSeen:
    """A payment; ``refunds`` are those of it."""
    if said.get("reference") != reference:
        raise GatewayAway("an answer about another payment")
    word = str(said.get("status"))[:40]
    state = _PAYMENT.get(word, PayState.PENDING)
    moved = state in (PayState.PAID, PayState.REVERSED)
    currency = text(said.get("currency"), 3)
    if currency is None:
        raise GatewayAway("a payment without a currency")
    paid = whole_minor(said.get("amount")) if moved else 0
    fee = said.get("fees")
    return PaymentSeen(
        reference=reference,
        gateway_reference=_number(said.get("id")),
        state=state,
        currency=currency,
        paid_minor=paid,
        reversed_minor=paid if state is PayState.REVERSED else min(paid, gone_back(refunds)),
        fee_minor=whole_minor(fee) if moved and fee is not None else None,
        card=_card(mapping(said.get("authorization"))) if moved else None,
        word=word,
    )


def _card(said: Mapping[str, Any]) -> CardToken | None:
    token, last4 = text(said.get("authorization_code")), text(said.get("last4"), 4)
    if token is None or last4 is None or said.get("reusable") is not True or said.get("channel") != "card":
        return None
    month, year = str(said.get("exp_month", "")), str(said.get("exp_year", ""))
    dated = month.isdigit() and year.isdigit() and len(year) == 4
    brand = str(said.get("brand") or said.get("card_type") or "card").strip()[:40]
    return CardToken(
        token=token, last4=last4, brand=brand, expires=f"{int(month):02d}/{year}" if dated else None
    )


def payout_seen(said: Mapping[str, Any], reference: str) -> PayoutSeen:
    if said.get("reference") != reference:
        raise GatewayAway("an answer about another payout")
    word = str(said.get("status"))[:40]
    amount = said.get("amount")
    return PayoutSeen(
        reference=reference,
        gateway_reference=text(said.get("transfer_code")),
        state=_PAYOUT.get(word, PayoutState.PENDING),
        amount_minor=None if amount is None else whole_minor(amount),
        currency=text(said.get("currency"), 3),
        word=word,
    )


def refund_seen(said: Mapping[str, Any], reference: str) -> RefundSeen:
    word = str(said.get("status"))[:40]
    return RefundSeen(
        reference=reference,
        state=_REFUND.get(word, RefundState.PENDING),
        gateway_reference=_number(said.get("id")),
        word=word,
    )


def _number(told: object) -> str | None:
    return str(told)[:40] if isinstance(told, int | str) and not isinstance(told, bool) else None


def about_of(word: str, data: Mapping[str, Any]) -> tuple[About, str | None]:
    """What an event is about, and which of our references it names."""
    if word.startswith("charge.dispute."):
        return About.PAYMENT, text(mapping(data.get("transaction")).get("reference"))
    if word.startswith("charge."):
        return About.PAYMENT, text(data.get("reference"))
    if word.startswith("transfer."):
        return About.PAYOUT, text(data.get("reference"))
    if word.startswith("refund."):
        # A refund's own reference is the bank's: it says that something has happened to the payment.
        return About.PAYMENT, text(data.get("transaction_reference"))
    return About.OTHER, None


def instant(told: object) -> datetime | None:
    """A time in ISO 8601, else None."""
    if not isinstance(told, str) or len(told) > 40:
        return None
    try:
        at = datetime.fromisoformat(told)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None

"""What Monnify's answers and notifications say, in the port's words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
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
from server.adapters.gateways.http import major_minor, mapping, text

CURRENCY = "NGN"
# West Africa Time, without summer time.
WAT = timezone(timedelta(hours=1))

_PAYMENT = {
    "PAID": PayState.PAID,
    "OVERPAID": PayState.PAID,
    "PARTIALLY_PAID": PayState.PAID,
    "PENDING": PayState.PENDING,
    "ABANDONED": PayState.CANCELLED,
    "CANCELLED": PayState.CANCELLED,
    "EXPIRED": PayState.CANCELLED,
    "FAILED": PayState.FAILED,
    "REVERSED": PayState.REVERSED,
}
_PAYOUT = {
    "PENDING": PayoutState.PENDING,
    "AWAITING_PROCESSING": PayoutState.PENDING,
    "IN_PROGRESS": PayoutState.PENDING,
    "PENDING_BATCH_AUTHORIZATION": PayoutState.PENDING,
    "PENDING_AUTHORIZATION": PayoutState.OTP,
    "OTP_EMAIL_DISPATCH_FAILED": PayoutState.OTP,
    "SUCCESS": PayoutState.PAID,
    "COMPLETED": PayoutState.PAID,
    "FAILED": PayoutState.FAILED,
    "EXPIRED": PayoutState.FAILED,
    "REVERSED": PayoutState.REVERSED,
}
_REFUND = {
    "PENDING": RefundState.PENDING,
    "COMPLETED": RefundState.DONE,
    "FAILED": RefundState.FAILED,
}
ABOUT = {
    "SUCCESSFUL_TRANSACTION": About.PAYMENT,
    "REJECTED_PAYMENT": About.PAYMENT,
    "SUCCESSFUL_DISBURSEMENT": About.PAYOUT,
    "FAILED_DISBURSEMENT": About.PAYOUT,
    "REVERSED_DISBURSEMENT": About.PAYOUT,
    "SUCCESSFUL_REFUND": About.REFUND,
    "FAILED_REFUND": About.REFUND,
}


def payment_seen(said: Mapping[str, Any], reference: str) -> PaymentSeen:
    if said.get("paymentReference") != reference:
        raise GatewayAway("an answer about another payment")
    word = str(said.get("paymentStatus"))[:40]
    state = _PAYMENT.get(word, PayState.PENDING)
    currency = text(said.get("currency") or said.get("currencyCode"), 3)
    moved = state in (PayState.PAID, PayState.REVERSED)
    if currency is None and moved:
        raise GatewayAway("a payment without a currency")
    currency = currency or CURRENCY
    paid = major_minor(said.get("amountPaid"), currency) if moved else 0
    fee = None
    settled = said.get("settlementAmount")
    if paid and settled not in (None, ""):
        kept = paid - major_minor(settled, currency)
        fee = kept if 0 <= kept < paid else None
    return PaymentSeen(
        reference=reference,
        gateway_reference=text(said.get("transactionReference")),
        state=state,
        currency=currency,
        paid_minor=paid,
        reversed_minor=paid if state is PayState.REVERSED else 0,
        fee_minor=fee,
        card=_card(mapping(said.get("cardDetails"))) if moved else None,
        word=word,
    )


def _card(said: Mapping[str, Any]) -> CardToken | None:
    token, last4 = text(said.get("cardToken")), text(said.get("last4"), 4)
    if token is None or last4 is None or said.get("reusable") is not True:
        return None
    month, year = str(said.get("expMonth", "")), str(said.get("expYear", ""))
    dated = month.isdigit() and year.isdigit() and len(year) in (2, 4)
    return CardToken(
        token=token,
        last4=last4,
        brand=str(said.get("cardType") or "card")[:40],
        expires=f"{int(month):02d}/{year if len(year) == 4 else '20' + year}" if dated else None,
    )


def payout_seen(said: Mapping[str, Any], reference: str) -> PayoutSeen:
    if said.get("reference") != reference:
        raise GatewayAway("an answer about another payout")
    word = str(said.get("status"))[:40]
    amount, fee = said.get("amount"), said.get("totalFee", said.get("fee"))
    return PayoutSeen(
        reference=reference,
        gateway_reference=text(said.get("transactionReference")),
        state=_PAYOUT.get(word, PayoutState.PENDING),
        amount_minor=None if amount is None else major_minor(amount, CURRENCY),
        currency=text(said.get("currency"), 3) or CURRENCY,
        fee_minor=None if fee is None else major_minor(fee, CURRENCY),
        word=word,
    )


def refund_seen(said: Mapping[str, Any], reference: str) -> RefundSeen:
    if said.get("refundReference") != reference:
        raise GatewayAway("an answer about another refund")
    word = str(said.get("refundStatus"))[:40]
    return RefundSeen(reference=reference, state=_REFUND.get(word, RefundState.PENDING), word=word)


# 25/07/2022 11:20:20 AM, also with one digit for the hour · 2021-11-17 11:28:42.615 · ISO 8601
_FORMATS = ("%d/%m/%Y %I:%M:%S %p", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S")


def instant(told: object) -> datetime | None:
    """One of Monnify's ways to write a time, in Lagos where it says no zone; None for what is none of them."""
    if not isinstance(told, str) or len(told) > 40:
        return None
    for form in _FORMATS:
        try:
            return datetime.strptime(told, form).replace(tzinfo=WAT).astimezone(UTC)
        except (ValueError, OverflowError):
            continue
    try:
        at = datetime.fromisoformat(told)
        return (at if at.tzinfo else at.replace(tzinfo=WAT)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None

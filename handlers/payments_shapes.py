"""Wire shapes of payments."""

from __future__ import annotations

from marshmallow import fields, validate

from handlers.auth_shapes import Synonyms
from handlers.shapes import Id, Instant, Shape, Text
from handlers.wallet_shapes import ACCOUNTS, Money, WalletView
from models.payments.payment import Status

_ID = "01985c3e-7f1a-7b7c-9d53-0a5f1c2b3d4e"
_REFERENCE = "pay-6f1d2c3b4a59687766554433"
GATEWAY_LENGTH_MAX = 32


class Deposit(Money):
    """How much, and into which account."""

    gateway = Text(
        load_default=None,
        allow_none=True,
        most=GATEWAY_LENGTH_MAX,
        metadata={
            "description": "`monnify`, `paystack`, `stripe`, or `sandbox` in development; else the usual one."
        },
    )
    into = fields.String(load_default="primary", validate=validate.OneOf(ACCOUNTS))
    example = {"amountMinor": 500_000, "into": "primary"}


class BuyCredits(Money):
    """How much, and by what: a gateway as in a deposit, or ``wallet`` for your primary balance."""

    method = Text(load_default=None, allow_none=True, most=GATEWAY_LENGTH_MAX)
    synonyms = {**Money.synonyms, "gateway": "method", "paymentMethod": "method"}
    example = {"amountMinor": 100_000, "method": "wallet"}


class PaymentReference(Synonyms):
    """A payment by its reference."""

    reference = Text(required=True, least=1, most=128)
    synonyms = {"paymentReference": "reference"}
    example = {"reference": _REFERENCE}


class PaymentRef(Shape):
    """One of your payments by its id."""

    id = Id(required=True)
    example = {"id": _ID}


class PaymentView(Shape):
    """Money from a gateway. ``checkoutUrl`` is where it is paid; null when there is nothing left to do."""

    id = fields.String(required=True)
    reference = fields.String(required=True)
    gateway = fields.String(required=True)
    amount_minor = fields.Integer(required=True, metadata={"description": "What was asked for."})
    paid_minor = fields.Integer(
        required=True, metadata={"description": "What was credited: what was paid, less or more than asked."}
    )
    reversed_minor = fields.Integer(
        required=True, metadata={"description": "What of that went back to who paid."}
    )
    currency = fields.String(required=True)
    into = fields.String(required=True, validate=validate.OneOf(ACCOUNTS))
    status = fields.String(required=True, validate=validate.OneOf([status.value for status in Status]))
    checkout_url = fields.String(required=True, allow_none=True)
    version = fields.Integer(
        required=True, metadata={"description": "Rises with every change; ignore an older one."}
    )
    created_at = Instant(required=True)


class PaidView(Shape):
    """A payment, and the wallet that it goes into."""

    payment = fields.Nested(PaymentView, required=True)
    wallet = fields.Nested(WalletView, required=True)


class PaymentNotice(Shape):
    """Your payment after a change."""

    payment = fields.Nested(PaymentView, required=True)


class WebhookRef(Shape):
    """The gateway that tells something."""

    gateway = Text(required=True, least=1, most=GATEWAY_LENGTH_MAX)
    example = {"gateway": "monnify"}


class Taken(Shape):
    """A notification is stored."""

    received = fields.Boolean(required=True)

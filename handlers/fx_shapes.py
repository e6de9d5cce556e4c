"""Wire shapes of conversions between currencies."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from handlers.shapes import Id, Instant, Shape, Text
from handlers.wallet_shapes import OP_ID_MAX, Money, Pin, WalletView

_ID = "01985c3e-7f1a-7b7c-9d53-0a5f1c2b3d4e"
_EXAMPLE: dict[str, Any] = {"from": "NGN", "to": "USD", "amountMinor": 1_600_000}


def Currency(**kwargs: Any) -> Text:
    """An ISO 4217 code."""
    return Text(required=True, least=3, most=3, **kwargs)


class AskQuote(Money):
    """How much of which currency (``from``) shall become another (``to``)."""

    class Meta(Money.Meta):
        exclude = ("currency", "op_id")

    source = Currency(data_key="from", metadata={"description": "ISO 4217: the currency that is given."})
    target = Currency(data_key="to", metadata={"description": "ISO 4217: the currency that is wanted."})
    example = _EXAMPLE


class QuoteView(Shape):
    """What a conversion would give. The rate is that of the market; the spread, in ``to``, is taken off already."""

    id = fields.String(required=True)
    source = fields.String(required=True, data_key="from")
    target = fields.String(required=True, data_key="to")
    amount_minor = fields.Integer(required=True, metadata={"description": "Minor units of `from`."})
    receives_minor = fields.Integer(required=True, metadata={"description": "Minor units of `to`."})
    spread_minor = fields.Integer(required=True, metadata={"description": "Minor units of `to`."})
    rate = fields.String(
        required=True,
        metadata={"description": "How many major units of `to` one of `from` is, as a decimal."},
    )
    rate_at = Instant(required=True)
    created_at = Instant(required=True)
    expires_in_ms = fields.Integer(required=True)


class Convert(Shape):
    """A quote of yours, and the PIN."""

    quote_id = Id(required=True)
    pin = Pin()
    op_id = Text(
        load_default=None,
        allow_none=True,
        least=1,
        most=OP_ID_MAX,
        metadata={"description": "The same as the header `Idempotency-Key`, which wins."},
    )
    example = {"quoteId": _ID, "pin": "4071"}


class ConversionView(Shape):
    """A conversion. Its lines in both wallets' statements have the same id."""

    id = fields.String(required=True)
    quote_id = fields.String(required=True)
    source = fields.String(required=True, data_key="from")
    target = fields.String(required=True, data_key="to")
    amount_minor = fields.Integer(required=True)
    receives_minor = fields.Integer(required=True)
    spread_minor = fields.Integer(required=True)
    rate = fields.String(required=True)
    created_at = Instant(required=True)


class ConvertedView(Shape):
    """The conversion, the wallet that it came from, and the wallet that it went to."""

    conversion = fields.Nested(ConversionView, required=True)
    wallet = fields.Nested(WalletView, required=True)
    target_wallet = fields.Nested(WalletView, required=True)

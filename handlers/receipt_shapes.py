"""Wire shapes of receipts. What is signed is sent as it was signed, word for word."""

from __future__ import annotations

from typing import Any

from marshmallow import fields, validate

from handlers.shapes import Instant, Shape


class ReceiptPrice(Shape):
    """A segment's tariff, in minor units."""

    rate_per_minute_minor = fields.Integer(required=True)
    currency = fields.String(required=True)
    first_block_seconds = fields.Integer(required=True)
    block_seconds = fields.Integer(required=True)
    connect_fee_minor = fields.Integer(required=True)
    minimum_minor = fields.Integer(required=True)


class ReceiptPerson(Shape):
    """Who paid, or was paid."""

    id = fields.String(required=True)
    username = fields.String(required=True)


class ReceiptInterval(Shape):
    """A stretch of proven conversation."""

    start = Instant(required=True)
    end = Instant(required=True)


class ReceiptSegment(Shape):
    """A part of the call under one tariff."""

    type = fields.String(required=True, validate=validate.OneOf(["audio", "video"]))
    price = fields.Nested(ReceiptPrice, required=True)
    talk_ms = fields.Integer(required=True, metadata={"description": "Milliseconds of conversation."})
    billed_seconds = fields.Integer(
        required=True, metadata={"description": "With the blocks that are charged whole."}
    )
    amount_minor = fields.Integer(required=True)


class ReceiptCharge(Shape):
    """What the payer paid or got back."""

    id = fields.String(required=True, metadata={"description": "To the payer: the statement line's id."})
    kind = fields.String(required=True, validate=validate.OneOf(["call", "refund"]))
    account = fields.String(
        validate=validate.OneOf(["primary", "call_credits"]),
        metadata={"description": "To the payer: which account it was."},
    )
    at = Instant(required=True)
    amount_minor = fields.Integer(
        required=True,
        metadata={"description": "As the payer sees it: negative what was paid, positive what came back."},
    )


class ReceiptSignature(Shape):
    """Over the canonical text (RFC 8785) of the receipt without its ``signature``."""

    alg = fields.String(required=True, validate=validate.OneOf(["Ed25519"]))
    key_id = fields.String(
        required=True, metadata={"description": "The first 16 hex digits of the key's SHA-256."}
    )
    public_key = fields.String(required=True, metadata={"description": "32 bytes, base64url."})
    value = fields.String(required=True, metadata={"description": "64 bytes, base64url."})


class ReceiptView(Shape):
    """What a call cost and why; `python main.py verify-receipt FILE` recomputes it."""

    version = fields.Integer(required=True)
    copy = fields.String(
        required=True,
        validate=validate.OneOf(["payer", "payee"]),
        metadata={
            "description": "Whose copy it is: the payer's also has what was reserved, the payee's what was earned."
        },
    )
    call_id = fields.String(required=True)
    type = fields.String(required=True, validate=validate.OneOf(["audio", "video"]))
    payer = fields.Nested(ReceiptPerson, required=True)
    payee = fields.Nested(ReceiptPerson, required=True)
    currency = fields.String(required=True)
    created_at = Instant(required=True)
    accepted_at = Instant(required=True, allow_none=True)
    active_at = Instant(required=True, allow_none=True)
    ended_at = Instant(required=True)
    end_reason = fields.String(required=True)
    intervals = fields.List(fields.Nested(ReceiptInterval), required=True)
    segments = fields.List(fields.Nested(ReceiptSegment), required=True)
    charges = fields.List(fields.Nested(ReceiptCharge), required=True)
    total_minor = fields.Integer(
        required=True, metadata={"description": "What the call cost after refunds: all charges together."}
    )
    refunded_minor = fields.Integer(required=True)
    issued_at = Instant(
        required=True, metadata={"description": "The end of the call, or the last refund after it."}
    )
    reserved_minor = fields.Integer(metadata={"description": "To the payer: all that was held meanwhile."})
    released_minor = fields.Integer(metadata={"description": "To the payer: what of it was not needed."})
    platform_share_bps = fields.Integer(metadata={"description": "To the payee, in hundredths of a percent."})
    earned_minor = fields.Integer(metadata={"description": "To the payee: what of the total is theirs."})
    signature = fields.Nested(ReceiptSignature, required=True)


class Receipt(fields.Nested):
    """A field with a signed receipt, or null while the call is not settled. It is not formatted again: it is signed."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            ReceiptView,
            **{
                "allow_none": True,
                "metadata": {"description": "Signed; null until the call has ended and is settled."},
                **kwargs,
            },
        )

    def _serialize(  # type: ignore[override]  # marshmallow's own two disagree about the names
        self, nested_obj: Any, attr: str | None, obj: Any, **kwargs: Any
    ) -> Any:
        return nested_obj

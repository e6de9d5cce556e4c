"""Wire shapes of wallets."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from handlers.auth_shapes import CODE_LENGTH_MAX, Synonyms
from handlers.shapes import NUMBER_MAX, Id, Instant, PageQuery, PublicUser, Shape, Text
from models.auth.rules import PASSWORD_LENGTH_MAX
from models.ledger.journal import Kind
from models.wallet.rules import PAID_INTO, Amount, major_asked

# Longer than a PIN may be: the rule says its own sentence about length.
PIN_LENGTH_MAX = 32
NOTE_LENGTH_MAX = 140
OP_ID_MAX = 128
ACCOUNTS = tuple(PAID_INTO)

_ID = "01985c3e-7f1a-7b7c-9d53-0a5f1c2b3d4e"
_PASSWORD = "correct horse battery"  # noqa: S105 - an example


class Major(fields.Field[Decimal]):
    """A decimal in major units, as text (``"10.50"``) or as a number (``10.5``); never rounded."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Decimal:
        amount = major_asked(value)
        if amount is None:
            raise ValidationError("A decimal number is expected; a large one as text.")
        return amount


def Pin(**kwargs: Any) -> Text:
    """A PIN as somebody types it."""
    return Text(required=True, least=1, most=PIN_LENGTH_MAX, **kwargs)


class Money(Synonyms):
    """An amount: ``amountMinor`` or ``amount``, exactly one."""

    amount_minor = fields.Integer(
        strict=True,
        load_default=None,
        allow_none=True,
        validate=validate.Range(min=1, max=NUMBER_MAX),
        metadata={"description": "In the currency's minor unit: 1000 is ten naira."},
    )
    amount = Major(
        load_default=None,
        allow_none=True,
        metadata={
            "description": 'In major units, as text ("10.50") or as a number; at most the currency\'s decimals.',
            "type": ["string", "number"],
        },
    )
    currency = Text(
        load_default=None,
        allow_none=True,
        least=3,
        most=3,
        metadata={"description": "ISO 4217; without it that of your usual wallet."},
    )
    op_id = Text(
        load_default=None,
        allow_none=True,
        least=1,
        most=OP_ID_MAX,
        metadata={"description": "The same as the header `Idempotency-Key`, which wins."},
    )
    synonyms = {"amount_minor": "amountMinor"}

    @validates_schema
    def one_amount(self, data: Mapping[str, Any], **_: Any) -> None:
        """Refuse none and both."""
        if (data.get("amount_minor") is None) == (data.get("amount") is None):
            raise ValidationError({"amountMinor": ["Exactly one of amountMinor and amount."]})


def amount_of(ask: Mapping[str, Any]) -> Amount:
    """The amount of a ``Money`` that was loaded."""
    return Amount(minor=ask["amount_minor"], major=ask["amount"])


class CreateWallet(Synonyms):
    """The PIN, 4 to 6 digits (``transactionPin`` is understood too), and the currency of the wallet."""

    pin = Pin()
    currency = Text(
        load_default=None,
        allow_none=True,
        metadata={"description": "ISO 4217; without it the server's currency."},
    )
    synonyms = {"transactionPin": "pin", "transaction_pin": "pin"}
    example = {"pin": "4071", "currency": "NGN"}


class WalletQuery(Shape):
    """Which of your wallets; without a currency the usual one."""

    currency = Text(load_default=None, allow_none=True)
    example = {"currency": "NGN"}


class AccountRef(Shape):
    """One of your accounts by its id."""

    id = Id(required=True)
    example = {"id": _ID}


class PinCheck(Synonyms):
    """A PIN; ``transactionPin`` is understood too."""

    pin = Pin()
    synonyms = {"transactionPin": "pin", "transaction_pin": "pin"}
    example = {"pin": "4071"}


class ChangePin(Synonyms):
    """The PIN, and the one it shall be. ``oldPin`` and ``pin`` are understood as ``currentPin``."""

    current_pin = Pin()
    new_pin = Pin()
    synonyms = {
        "oldPin": "currentPin",
        "currentTransactionPin": "currentPin",
        "transactionPin": "currentPin",
        "pin": "currentPin",
        "newTransactionPin": "newPin",
    }
    example = {"currentPin": "4071", "newPin": "8253"}


class ResetPin(Synonyms):
    """The account's password, and the PIN that it shall be. ``pin`` is understood as ``newPin``."""

    password = Text(required=True, least=1, most=PASSWORD_LENGTH_MAX)
    new_pin = Pin()
    totp = Text(
        load_default=None,
        allow_none=True,
        most=CODE_LENGTH_MAX,
        metadata={"description": "A code of the authenticator app, where a second factor is on."},
    )
    recovery_code = Text(load_default=None, allow_none=True, most=CODE_LENGTH_MAX)
    synonyms = {"currentPassword": "password", "transactionPin": "newPin", "pin": "newPin"}
    example = {"password": _PASSWORD, "newPin": "8253"}


class MakeTransfer(Money):
    """How much to whom: an id or a username."""

    to = Id(required=True, metadata={"description": "The id or the username of who gets it."})
    pin = Pin()
    note = Text(load_default=None, allow_none=True, most=NOTE_LENGTH_MAX)
    synonyms = {
        **Money.synonyms,
        "transactionPin": "pin",
        "recipient": "to",
        "recipientId": "to",
        "toUserId": "to",
        "description": "note",
    }
    example = {"to": _ID, "amountMinor": 50_000, "pin": "4071", "note": "For yesterday"}


class StatementQuery(PageQuery):
    """Which account: ``primary``, ``call_credits``, or one by its id; without it all lines of the wallet."""

    account = Text(load_default=None, allow_none=True, most=64)
    currency = Text(load_default=None, allow_none=True)
    example = {"account": "primary", "limit": 50}


class CallCreditsView(Shape):
    """The account that calls are paid from first."""

    id = fields.String(required=True)
    available_minor = fields.Integer(required=True)
    held_minor = fields.Integer(required=True)


class WalletView(Shape):
    """A wallet. What is held is reserved for calls; pending earnings come in when they can no longer be disputed."""

    id = fields.String(required=True)
    currency = fields.String(required=True)
    exponent = fields.Integer(
        required=True, metadata={"description": "How many decimals the currency has (ISO 4217)."}
    )
    available_minor = fields.Integer(required=True)
    held_minor = fields.Integer(required=True)
    call_credits = fields.Nested(CallCreditsView, required=True)
    pending_earnings_minor = fields.Integer(required=True)
    owed_minor = fields.Integer(
        required=True, metadata={"description": "Refunded after it was paid out; taken from later earnings."}
    )
    frozen = fields.Boolean(required=True)
    version = fields.Integer(
        required=True, metadata={"description": "Rises with every change of a balance; ignore an older one."}
    )
    created_at = Instant(required=True)


class AccountView(Shape):
    """One of the two accounts of a wallet."""

    id = fields.String(required=True)
    kind = fields.String(required=True, validate=validate.OneOf(ACCOUNTS))
    wallet_id = fields.String(required=True)
    currency = fields.String(required=True)
    available_minor = fields.Integer(required=True)
    held_minor = fields.Integer(required=True)
    frozen = fields.Boolean(required=True)
    created_at = Instant(required=True)


class TransferView(Shape):
    """Money that went to somebody. Its line in either statement has the same id."""

    id = fields.String(required=True)
    to = fields.Nested(PublicUser, required=True)
    amount_minor = fields.Integer(required=True)
    currency = fields.String(required=True)
    note = fields.String(required=True, allow_none=True)
    created_at = Instant(required=True)


class TransferredView(Shape):
    """The transfer, and your wallet after it."""

    transfer = fields.Nested(TransferView, required=True)
    wallet = fields.Nested(WalletView, required=True)


class StatementLineView(Shape):
    """How something changed what is available plus held in one account; the lines of an account add up to that."""

    id = fields.String(required=True)
    kind = fields.String(required=True, validate=validate.OneOf([kind.value for kind in Kind]))
    account = fields.String(required=True, validate=validate.OneOf(ACCOUNTS))
    amount_minor = fields.Integer(required=True, metadata={"description": "Negative when it went out."})
    currency = fields.String(required=True)
    balance_after_minor = fields.Integer(required=True)
    call_id = fields.String()
    payment_id = fields.String()
    payout_id = fields.String()
    counterparty = fields.Nested(PublicUser)
    note = fields.String(required=True, allow_none=True)
    created_at = Instant(required=True)


class PinVerdict(Shape):
    """Whether it is the PIN; ``triesLeft`` before it locks."""

    valid = fields.Boolean(required=True)
    tries_left = fields.Integer(required=True)


class WalletNotice(Shape):
    """Your wallet after a change of a balance."""

    wallet = fields.Nested(WalletView, required=True)

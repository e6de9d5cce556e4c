"""Wire shapes of withdrawals, bank accounts and cards."""

from __future__ import annotations

from marshmallow import fields, validate

from handlers.auth_shapes import CODE_LENGTH_MAX, Synonyms
from handlers.shapes import Id, Instant, Shape, Text
from handlers.wallet_shapes import Money, Pin
from models.payouts.payout import Reason, Status

_ID = "01985c3e-7f1a-7b7c-9d53-0a5f1c2b3d4e"


class Withdraw(Money):
    """How much to which of your bank accounts. ``transactionPin`` and ``accountId`` are understood too."""

    bank_account_id = Id(required=True)
    pin = Pin()
    totp = Text(
        load_default=None,
        allow_none=True,
        most=CODE_LENGTH_MAX,
        metadata={"description": "A code of the authenticator app, where a second factor is on."},
    )
    recovery_code = Text(load_default=None, allow_none=True, most=CODE_LENGTH_MAX)
    synonyms = {
        **Money.synonyms,
        "accountId": "bankAccountId",
        "bank_account_id": "bankAccountId",
        "transactionPin": "pin",
        "transaction_pin": "pin",
    }
    example = {"bankAccountId": _ID, "amountMinor": 250_000, "pin": "4071"}


class PayoutRef(Shape):
    """One of your withdrawals by its id."""

    id = Id(required=True)
    example = {"id": _ID}


class BanksQuery(Shape):
    """Banks of which currency."""

    currency = Text(
        load_default=None,
        allow_none=True,
        least=3,
        most=3,
        metadata={"description": "ISO 4217; without it that of your usual wallet."},
    )
    example = {"currency": "NGN"}


class AddBankAccount(Synonyms):
    """A bank of ``GET /api/wallet/banks`` and the number of an account there."""

    bank_code = Text(required=True, least=1, most=32)
    account_number = Text(required=True, least=1, most=64)
    currency = Text(
        load_default=None,
        allow_none=True,
        least=3,
        most=3,
        metadata={"description": "ISO 4217; without it that of your usual wallet."},
    )
    synonyms = {"bank_code": "bankCode", "account_number": "accountNumber", "nuban": "accountNumber"}
    example = {"bankCode": "058", "accountNumber": "0123456789", "currency": "NGN"}


class BankAccountRef(Shape):
    """One of your bank accounts by its id."""

    id = Id(required=True)
    example = {"id": _ID}


class CardRef(Shape):
    """One of your cards by its id."""

    id = Id(required=True)
    example = {"id": _ID}


class KeepCard(Synonyms):
    """A completed payment of yours, whose card is to be kept. Card numbers are not taken here."""

    reference = Text(required=True, least=1, most=128)
    synonyms = {"paymentReference": "reference"}
    example = {"reference": "sandbox-6f1d2c3b4a59687766554433"}


class BankView(Shape):
    """A bank that can be paid to."""

    code = fields.String(required=True)
    name = fields.String(required=True)


class BankAccountView(Shape):
    """A bank account. Its name is what the bank says; of its number only the end is shown."""

    id = fields.String(required=True)
    currency = fields.String(required=True)
    bank_code = fields.String(required=True)
    bank_name = fields.String(required=True)
    account_name = fields.String(required=True)
    last4 = fields.String(required=True)
    created_at = Instant(required=True)


class PaidTo(Shape):
    """Where a withdrawal goes. ``id`` is that of the bank account, which may be gone from your list."""

    id = fields.String(required=True, attribute="account_id")
    bank_name = fields.String(required=True)
    account_name = fields.String(required=True)
    last4 = fields.String(required=True)


class PayoutView(Shape):
    """A withdrawal. The amount arrives; the fee is taken from the wallet on top of it."""

    id = fields.String(required=True)
    reference = fields.String(required=True)
    amount_minor = fields.Integer(required=True)
    fee_minor = fields.Integer(required=True)
    currency = fields.String(required=True)
    status = fields.String(
        required=True,
        validate=validate.OneOf([status.value for status in Status]),
        metadata={
            "description": "`failed` and `reversed`: the money is in the wallet again, with the fee. A `completed` "
            "one may still become `reversed`, days later, when the bank sends it back."
        },
    )
    reason = fields.String(
        required=True,
        allow_none=True,
        validate=validate.OneOf([reason.value for reason in Reason]),
        metadata={"description": "Why it has failed; null otherwise."},
    )
    bank_account = fields.Nested(PaidTo, required=True, attribute="to")
    version = fields.Integer(
        required=True, metadata={"description": "Rises with every change; ignore an older one."}
    )
    created_at = Instant(required=True)
    updated_at = Instant(required=True, attribute="stage_at")


class CardView(Shape):
    """A card as a gateway lets it be kept: never its number."""

    id = fields.String(required=True)
    gateway = fields.String(required=True)
    brand = fields.String(required=True)
    last4 = fields.String(required=True)
    expires = fields.String(required=True, allow_none=True, metadata={"description": "`MM/YYYY`."})
    created_at = Instant(required=True)


class PayoutNotice(Shape):
    """A withdrawal of yours after a change."""

    payout = fields.Nested(PayoutView, required=True)

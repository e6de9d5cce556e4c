"""What a payment and a refund are. Frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from models.payments.gateway import CardToken

# The gateway of development, whose checkout page this server shows itself.
SANDBOX = "sandbox"
# What the API calls paying from one's own primary balance.
WALLET = "wallet"


class Status(StrEnum):
    """Where a payment is; the contract's words."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REVERSED = "reversed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One checkout of a payment at its gateway, kept before the gateway hears of it.

    There is a second one only when the gateway knows the first and its answer was lost: nobody has its address, and
    still it may be paid. ``paid_minor`` and ``reversed_minor`` are what was posted of what the gateway says.
    """

    reference: str
    gateway_reference: str | None = None
    paid_minor: int = 0
    reversed_minor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """Money from a gateway into one account of a wallet.

    ``reference`` is what gateway and client call it; ``into`` is ``primary`` or ``call_credits``; ``checkout_url`` is
    where it is paid. ``amount_minor`` is what was asked for, ``paid_minor`` what was credited, less or more than that,
    ``reversed_minor`` what was taken back since, by the gateway or by a refund, and ``refunding_minor`` the part of
    it whose refund the gateway has not done yet. ``version`` counts the changes of all that; ``credits`` and
    ``reversals`` count the entries. ``review`` says why a person has to look at it.
    """

    id: str
    reference: str
    user_id: str
    gateway: str
    amount_minor: int
    currency: str
    into: str
    status: Status
    checkout_url: str | None
    created_at: datetime
    asked: tuple[Asked, ...] = ()
    paid_minor: int = 0
    reversed_minor: int = 0
    refunding_minor: int = 0
    credits: int = 0
    reversals: int = 0
    fee_minor: int | None = None
    card: CardToken | None = None
    word: str = ""
    review: str | None = None
    version: int = 0
    completed_at: datetime | None = None
    look_at: datetime | None = None
    tries: int = 0


class RefundStage(StrEnum):
    """Where a refund is. ``WAITING``: the gateway has certainly not heard of it. ``ASKING``: it may have."""

    WAITING = "waiting"
    ASKING = "asking"
    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


OPEN_REFUNDS = (RefundStage.WAITING, RefundStage.ASKING, RefundStage.PENDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """Money of a payment on its way back through the gateway; ``id`` is our reference of it.

    It was taken from the wallet by the entry ``number`` of the payment's reversals. ``asked`` is the reference of the
    checkout that was paid.
    """

    id: str
    payment_id: str
    gateway: str
    asked: str
    amount_minor: int
    currency: str
    reason: str
    number: int
    stage: RefundStage
    created_at: datetime
    gateway_reference: str | None = None
    word: str = ""
    review: str | None = None
    look_at: datetime | None = None
    tries: int = 0

"""The port to payment gateways: what the server asks of one, and what one answers. No gateway's own words.

A gateway is one file of ``server/adapters/gateways`` that keeps to ``Gateway``, plus its variables. What holds for all:

- ``reference`` is ours, unique, of letters, digits and ``-``, and kept in the database before the gateway hears of it.
  By it we ask later how a thing went, so nothing has to be asked for twice.
- Amounts are integers in the currency's minor unit, whatever the gateway counts in.
- Nothing that a client or a notification says is believed: a notification only names a reference worth a ``query``.
- A verb that moves money is sent once. ``GatewayAway`` then means that nobody knows whether it was done, unless
  ``sent`` is False; whoever asked looks by the reference until it is known. Only reading verbs are repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable


class GatewayAway(Exception):
    """No answer that says what has happened: a timeout, a cut connection, a 5xx, an answer that cannot be read.

    ``sent`` is False when the request has certainly not left (no connection, no token): then nothing has happened.
    The text is for logs: a status and the kind of fault, never a secret or what somebody is called.
    """

    def __init__(self, said: str, *, sent: bool = True) -> None:
        super().__init__(said)
        self.sent = sent


class GatewayNo(Exception):
    """The gateway has understood and certainly not done it. ``code`` is its own word, for logs and the operator.

    ``taken`` is True when the reference is known to it already: an earlier try had arrived.
    ``later`` is True when the very same thing may be taken later: Monnify's D07, the same amount to the same account
    within two minutes. Then it is asked for again by and by, after a look by its reference; else it has failed.
    """

    def __init__(self, code: str, said: str = "", *, taken: bool = False, later: bool = False) -> None:
        super().__init__(f"{code}: {said}" if said else code)
        self.code, self.said, self.taken, self.later = code, said, taken, later


class NoticeInvalid(Exception):
    """A notification whose signature is missing or wrong, or too old, or that cannot be read."""


class PayState(StrEnum):
    """How a payment stands at the gateway."""

    PENDING = "pending"
    PAID = "paid"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REVERSED = "reversed"


class PayoutState(StrEnum):
    """How a payout stands at the gateway. ``OTP``: it waits for the operator's one-time password."""

    PENDING = "pending"
    OTP = "otp"
    PAID = "paid"
    FAILED = "failed"
    REVERSED = "reversed"


class RefundState(StrEnum):
    """How a refund stands at the gateway."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


class About(StrEnum):
    """What a notification is about."""

    PAYMENT = "payment"
    PAYOUT = "payout"
    REFUND = "refund"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A payment to open: what is to be paid by whom, and where the payer comes back to (``return_url``)."""

    reference: str
    amount_minor: int
    currency: str
    payer_id: str
    payer_name: str
    payer_email: str | None
    description: str
    return_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Where it is paid, and what the gateway calls it (None: only by our reference)."""

    checkout_url: str
    gateway_reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardToken:
    """A card as a gateway lets it be kept: a token that is good at that gateway only, and the last four digits."""

    token: str
    last4: str
    brand: str
    expires: str | None = None  # "MM/YYYY"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentSeen:
    """A payment as the gateway answers when asked.

    ``paid_minor`` is all that was paid so far, less or more than was asked; ``reversed_minor`` is what of it went back
    since. ``fee_minor``: what the gateway keeps of it, when it says so.
    """

    reference: str
    gateway_reference: str | None
    state: PayState
    currency: str
    paid_minor: int = 0
    reversed_minor: int = 0
    fee_minor: int | None = None
    card: CardToken | None = None
    word: str = ""  # the gateway's own word for the state, for the operator


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A notification that was signed by the gateway: which of our references it is about.

    ``id`` is the same for every delivery of one event, and another one's for no other (the gateway's event id, or what
    makes the fact one). ``at`` is when the gateway says that it happened; nothing is decided by it.
    """

    id: str
    about: About
    word: str
    reference: str | None = None
    gateway_reference: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BankAccount:
    """Where a payout goes."""

    bank_code: str
    account_number: str
    account_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """A bank that the gateway pays out to."""

    code: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutAsk:
    """A payout to submit."""

    reference: str
    amount_minor: int
    currency: str
    to: BankAccount
    narration: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutSeen:
    """A payout as the gateway answers."""

    reference: str
    gateway_reference: str | None
    state: PayoutState
    amount_minor: int | None = None
    currency: str | None = None
    fee_minor: int | None = None
    word: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundAsk:
    """Money of a payment to give back through the gateway."""

    reference: str
    payment_reference: str
    payment_gateway_reference: str | None
    amount_minor: int
    currency: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundSeen:
    """A refund as the gateway answers."""

    reference: str
    state: RefundState
    gateway_reference: str | None = None
    word: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a gateway can do. ``payouts``: currencies in which it pays out to bank accounts.

    ``least_minor``: the smallest payment it takes, by currency.
    """

    currencies: frozenset[str]
    payouts: frozenset[str] = frozenset()
    least_minor: Mapping[str, int] = field(default_factory=dict)


class Gateway(Protocol):
    """A payment gateway. Every verb but ``parse`` raises ``GatewayAway`` and ``GatewayNo``."""

    @property
    def name(self) -> str:
        """What the API calls it."""
        ...

    @property
    def terms(self) -> Terms:
        """What it can do."""
        ...

    async def checkout(self, ask: Checkout) -> Opened:
        """Open a payment. ``GatewayNo(taken=True)`` when the reference was opened before."""
        ...

    async def query(self, reference: str, gateway_reference: str | None) -> PaymentSeen | None:
        """How a payment stands; None when the gateway does not know it."""
        ...

    def parse(self, raw: bytes, headers: Mapping[str, str], now: datetime) -> Notice:
        """A notification by its very bytes and its headers (names in lower case). Raises ``NoticeInvalid``. Pure."""
        ...

    async def refund(self, ask: RefundAsk) -> RefundSeen:
        """Give money of a payment back."""
        ...

    async def refund_status(self, ask: RefundAsk, gateway_reference: str | None) -> RefundSeen | None:
        """How a refund stands; None when the gateway does not know it."""
        ...

    async def banks(self, currency: str) -> list[Bank]:
        """The banks that it pays out to."""
        ...

    async def account_name(self, account: BankAccount, currency: str) -> str | None:
        """Who holds an account (name enquiry); None when the bank knows none of this number."""
        ...

    async def pay_out(self, ask: PayoutAsk) -> PayoutSeen:
        """Submit a payout. ``GatewayNo(taken=True)`` when the reference was submitted before."""
        ...

    async def payout_status(self, reference: str, gateway_reference: str | None) -> PayoutSeen | None:
        """How a payout stands; None when the gateway does not know it."""
        ...

    async def authorize_payout(
        self, reference: str, gateway_reference: str | None, password: str
    ) -> PayoutSeen:
        """The operator's one-time password of a payout that is in ``OTP``."""
        ...

    async def resend_password(self, reference: str, gateway_reference: str | None) -> None:
        """Have the one-time password sent to the operator again."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


@runtime_checkable
class Naming(Protocol):
    """A gateway whose notifications may call a payment what no answer of it has called it yet.

    For a notification without our reference it is asked for that.
    """

    async def reference_of(self, gateway_reference: str) -> str | None:
        """Our reference of what the gateway calls so; None when it is none of ours. Raises as ``query`` does."""
        ...

"""What the ledger is made of: accounts, legs, entries, wallets. Frozen values.

Signs: a leg's amount is positive when it credits its account and negative when it debits it. What we owe to a user
(a wallet's balances) is a liability, so a credit raises it. The legs of an entry sum to zero in every currency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Pocket(StrEnum):
    """The balances of a wallet. Only ``OWED`` is a debt of the user: its legs carry the opposite sign."""

    PRIMARY = "primary"
    PRIMARY_HELD = "primary_held"
    CREDITS = "credits"
    CREDITS_HELD = "credits_held"
    PENDING = "pending"
    OWED = "owed"


class Kind(StrEnum):
    """What an entry records; the statement's ``kind``."""

    HOLD = "hold"
    CAPTURE = "call"
    RELEASE = "release"
    SETTLE = "settle"
    CLEAR = "earning"
    REFUND = "refund"
    DEPOSIT = "deposit"
    REVERSAL = "reversal"
    CREDITS = "call_credits"
    TRANSFER = "transfer"
    WITHDRAW_HOLD = "withdrawal_hold"
    WITHDRAWAL = "withdrawal"
    WITHDRAW_VOID = "withdrawal_void"
    WITHDRAW_RETURN = "withdrawal_returned"
    EXCHANGE = "exchange"
    REWARD = "reward"


# Platform accounts. They have no balance document: their balance is the sum of their legs, so no payment waits for
# another one's platform leg.
COMMISSION = "platform:commission"
WITHDRAW_FEES = "platform:withdrawal_fees"
GATEWAY_FEES = "platform:gateway_fees"
# What conversions between currencies have taken in of one and given out of the other, and what they have earned.
EXCHANGE_POOL = "platform:exchange"
EXCHANGE_SPREAD = "platform:exchange_spread"
REWARDS = "platform:rewards"


def escrow(call_id: str) -> str:
    """Where a call's captured money is until it is settled; zero after that."""
    return f"escrow:{call_id}"


def clearing(gateway: str) -> str:
    """What a payment gateway has collected for us and not paid out yet: an asset, so its balance is negative."""
    return f"gateway:{gateway}:clearing"


def wallet_key(user_id: str, currency: str) -> str:
    """The database key of a user's wallet in a currency."""
    return f"{user_id}:{currency}"


def account_of(wallet: str, pocket: Pocket) -> str:
    """The account of one balance of a wallet (``wallet`` is its key)."""
    return f"wallet:{wallet}:{pocket.value}"


def pocket_of(account: str) -> tuple[str, Pocket] | None:
    """The wallet key and pocket of an account; None for a platform account."""
    if not account.startswith("wallet:"):
        return None
    wallet, _, pocket = account.removeprefix("wallet:").rpartition(":")
    return wallet, Pocket(pocket)


@dataclass(frozen=True, slots=True)
class Leg:
    """One account's part in an entry: positive credits it, negative debits it."""

    account: str
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One fact. ``id`` is its idempotency key: an entry can be posted once, ever.

    ``counterparties``: for each wallet key the other user that its statement names.
    """

    id: str
    kind: Kind
    at: datetime
    legs: tuple[Leg, ...]
    call_id: str | None = None
    payment_id: str | None = None
    counterparties: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    """A user's money in one currency, in minor units, at one version.

    ``key`` is the database's; ``id`` and ``credits_id`` are the public ids of its two accounts. ``version`` counts
    the entries that touched it and ``head`` is the hash of the newest one (see ``rules.seal``).
    """

    key: str
    id: str
    credits_id: str
    user_id: str
    currency: str
    primary: int = 0
    primary_held: int = 0
    credits: int = 0
    credits_held: int = 0
    pending: int = 0
    owed: int = 0
    version: int = 0
    head: str = ""
    frozen: bool = False
    created_at: datetime

    def balance(self, pocket: Pocket) -> int:
        """The balance of one pocket."""
        return int(getattr(self, pocket))

    @property
    def worth(self) -> int:
        """All that is the user's: to spend, held, and earned but pending."""
        return self.primary + self.primary_held + self.credits + self.credits_held + self.pending

    @property
    def spendable(self) -> int:
        """What a call can be paid from: call credits and the primary balance, without what is held already."""
        return self.primary + self.credits


@dataclass(frozen=True, slots=True)
class Line:
    """A statement line: how an entry changed what is available plus held in one account of a wallet."""

    account: str
    amount_minor: int
    after_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """An entry's link in one wallet's hash chain."""

    wallet: str
    version: int
    previous: str
    hash: str
    lines: tuple[Line, ...]
    counterparty: str | None = None


@dataclass(frozen=True, slots=True)
class Sealed:
    """An entry with its links, ready to be written."""

    entry: Entry
    seals: tuple[Seal, ...]

    def version_in(self, wallet: str) -> int:
        """The version that this entry made of a wallet it touches."""
        return next(seal.version for seal in self.seals if seal.wallet == wallet)

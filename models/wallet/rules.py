"""Pure rules of wallets: what a PIN and an amount may be, how wrong PINs lock, and what a verb posts."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from babel.numbers import is_currency

from models.errors import Refusal
from models.ledger.journal import (
    Entry,
    Kind,
    Leg,
    Line,
    Pocket,
    Seal,
    Wallet,
    account_of,
    wallet_key,
)
from models.money import AMOUNT_MAX, minor_of

# Wrong PINs in a row before the next lock (CONTRACT §3.2).
TRIES_MAX = 5
# How long each lock lasts; None: until the PIN is reset with the account's password (money.md §6).
LOCKS: tuple[timedelta | None, ...] = (timedelta(minutes=15), timedelta(hours=24), None)
# A hundred million in currencies with two decimals; nobody tops up more by hand, and sums stay far from the limit.
DEPOSIT_MINOR_MAX = 10_000_000_000
# Above this a JSON number (a double) no longer tells thousandths apart: 2^39 < 10^12 < 2^40, so 2^-13 is its step.
NUMBER_AMOUNT_MAX = Decimal(10) ** 12

_PIN = re.compile(r"[0-9]{4,6}")
_DECIMAL = re.compile(r"[0-9]{1,16}(?:\.[0-9]{1,8})?")
_RISING = "01234567890"
# The pockets that money can be paid into, by the name of the account that a statement shows.
PAID_INTO = {"primary": Pocket.PRIMARY, "call_credits": Pocket.CREDITS}


# ------------------------------------------------------------------------------------------------------------- asked


def checked_pin(pin: str) -> str:
    """A PIN that may be set. Refuses with ``VALIDATION_FAILED`` what is not 4 to 6 digits, or is guessed first."""
    if not _PIN.fullmatch(pin):
        raise Refusal("VALIDATION_FAILED", pin=["4 to 6 digits."])
    if len(set(pin)) == 1 or pin in _RISING or pin in _RISING[::-1]:
        raise Refusal("VALIDATION_FAILED", pin=["Too easy to guess: all the same, or counting up or down."])
    return pin


def checked_currency(currency: str) -> str:
    """An ISO 4217 code. Refuses with ``VALIDATION_FAILED``."""
    if not re.fullmatch(r"[A-Z]{3}", currency) or not is_currency(currency):
        raise Refusal("VALIDATION_FAILED", currency=["Not an ISO 4217 code in capitals, such as NGN."])
    return currency


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount as it was asked: ``minor`` units, or ``major`` ones, which need a currency to become minor units."""

    minor: int | None = None
    major: Decimal | None = None

    def minor_in(self, currency: str, most: int = AMOUNT_MAX, *, least: int = 1) -> int:
        """Minor units. Refuses with ``VALIDATION_FAILED`` what the currency cannot say, zero, and what is outside."""
        if self.minor is not None:
            return self._bounded(self.minor, least, most)
        assert self.major is not None, "the shape asks for one of the two"
        try:
            minor = minor_of(self.major, currency)
        except ValueError as error:
            raise self._refused(f"{str(error)[0].upper()}{str(error)[1:]}.") from None
        return self._bounded(minor, least, most)

    def _bounded(self, minor: int, least: int, most: int) -> int:
        if minor <= 0:
            raise self._refused("More than zero.")
        if minor < least:
            raise self._refused(f"At least {least} minor units.")
        if minor > most:
            raise self._refused(f"At most {most} minor units.")
        return minor

    def _refused(self, sentence: str) -> Refusal:
        details: dict[str, Any] = {"amount" if self.minor is None else "amountMinor": [sentence]}
        return Refusal("VALIDATION_FAILED", **details)


def major_asked(value: object) -> Decimal | None:
    """A decimal in major units as JSON brings it, text or number; None for what is none.

    A number is taken by its shortest text, which is what was written as long as a double tells its decimals apart.
    """
    if isinstance(value, str):
        return Decimal(value) if _DECIMAL.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = Decimal(repr(value))
    return number if number.is_finite() and abs(number) < NUMBER_AMOUNT_MAX else None


# -------------------------------------------------------------------------------------------------------------- PINs


@dataclass(frozen=True, slots=True)
class PinState:
    """A user's PIN as it is kept: ``tries`` since the last right one or lock, ``locks`` so far.

    ``locked_until`` None with all of ``LOCKS`` used up is: until it is reset.
    """

    hash: str
    tries: int
    locks: int
    locked_until: datetime | None
    changed_at: datetime

    @property
    def tries_left(self) -> int:
        """Wrong PINs that are left before the next lock."""
        return TRIES_MAX - self.tries

    def locked_for_ms(self, now: datetime) -> int | None:
        """How long the lock lasts from ``now``; None: until the PIN is reset. Only of a locked one."""
        if self.locked_until is None:
            return None
        return max(1, round((self.locked_until - now) / timedelta(milliseconds=1)))

    def locked(self, now: datetime) -> bool:
        """Whether no PIN is looked at now."""
        return self.locks >= len(LOCKS) or (self.locked_until is not None and self.locked_until > now)


# ----------------------------------------------------------------------------------------------------------- entries


def transfer_id(user_id: str, key: str) -> str:
    """The idempotency key of a transfer's entry."""
    return f"tr:{user_id}:{key}"


def transfer(
    payer: Wallet, payee_id: str, *, key: str, amount_minor: int, note: str | None, now: datetime
) -> Entry:
    """Money from one primary balance to another's in the same currency."""
    payee = wallet_key(payee_id, payer.currency)
    return Entry(
        id=transfer_id(payer.user_id, key),
        kind=Kind.TRANSFER,
        at=now,
        legs=(
            Leg(account_of(payer.key, Pocket.PRIMARY), -amount_minor, payer.currency),
            Leg(account_of(payee, Pocket.PRIMARY), amount_minor, payer.currency),
        ),
        counterparties={payer.key: payee_id, payee: payer.user_id},
        note=note,
    )


def same_content(one: Entry, other: Entry) -> bool:
    """Whether two entries say the same, whenever they were made."""
    return (one.kind, one.legs, one.note) == (other.kind, other.legs, other.note)


# --------------------------------------------------------------------------------------------------------- statement


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """One line: how an entry changed what is available plus held in one account of a wallet."""

    id: str
    kind: str
    account: str
    amount_minor: int
    currency: str
    balance_after_minor: int
    version: int
    call_id: str | None
    payment_id: str | None
    payout_id: str | None
    counterparty: str | None
    note: str | None
    created_at: datetime


def lines_of(entry: Entry, seal: Seal, currency: str) -> list[StatementLine]:
    """The statement lines of an entry in one wallet."""
    return [_line(entry, seal, line, currency) for line in seal.lines]


def _line(entry: Entry, seal: Seal, line: Line, currency: str) -> StatementLine:
    return StatementLine(
        id=line_id(entry, line.account),
        kind=entry.kind.value,
        account=line.account,
        amount_minor=line.amount_minor,
        currency=currency,
        balance_after_minor=line.after_minor,
        version=seal.version,
        call_id=entry.call_id,
        payment_id=entry.payment_id,
        payout_id=_payout_id(entry),
        counterparty=seal.counterparty,
        note=entry.note,
        created_at=entry.at,
    )


def _payout_id(entry: Entry) -> str | None:
    """The withdrawal that an entry with a statement line belongs to: its name says so."""
    if entry.kind not in (Kind.WITHDRAWAL, Kind.WITHDRAW_RETURN):
        return None
    return entry.id.split(":")[1]


def line_id(entry: Entry, account: str) -> str:
    """The public id of an entry in an account of either side: UUIDv7 in form, the entry's time and a digest of its key.

    The key itself stays here: it is made of ids of the database and of what clients send.
    """
    milliseconds = round(entry.at.astimezone(UTC).timestamp() * 1000)
    time = f"{milliseconds:012x}"
    digest = hashlib.sha256(f"{entry.id} {account}".encode()).hexdigest()
    variant = "89ab"[int(digest[3], 16) % 4]
    return f"{time[:8]}-{time[8:]}-7{digest[:3]}-{variant}{digest[4:7]}-{digest[7:19]}"

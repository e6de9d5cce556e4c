"""What notices are made of. Frozen values, and the ports to those who carry them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

EMAIL, SMS = "email", "sms"
# A carrier's answer comes within this, its queue on our side included: a worker's lease is longer.
CARRY_SECONDS_MAX = 12


class What(StrEnum):
    """What has happened to somebody's money, or to what guards it and the account."""

    MONEY_IN = "money_in"
    TAKEN_BACK = "taken_back"
    RECEIVED = "received"
    WITHDRAWN = "withdrawn"
    WITHDRAWAL_FAILED = "withdrawal_failed"
    WITHDRAWAL_RETURNED = "withdrawal_returned"
    PIN_CHANGED = "pin_changed"
    BANK_ACCOUNT_ADDED = "bank_account_added"
    FROZEN = "frozen"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - what has happened
    SECOND_FACTOR_ON = "second_factor_on"
    SECOND_FACTOR_OFF = "second_factor_off"
    API_KEY_MADE = "api_key_made"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that its owner is to be told. ``id`` is its own for ever: it is told once.

    ``detail`` is for people: the last digits of an account, never more of it, and nothing secret.
    """

    id: str
    user_id: str
    what: What
    at: datetime
    amount_minor: int | None = None
    currency: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    """A fact that is being told by the worker that ``lease`` names. ``attempts`` counts this one.

    ``done`` are the ways that need no further try. ``unsure``: an SMS may be out already.
    """

    fact: Fact
    attempts: int
    done: frozenset[str]
    unsure: bool
    lease: str


@dataclass(frozen=True, slots=True)
class Settings:
    """By which ways somebody wants to be told."""

    email: bool = True
    sms: bool = False


class Sent(StrEnum):
    """What became of a try."""

    OK = "ok"
    # Not now: worth another try.
    LATER = "later"
    # It will never be taken like this.
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a carrier said. ``unsure``: it may have been taken all the same. ``reason`` is for logs: no address."""

    sent: Sent
    reason: str = ""
    retry_after_seconds: float | None = None
    unsure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A notice in words. ``mark`` is the fact's own, the same at every try."""

    to: str
    subject: str
    text: str
    mark: str
    at: datetime


class Carrier(Protocol):
    """Who carries letters of one way. Never raises for a fault of the other side, and answers in time."""

    async def carry(self, letter: Letter) -> Outcome:
        """Hand a letter over."""
        ...

    async def carried(self, letter: Letter) -> bool | None:
        """Whether a letter that may have been taken was; None: it cannot be known, now or ever."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...

"""Periods in somebody's own time zone, and a statement as a value and as CSV. Pure, but for the table of time zones."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from models.errors import Refusal
from models.ledger.journal import Wallet
from models.money import major_of
from models.users.profile import Profile
from models.wallet.rules import StatementLine

# A leap year: longer ones are two statements.
DAYS_MAX = 366
# Some megabytes of CSV; and pages of PDF that somebody may still print.
LINES_MAX = {"csv": 20_000, "pdf": 2_000}
MONTHS_MAX = 24
UTC_NAME = "UTC"
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,30}(?:/[A-Za-z0-9_+-]{1,30}){0,2}")
# Before this no server kept books, and after it no calendar of ours goes.
_FIRST, _LAST = date(2000, 1, 1), date(2999, 12, 31)
# What a spreadsheet takes for a formula when a cell begins with it (OWASP: CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
# Spreadsheets take a file without it for something else than UTF-8.
_BYTE_ORDER_MARK = "\ufeff"


def zone_of(name: str) -> tzinfo:
    """A time zone by its IANA name. Refuses with ``VALIDATION_FAILED``."""
    if name == UTC_NAME:
        return UTC
    if _ZONE.fullmatch(name):
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            pass
    raise Refusal("VALIDATION_FAILED", timeZone=["Not a time zone such as Africa/Lagos."])


@dataclass(frozen=True, slots=True)
class Period:
    """Whole days of a time zone: ``first`` to ``last``, both included; ``start`` and ``end`` (excluded) as instants."""

    first: date
    last: date
    zone: str
    start: datetime
    end: datetime


def period_of(first: date | None, last: date | None, zone: str, now: datetime) -> Period:
    """The days from ``first`` (that of the last day's month) to ``last`` (today). Refuses with ``VALIDATION_FAILED``.

    Not more than ``DAYS_MAX``.
    """
    here = zone_of(zone)
    last = last or now.astimezone(here).date()
    first = first or last.replace(day=1)
    if not (_FIRST <= first <= _LAST and _FIRST <= last <= _LAST):
        raise Refusal("VALIDATION_FAILED", to=["Days of this century and the next ones."])
    if first > last:
        raise Refusal("VALIDATION_FAILED", to=["Not before from."])
    if (last - first).days >= DAYS_MAX:
        raise Refusal("VALIDATION_FAILED", to=[f"At most {DAYS_MAX} days in one statement."])
    return Period(first, last, zone, _midnight(first, here), _midnight(last + timedelta(days=1), here))


def months_of(count: int, zone: str, now: datetime) -> list[tuple[str, datetime]]:
    """The last ``count`` months, this one included, and the next: each by name (``2026-03``), and when it begins."""
    here = zone_of(zone)
    today = now.astimezone(here).date()
    index = today.year * 12 + today.month - count
    firsts = [date((index + n) // 12, (index + n) % 12 + 1, 1) for n in range(count + 1)]
    return [(f"{day:%Y-%m}", _midnight(day, here)) for day in firsts]


def _midnight(day: date, zone: tzinfo) -> datetime:
    """When a day begins, in UTC; where clocks are put on at midnight, when it first is that day."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


# --------------------------------------------------------------------------------------------------------- statement


@dataclass(frozen=True, slots=True)
class Balances:
    """One account in a period, in minor units: available plus held before it and after it, and what moved it."""

    opening_minor: int
    incoming_minor: int
    outgoing_minor: int

    @property
    def closing_minor(self) -> int:
        """After the last line."""
        return self.opening_minor + self.incoming_minor - self.outgoing_minor


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A wallet's lines of a period in the order in which they were booked, and its accounts by name."""

    owner: Profile
    wallet: Wallet
    period: Period
    accounts: Mapping[str, Balances]
    lines: Sequence[StatementLine]
    people: Mapping[str, Profile]

    def when(self, line: StatementLine) -> datetime:
        """A line's instant in the statement's time zone."""
        return line.created_at.astimezone(zone_of(self.period.zone))

    def who(self, line: StatementLine) -> Profile | None:
        """The other side of a line."""
        return self.people.get(line.counterparty) if line.counterparty is not None else None


def balances(opening_minor: int, lines: Sequence[StatementLine]) -> Balances:
    """One account's sums over its lines."""
    amounts = [line.amount_minor for line in lines]
    return Balances(opening_minor, sum(a for a in amounts if a > 0), -sum(a for a in amounts if a < 0))


COLUMNS = (
    *("time", "id", "kind", "account", "counterparty", "note", "amount", "currency", "balance_after"),
    *("call_id", "payment_id"),
)


def csv_of(statement: Statement) -> str:
    """A statement as CSV (RFC 4180) with a heading; amounts are decimals in major units.

    What people have written is never a formula: an apostrophe goes before what a spreadsheet would take for one.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    currency = statement.wallet.currency
    for line in statement.lines:
        who = statement.who(line)
        writer.writerow(
            (
                statement.when(line).isoformat(timespec="seconds"),
                line.id,
                line.kind,
                line.account,
                harmless(who.username if who else ""),
                harmless(line.note or ""),
                f"{major_of(line.amount_minor, currency):f}",
                currency,
                f"{major_of(line.balance_after_minor, currency):f}",
                line.call_id or "",
                line.payment_id or "",
            )
        )
    return _BYTE_ORDER_MARK + text.getvalue()


def harmless(text: str) -> str:
    """A cell that no spreadsheet reads as a formula."""
    return f"'{text}" if text.lstrip(" \u00a0").startswith(_FORMULA) else text


# --------------------------------------------------------------------------------------------------------- analytics


@dataclass(frozen=True, slots=True)
class Flow:
    """What came in and went out, in minor units, and in how many entries."""

    income_minor: int = 0
    spending_minor: int = 0
    count: int = 0

    def __add__(self, other: Flow) -> Flow:
        return Flow(
            self.income_minor + other.income_minor,
            self.spending_minor + other.spending_minor,
            self.count + other.count,
        )


@dataclass(frozen=True, slots=True)
class Analytics:
    """A wallet's months, the oldest first, each with what moved by kind."""

    wallet: Wallet
    zone: str
    months: Mapping[str, Mapping[str, Flow]]

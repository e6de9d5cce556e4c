"""What is counted of a day. Amounts in minor units, conversation in seconds; days are of UTC."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Revenue:
    """What the platform has earned in one currency on a day, less what it gave back: negative where that was more."""

    currency: str
    commission_minor: int = 0
    fees_minor: int = 0
    spread_minor: int = 0

    @property
    def total_minor(self) -> int:
        """All of it."""
        return self.commission_minor + self.fees_minor + self.spread_minor


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A day's figures. ``calls`` are those that ended on it, and ``talked`` those of them in which two talked."""

    day: str
    calls: int = 0
    talked: int = 0
    seconds: int = 0
    callers: int = 0
    payers: int = 0
    new_users: int = 0
    revenue: tuple[Revenue, ...] = field(default=())

    def revenue_in(self, currency: str) -> Revenue:
        """That of one currency."""
        found = (one for one in self.revenue if one.currency == currency)
        return next(found, Revenue(currency=currency))


@dataclass(frozen=True, slots=True)
class Audit:
    """What the last audit of the books has found, and when."""

    at: datetime
    clean: bool
    broken: int

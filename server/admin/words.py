"""How values are said on the pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from models.money import spoken
from server.admin.visit import refused


def moment(at: datetime | None) -> str:
    """A time for people, to the minute, in UTC."""
    return f"{at:%-d %b %Y, %H:%M}" if at else "never"


def exactly(at: datetime) -> str:
    """A time for programs (RFC 3339)."""
    return f"{at:%Y-%m-%dT%H:%M:%S}Z"


def told(at: str) -> str:
    """What ``moment`` says of a time for programs."""
    return moment(datetime.fromisoformat(at))


def clock(ms: int | None) -> str:
    """A span as ``4:07`` or ``1:02:30``."""
    if ms is None:
        return "without end"
    minutes, seconds = divmod(max(0, ms) // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def human(name: str) -> str:
    """``no_answer`` → ``no answer``."""
    return str(name).replace("_", " ")


def amount(minor: int, currency: str) -> str:
    """Money where the currency stands beside it: ``1,234.50``."""
    return spoken(minor, currency).replace(f"{currency}\u00a0", "").replace(f"{currency} ", "")


FILTERS: dict[str, Callable[..., Any]] = {
    "moment": moment,
    "exactly": exactly,
    "told": told,
    "clock": clock,
    "human": human,
    "money": spoken,
    "amount": amount,
    "refused": refused,
}

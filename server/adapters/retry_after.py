"""``Retry-After`` of an answer (RFC 9110 §10.2.3)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from server.clock import SystemClock


def retry_after_seconds(header: str | None, *, now: datetime | None = None) -> float | None:
    """The wait in seconds, whether said as a number or as a date; None when it is not said or makes no sense."""
    if header is None:
        return None
    text = header.strip()
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or SystemClock().now())).total_seconds())

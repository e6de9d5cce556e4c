"""Pure rules of reports: what is copied of a message, and who may close what."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from models.chat.message import Message
from models.errors import Refusal
from models.reports.report import Closing, Evidence, Report

# Far more than anybody has to say, and few enough for somebody to read them.
PER_DAY_MAX = 50
COMMENT_LENGTH_MAX = 1000


def evidence_of(message: Message) -> Evidence:
    """What is kept of a message that is reported."""
    copy = Evidence(
        message_id=message.id,
        conversation_id=message.conversation_id,
        seq=message.seq,
        version=message.version,
        sender_id=message.sender_id,
        text=message.text,
        encrypted=message.encrypted,
        attachment=asdict(message.attachment) if message.attachment else None,
        reply_to=message.reply_to,
        created_at=message.created_at,
        edited_at=message.edited_at,
        deleted_at=message.deleted_at,
    )
    return replace(copy, sha256=digest_of(copy))


def digest_of(evidence: Evidence) -> str:
    """SHA-256, in hexadecimal, over the evidence without its digest.

    As JSON with sorted keys and no spaces, names in snake_case, instants as RFC 3339 in UTC with microseconds.
    """
    said = {name: value for name, value in asdict(evidence).items() if name != "sha256"}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_instant)
    return hashlib.sha256(text.encode()).hexdigest()


def closed(report: Report, closing: Closing, *, version: int) -> Report | None:
    """The report after ``closing``; None when that is what has been done already.

    Refuses with ``FORBIDDEN`` (nobody judges a report of themselves) and ``REPORT_CLOSED`` (another closing, or the
    report has changed since ``version``).
    """
    if closing.by == report.reported_id:
        raise Refusal("FORBIDDEN")
    if report.closing is not None:
        before = report.closing
        again = (before.resolution, before.note, before.by) == (closing.resolution, closing.note, closing.by)
        if not again:
            raise Refusal("REPORT_CLOSED")
        return None
    if report.version != version:
        raise Refusal("REPORT_CLOSED")
    return replace(report, closing=closing, version=version + 1)


def day_of(now: datetime) -> str:
    """The day on which a report counts."""
    return now.astimezone(UTC).date().isoformat()


def ms_to_tomorrow(now: datetime) -> int:
    """How long it is to the next day."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return max(1, round((midnight - now).total_seconds() * 1000))


def _instant(value: Any) -> str:
    assert isinstance(value, datetime), f"no form for {value!r}"
    return value.astimezone(UTC).isoformat(timespec="microseconds")

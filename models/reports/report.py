"""What a report is: frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class Reason(StrEnum):
    """Why somebody reports."""

    SPAM = "spam"
    ABUSE = "abuse"
    HARASSMENT = "harassment"
    IMPERSONATION = "impersonation"
    FRAUD = "fraud"
    ILLEGAL = "illegal"
    OTHER = "other"


class State(StrEnum):
    """Whether somebody still has to look at it."""

    OPEN = "open"
    CLOSED = "closed"


class Resolution(StrEnum):
    """What came of it. ``BANNED`` keeps the reported person out; of the others they learn nothing from the server."""

    DISMISSED = "dismissed"
    WARNED = "warned"
    BANNED = "banned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A message as it stood when it was reported; what happens to the message later changes nothing here.

    Of an encrypted one the server knows everything but what it says. ``sha256`` is over all the other fields, see
    ``models.reports.rules.digest_of``.
    """

    message_id: str
    conversation_id: str
    seq: int
    version: int
    sender_id: str
    text: str | None
    encrypted: bool
    attachment: dict[str, Any] | None
    reply_to: str | None
    created_at: datetime
    edited_at: datetime | None
    deleted_at: datetime | None
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """How a report was closed. ``by`` is the administrator's id, None for the command line."""

    resolution: Resolution
    note: str | None
    by: str | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Somebody's report of a person, or of one message of theirs (``evidence``). ``version`` rises with each change."""

    id: str
    reporter_id: str
    reported_id: str
    reason: Reason
    comment: str | None
    evidence: Evidence | None
    created_at: datetime
    version: int = 1
    closing: Closing | None = None

    @property
    def state(self) -> State:
        """Open until it is closed."""
        return State.CLOSED if self.closing else State.OPEN

    @property
    def subject(self) -> str:
        """What is reported, as one text."""
        return f"message:{self.evidence.message_id}" if self.evidence else f"user:{self.reported_id}"

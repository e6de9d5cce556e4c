"""Pure rules of chat."""

from __future__ import annotations

import hashlib

from models.errors import Refusal
from models.users.profile import Meeting, Profile

# CONTRACT §1: chat text 8 KiB, in UTF-8.
TEXT_BYTES_MAX = 8 * 1024


def pair_id(one: str, other: str) -> str:
    """The id of the conversation of two people, whoever of them writes first.

    It looks like every id here (UUIDv7): the time of the younger of the two accounts, then a digest of both.
    """
    low, high = sorted((one, other))
    digest = hashlib.sha256(f"{low} {high}".encode()).hexdigest()
    variant = "89ab"[int(digest[3], 16) % 4]
    return f"{high[:13]}-7{digest[:3]}-{variant}{digest[4:7]}-{digest[7:19]}"


def checked_text(text: str) -> str:
    """``text`` if it may be sent. Refuses with ``VALIDATION_FAILED`` (empty) and ``PAYLOAD_TOO_LARGE``."""
    if not text:
        raise Refusal("VALIDATION_FAILED", text=["A message says something."])
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise Refusal("PAYLOAD_TOO_LARGE", maxBytes=TEXT_BYTES_MAX)
    return text


def reachable(meeting: Meeting) -> Profile:
    """The one to write to. Refuses with ``USER_UNKNOWN``, ``USER_BLOCKED`` and ``USER_UNAVAILABLE``."""
    other = meeting.callee
    if other is None:
        raise Refusal("USER_UNKNOWN")
    if meeting.blocked_by_caller:
        raise Refusal("USER_BLOCKED")
    if meeting.blocked_by_callee or not other.active:
        raise Refusal("USER_UNAVAILABLE")
    return other

"""How messages are told: pure functions."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from models.notify.messages.bundle import Bundle
from models.notify.ports import Note, Push
from models.notify.rules import (
    LASTING_TTL_SECONDS,
    after,
    fitting,
    name_of,
    shortened,
    wait_seconds,
)

# A burst is one notification: the first waits this long for the others …
FIRST_WAIT = timedelta(seconds=1)
# … and after a notification those that follow wait for each other longer; the phone has buzzed already.
SPACING = timedelta(seconds=5)
# Of more than this only "99+" is said.
COUNT_MAX = 99
PREVIEW_MAX = 200
# Outages of a provider last hours; a notification that comes later than this tells nobody anything.
GIVE_UP_AFTER = timedelta(hours=6)
BACKOFF_SECONDS_MAX = 300


def push_for(bundle: Bundle, token: str) -> Push:
    """The one notification of all messages of a bundle. A device tells two of one message apart by ``messageId``."""
    newest = bundle.newest
    data: dict[str, Any] = {
        "type": Note.MESSAGE.value,
        "conversationId": bundle.conversation_id,
        "messageId": newest.message_id,
        "seq": newest.seq,
        "count": bundle.count,
        "sender": dict(newest.sender),
    }
    return Push(
        note=Note.MESSAGE,
        token=token,
        data=fitting(data, "sender"),
        ttl_seconds=LASTING_TTL_SECONDS,
        title=shortened(newest.title, PREVIEW_MAX) if newest.title else name_of(newest.sender),
        body=_body(bundle),
        channel="messages",
        collapse_id=bundle.conversation_id,
    )


def _body(bundle: Bundle) -> str:
    newest = bundle.newest
    many = f"{bundle.count if bundle.count <= COUNT_MAX else f'{COUNT_MAX}+'} new messages"
    if newest.preview is None:
        return "New message" if bundle.count == 1 else many
    said = shortened(newest.preview, PREVIEW_MAX)
    if newest.title is not None:  # a group: who said it
        said = f"{name_of(newest.sender)}: {said}"
    return said if bundle.count == 1 else f"{many}\n{said}"


def given_up(bundle: Bundle, now: datetime) -> bool:
    """Whether it is too late for a notification."""
    return now >= bundle.newest_at + GIVE_UP_AFTER


def next_try_at(bundle: Bundle, now: datetime, *, asked_seconds: float, chance: str) -> datetime:
    """When to try again after ``bundle.attempts`` tries, not before the provider wants it."""
    wait = wait_seconds(bundle.attempts, most=BACKOFF_SECONDS_MAX, chance=chance)
    return after(now, max(wait, asked_seconds))

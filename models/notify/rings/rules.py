"""What is pushed about a call, to whom again and when: pure functions.

The payloads follow what an Expo app with call notifications listens for; a device tells two pushes of one ring apart
from two rings by ``callId`` (providers deliver at least once, and so do we).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from models.notify.ports import EXPO, FCM, Note, Push, Token
from models.notify.rings.todo import Todo, What
from models.notify.rules import (
    LASTING_TTL_SECONDS,
    after,
    by_device,
    fitting,
    name_of,
    rfc3339,
    wait_seconds,
    way,
)

RING_BACKOFF_SECONDS_MAX = 5
LATE_BACKOFF_SECONDS_MAX = 300
# A missed call is news for an hour; a cancel only while a late ring may still be shown.
WITHIN = {What.MISSED: timedelta(hours=1), What.CANCELLED: timedelta(minutes=1)}

_NOTE = {What.RING: Note.RING, What.MISSED: Note.MISSED, What.CANCELLED: Note.CANCELLED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One thing to tell one device, and the token that it goes by."""

    note: Note
    token: Token

    @property
    def told(self) -> str:
        """How it stands in ``Todo.told``."""
        return f"{self.note.value} {self.token.device_id}"


def ways(
    todo: Todo, tokens: Sequence[Token], *, senders: Collection[str], refused: Collection[str]
) -> list[Way]:
    """What is still to be told to which device, and how.

    A device that has a token for calls beside its Expo token gets one ring, by the former.
    """
    found = []
    for device_id, own in by_device(tokens).items():
        if device_id == todo.answered_on:
            continue
        for note in _notes(todo, {token.kind for token in own}.intersection(senders)):
            token = way(note, own, senders=senders, refused=refused)
            if token is not None and Way(note=note, token=token).told not in todo.told:
                found.append(Way(note=note, token=token))
    return found


def _notes(todo: Todo, kinds: Collection[str]) -> list[Note]:
    if todo.what is What.CANCELLED and not todo.rung:
        return []
    if todo.what is What.MISSED and todo.rung and {EXPO, FCM}.issubset(kinds):
        # It rings by the one token and is told of the missed call by the other, which does not stop the ringing.
        return [Note.CANCELLED, Note.MISSED]
    return [_NOTE[todo.what]]


def push_for(todo: Todo, found: Way, now: datetime) -> Push | None:
    """The notification for one device as of ``now``; None when it is too late."""
    if now >= todo.give_up_at:
        return None
    token = found.token.token
    match found.note:
        case Note.RING:
            return _ring(todo, token, now)
        case Note.MISSED:
            return _missed(todo, token)
        case _:
            return _cancelled(todo, token)


def _ring(todo: Todo, token: str, now: datetime) -> Push:
    data = {
        "type": Note.RING.value,
        "callId": todo.call_id,
        "callType": todo.call_type,
        "caller": dict(todo.caller),
        "startedAt": rfc3339(todo.started_at),
        "expiresAt": rfc3339(todo.rings_until),
    }
    return Push(
        note=Note.RING,
        token=token,
        data=fitting(data, "caller"),
        ttl_seconds=ceil((todo.rings_until - now).total_seconds()),
        expires_at=todo.rings_until,
        title=name_of(todo.caller),
        body="Incoming video call" if todo.call_type == "video" else "Incoming call",
        channel="calls",
        category="INCOMING_CALL",
        collapse_id=todo.call_id,
    )


def _missed(todo: Todo, token: str) -> Push:
    data = {
        "type": Note.MISSED.value,
        "callId": todo.call_id,
        "callType": todo.call_type,
        "caller": dict(todo.caller),
    }
    return Push(
        note=Note.MISSED,
        token=token,
        data=fitting(data, "caller"),
        # E12: a phone that was off for a day finds it.
        ttl_seconds=LASTING_TTL_SECONDS,
        title="Missed call",
        body=f"Missed call from {name_of(todo.caller)}",
        collapse_id=todo.call_id,
    )


def _cancelled(todo: Todo, token: str) -> Push:
    data: dict[str, Any] = {"type": Note.CANCELLED.value, "callId": todo.call_id}
    ttl_seconds = int(WITHIN[What.CANCELLED].total_seconds())
    return Push(note=Note.CANCELLED, token=token, data=data, ttl_seconds=ttl_seconds)


def next_try_at(todo: Todo, now: datetime, *, asked_seconds: float = 0, chance: str = "") -> datetime | None:
    """When to try again after ``todo.attempts`` tries, not before the provider wants it, or None: too late.

    A ring takes no chances: what is left of it is short, and a wish that goes beyond its end is not kept.
    """
    if todo.what is What.RING:
        if after(now, asked_seconds) >= todo.give_up_at:
            asked_seconds = RING_BACKOFF_SECONDS_MAX
        wait = wait_seconds(todo.attempts, most=RING_BACKOFF_SECONDS_MAX, chance="")
    else:
        wait = wait_seconds(todo.attempts, most=LATE_BACKOFF_SECONDS_MAX, chance=chance)
    at = after(now, max(wait, asked_seconds))
    return at if at < todo.give_up_at else None

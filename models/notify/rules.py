"""What is pushed, to whom again and when: pure functions.

The payloads follow what an Expo app with call notifications listens for; a device tells two pushes of one ring apart
from two rings by ``callId`` (providers deliver at least once, and so do we).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any

from models.notify.ports import Push
from models.notify.todo import Todo, What

# Longer than a provider may take with one request, its queue on our side included.
SEND_SECONDS_MAX = 12
# A to-do whose worker said nothing for so long is another worker's. More than SEND_SECONDS_MAX, by enough for the
# database; less than half a ring, so that a crash does not cost the whole of it.
LEASE_SECONDS = 20

RING_BACKOFF_SECONDS_MAX = 5
LATE_BACKOFF_SECONDS_MAX = 300
# A missed call is news for an hour; a cancel only while a late ring may still be shown.
WITHIN = {What.MISSED: timedelta(hours=1), What.CANCELLED: timedelta(minutes=1)}
# How long a provider may hold the notice of a missed call for a phone that is off: E12 wants it after a day.
MISSED_TTL_SECONDS = 7 * 24 * 3600

# Apple and Google take 4096 bytes for the whole notification; what Expo adds of its own stays below the difference.
PAYLOAD_BYTES_MAX = 3500
NAME_SHOWN_MAX = 64

_EXPO_TOKEN = re.compile(
    r"Expo(nent)?PushToken\[[^\[\]\s]{1,200}\]|[a-z\d]{8}-[a-z\d]{4}-[a-z\d]{4}-[a-z\d]{4}-[a-z\d]{12}",
    re.IGNORECASE,
)


def is_expo_token(text: str) -> bool:
    """Whether this has the shape of an Expo push token: ``ExponentPushToken[…]``, ``ExpoPushToken[…]`` or a bare UUID.

    These are the shapes that Expo's own server library accepts; its Python library refuses the second and the third.
    """
    return _EXPO_TOKEN.fullmatch(text) is not None


def push_for(todo: Todo, token: str, now: datetime) -> Push | None:
    """The notification that ``todo`` is about, as of ``now``; None when there is nothing to tell any more."""
    if now >= todo.give_up_at:
        return None
    match todo.what:
        case What.RING:
            return _ring(todo, token, now)
        case What.MISSED:
            return _missed(todo, token)
        case What.CANCELLED:
            return _cancelled(todo, token) if todo.rung else None


def _ring(todo: Todo, token: str, now: datetime) -> Push:
    data = {
        "type": "incoming_call",
        "callId": todo.call_id,
        "callType": todo.call_type,
        "caller": todo.caller,
        "expiresAt": _rfc3339(todo.rings_until),
    }
    return Push(
        token=token,
        data=_fitting(data),
        ttl_seconds=ceil((todo.rings_until - now).total_seconds()),
        title=_name(todo.caller),
        body="Incoming video call" if todo.call_type == "video" else "Incoming call",
        channel="calls",
        category="INCOMING_CALL",
        urgent=True,
        collapse_id=todo.call_id,
    )


def _missed(todo: Todo, token: str) -> Push:
    data = {
        "type": "missed_call",
        "callId": todo.call_id,
        "callType": todo.call_type,
        "caller": todo.caller,
    }
    return Push(
        token=token,
        data=_fitting(data),
        ttl_seconds=MISSED_TTL_SECONDS,
        title="Missed call",
        body=f"Missed call from {_name(todo.caller)}",
        collapse_id=todo.call_id,
    )


def _cancelled(todo: Todo, token: str) -> Push:
    data = {"type": "call_cancelled", "callId": todo.call_id}
    return Push(token=token, data=data, ttl_seconds=int(WITHIN[What.CANCELLED].total_seconds()))


def _name(caller: Mapping[str, Any]) -> str:
    name = str(caller.get("displayName") or caller.get("username") or "Somebody")
    return name if len(name) <= NAME_SHOWN_MAX else f"{name[: NAME_SHOWN_MAX - 1]}…"


def _fitting(data: dict[str, Any]) -> dict[str, Any]:
    """``data`` with as much of the caller as a notification can carry: without the picture if it must be."""
    if len(json.dumps(data)) > PAYLOAD_BYTES_MAX:
        data = {**data, "caller": {**data["caller"], "avatarUrl": None}}
    if len(json.dumps(data)) > PAYLOAD_BYTES_MAX:
        data = {**data, "caller": {"id": data["caller"].get("id"), "displayName": _name(data["caller"])}}
    return data


def next_try_at(todo: Todo, now: datetime) -> datetime | None:
    """When to try again after ``todo.attempts`` tries, or None: too late. Waits double, from one second."""
    most = RING_BACKOFF_SECONDS_MAX if todo.what is What.RING else LATE_BACKOFF_SECONDS_MAX
    wait = min(most, 2 ** min(todo.attempts - 1, 16))
    at = now + timedelta(seconds=wait)
    return at if at < todo.give_up_at else None


def _rfc3339(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""How an invitation to a room is told: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from models.notify.ports import Note, Push
from models.notify.rules import LASTING_TTL_SECONDS, after, fitting, name_of, shortened, wait_seconds

ROOM_SHOWN_MAX = 100
# The same invitation twice within this is one: said again after a crash, or a finger that slipped.
AGAIN_AFTER = timedelta(minutes=1)
# Who is asked into a room is asked now; an hour later they find it in the app.
GIVE_UP_AFTER = timedelta(hours=1)
BACKOFF_SECONDS_MAX = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """The to-do of one person and room, held by the worker that ``lease`` names.

    ``attempts`` counts this one; ``told`` are devices that know, ``refused`` tokens that will not take it.
    """

    id: str
    user_id: str
    room_id: str
    room_name: str | None
    by: Mapping[str, Any]
    give_up_at: datetime
    attempts: int
    told: frozenset[str]
    refused: frozenset[str]
    lease: str


def push_for(invite: Invite, token: str) -> Push:
    """The notification of an invitation."""
    data: dict[str, Any] = {
        "type": Note.INVITED.value,
        "roomId": invite.room_id,
        "roomName": shortened(invite.room_name, ROOM_SHOWN_MAX) if invite.room_name else None,
        "by": dict(invite.by),
    }
    return Push(
        note=Note.INVITED,
        token=token,
        data=fitting(data, "by"),
        ttl_seconds=LASTING_TTL_SECONDS,
        title=data["roomName"] or "Room",
        body=f"{name_of(invite.by)} invites you",
        channel="messages",
        collapse_id=invite.room_id,
    )


def next_try_at(invite: Invite, now: datetime, *, asked_seconds: float, chance: str) -> datetime | None:
    """When to try again after ``invite.attempts`` tries, not before the provider wants it, or None: too late."""
    wait = wait_seconds(invite.attempts, most=BACKOFF_SECONDS_MAX, chance=chance)
    at = after(now, max(wait, asked_seconds))
    return at if at < invite.give_up_at else None

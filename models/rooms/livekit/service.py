"""The verbs of LiveKit: a ticket for who joins a room, and what follows from what it tells.

Each connection to LiveKit is a device of its own in the room (``livekit:`` and LiveKit's id of it), beside the
sockets: whoever is connected there is in the room, and has left it when the last device has. Since LiveKit guarantees
neither order nor delivery, nothing is concluded from the order of what it tells: an end of a connection is final and
kept, a beginning counts only where there is no end, and whoever publishes has begun.

A notification is answered only after all that follows from it is durable, and remembered last: one that was cut off
comes again, and repeating any part of it changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog

from models.errors import Refusal
from models.ports import Clock
from models.rooms.livekit import rules
from models.rooms.livekit.rules import Key, Notification
from models.rooms.livekit.store import Connection, LiveKitStore

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a device needs to connect to LiveKit."""

    url: str
    token: str
    expires_in_ms: int


class Attendance(Protocol):
    """What LiveKit tells a room. Both verbs may be repeated."""

    async def entered(self, *, room_id: str, user_id: str, device_id: str) -> None:
        """A device of somebody is in the room. Refuses as joining does."""
        ...

    async def left(self, *, room_id: str, user_id: str, device_id: str, at: datetime) -> None:
        """A device has left the room, at ``at``; nothing happens when it was not there."""
        ...


class LiveKit:
    """One per process, where it is configured."""

    def __init__(self, *, key: Key, store: LiveKitStore, rooms: Attendance, clock: Clock) -> None:
        self._key = key
        self._store = store
        self._rooms = rooms
        self._clock = clock

    def ticket(
        self, *, room_id: str, room_type: str, user_id: str, device_id: str, name: str, owner: bool
    ) -> Ticket:
        """For a device whose user may be in the room: that was decided by whoever asks."""
        token = rules.join_token(
            self._key,
            room_id=room_id,
            room_type=room_type,
            user_id=user_id,
            device_id=device_id,
            name=name,
            owner=owner,
            now=self._clock.now(),
        )
        return Ticket(self._key.url, token, 1000 * rules.TOKEN_SECONDS)

    async def heard(self, *, body: bytes, authorization: str) -> None:
        """LiveKit tells something. Refuses with ``WEBHOOK_INVALID`` what it has not signed."""
        now = self._clock.now()
        told = rules.notification(self._key, body=body, authorization=authorization, now=now)
        if await self._store.heard(told.id):
            return
        connection = _connection(told)
        match told.event:
            case "participant_joined" | "track_published":
                if connection is not None:
                    await self._joined(connection, now)
            case "participant_left" | "participant_connection_aborted":
                if connection is not None:
                    await self._store.disconnected(connection, now)
                    await self._left(connection, told.at)
            case "room_finished":
                over = await self._store.finished(room_id=told.room, room_sid=told.room_sid, now=now)
                for one in over:
                    await self._left(one, told.at)
                    await self._store.disconnected(one, now)
        await self._store.remember(told.id, now)

    async def _joined(self, one: Connection, now: datetime) -> None:
        if not await self._store.connected(one, now):
            return
        try:
            await self._rooms.entered(
                room_id=one.room_id, user_id=one.user_id, device_id=device_name(one.sid)
            )
        except Refusal as no:
            if no.retry_after_ms is not None:
                raise  # LiveKit tells it again
            # Not our room, or they may no longer be in it: a token outlives a kick by its ten minutes.
            log.info("a participant of LiveKit is none of ours", room_id=one.room_id, code=no.code)
            return
        # Its end may have been told meanwhile, by way of another process, and have found nobody to take out.
        if await self._store.gone(one):
            await self._left(one, self._clock.now())

    async def _left(self, one: Connection, at: datetime) -> None:
        await self._rooms.left(
            room_id=one.room_id, user_id=one.user_id, device_id=device_name(one.sid), at=at
        )


def device_name(sid: str) -> str:
    """The device that a connection to LiveKit is in our room."""
    return f"livekit:{sid}"


def _connection(told: Notification) -> Connection | None:
    """Whom a notification is about; None for participants that are not of our making (recorders, agents, SIP)."""
    device = rules.device_of(told.identity or "")
    if device is None or told.participant_sid is None:
        return None
    user_id, device_id = device
    return Connection(
        sid=told.participant_sid,
        room_id=told.room,
        room_sid=told.room_sid,
        user_id=user_id,
        device_id=device_id,
    )

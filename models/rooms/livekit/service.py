"""The verbs of LiveKit: a ticket for who joins a room, and what follows from what it tells.

Each connection to LiveKit is a device of its own in the room (``livekit:`` and LiveKit's id of it), beside the
sockets: whoever is connected there is in the room, and has left it when the last device has. Since LiveKit guarantees
neither order nor delivery, nothing is concluded from the order of what it tells: an end of a connection is final and
kept, a beginning counts only where there is no end, and whoever publishes has begun. A connection gets one seat: who
has left the room, or was taken out of it, does not come back by what is told of that connection later.

What it does not tell is asked for: whoever is no longer among a room's participants there has left it, whoever is
there and has a place in our room is in it, and whoever is there and not, or no longer, in our room (kicked, out of
money, banned) is taken out, since a connection outlives its token.

A notification is answered only after all that follows from it is durable, and remembered last: one that was cut off
comes again, and repeating any part of it changes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog

from models.errors import Refusal
from models.ports import Clock
from models.rooms.livekit import rules
from models.rooms.livekit.rules import Key, Notification
from models.rooms.livekit.store import Connection, LiveKitStore
from models.rooms.room import Room
from models.users.profile import Profile

log = structlog.get_logger(__name__)

# A connection is looked at this long after it was told of or looked at: what LiveKit does not tell costs as much.
LOOK_EVERY_SECONDS = 20
# Rooms that could not be asked, one after another: the others cannot be either, each after its wait.
FAILURES_MAX = 3
# From a notification's first write to the seat in the room, with much to spare.
COMING_IN_SECONDS = 5


class Attendance(Protocol):
    """What LiveKit tells a room. Both verbs may be repeated."""

    async def entered(self, *, room_id: str, user_id: str, device_id: str) -> None:
        """A device of somebody is in the room. Refuses as joining does."""
        ...

    async def left(self, *, room_id: str, user_id: str, device_id: str, at: datetime) -> None:
        """A device has left the room, at ``at``; nothing happens when it was not there."""
        ...


class MediaServer(Protocol):
    """LiveKit's own service. Raises ``MediaServerAway``."""

    async def participants(self, room_id: str) -> dict[str, str]:
        """Who is connected to a room: identities by LiveKit's ids of the connections; nobody in a room that it does
        not know.
        """
        ...

    async def remove(self, room_id: str, identity: str) -> None:
        """Cut a participant off; nothing happens when it is not there."""
        ...


class MediaServerAway(Exception):
    """LiveKit does not answer, or not as documented."""


class LiveKit:
    """One per process, where it is configured."""

    def __init__(
        self,
        *,
        key: Key,
        store: LiveKitStore,
        rooms: Attendance,
        load: Callable[[str], Awaitable[Room | None]],
        server: MediaServer,
        clock: Clock,
    ) -> None:
        self._key = key
        self._store = store
        self._rooms = rooms
        self._load = load
        self._server = server
        self._clock = clock
        # Rooms that could not be asked in the last turn: in the next one the others come first.
        self._unanswered: dict[str, set[str]] = {}

    async def ticket(self, room: Room, person: Profile | None, device_id: str) -> Mapping[str, Any] | None:
        """What a device needs to connect to LiveKit; None for one whose user has no place in the room."""
        one = room.participant(person.user_id) if person is not None else None
        if person is None or one is None or one.pending:
            return None
        now = self._clock.now()
        # A look longer than the token: who connects with its last second is found as well.
        until = now + timedelta(seconds=rules.TOKEN_SECONDS + rules.LEEWAY_SECONDS + LOOK_EVERY_SECONDS)
        await self._store.ticketed(room.id, until=until, now=now)
        token = rules.join_token(
            self._key,
            room_id=room.id,
            room_type=room.type,
            user_id=person.user_id,
            device_id=device_id,
            name=person.display_name,
            owner=person.user_id == room.owner_id,
            now=now,
        )
        return {"url": self._key.url, "token": token, "expires_in_ms": 1000 * rules.TOKEN_SECONDS}

    async def devices(self, *, room_id: str, user_id: str, device_id: str) -> frozenset[str]:
        """The devices of our room as which this one is connected to LiveKit."""
        found = await self._store.of_device(room_id=room_id, user_id=user_id, device_id=device_id)
        return frozenset(device_name(one.sid) for one in found)

    async def heard(self, *, body: bytes, authorization: str) -> None:
        """LiveKit tells something. Refuses with ``WEBHOOK_INVALID`` what it has not signed."""
        now = self._clock.now()
        told = rules.notification(self._key, body=body, authorization=authorization, now=now)
        if await self._store.heard(told.id):
            return
        connection = _connection(told, now)
        match told.event:
            case "participant_joined" | "track_published":
                if connection is not None:
                    await self._joined(connection, now)
            case "participant_left" | "participant_connection_aborted":
                if connection is not None:
                    lived_at = await self._store.disconnected(connection, now)
                    await self._left(connection, max(told.at, lived_at or told.at))
            case "room_finished":
                over = await self._store.finished(room_id=told.room, room_sid=told.room_sid, now=now)
                for one in over:
                    await self._left(one, max(told.at, one.at))
                    await self._store.disconnected(one, now)
        await self._store.remember(told.id, now)

    async def _joined(self, one: Connection, now: datetime) -> None:
        known = await self._store.connected(one, now)
        if known is None or known.seated:
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
        await self._store.seated(one)
        # LiveKit lets a device connect once: it has ended the older connection, whose end it may tell later.
        for old in await self._store.of_device(
            room_id=one.room_id, user_id=one.user_id, device_id=one.device_id
        ):
            if old.sid != one.sid and _older(old, known):
                await self._store.disconnected(old, now)
                await self._left(old, now)
        # Its end may have been told meanwhile, by way of another process, and have found nobody to take out.
        if await self._store.gone(one):
            await self._left(one, self._clock.now())

    # -------------------------------------------------------------------------------------------------- what is asked

    async def run_removals(self) -> int:
        """Cut off at LiveKit who is connected there and no longer in our room; how many."""
        now, done = self._clock.now(), 0

        async def cut_off(room_id: str, connections: list[Connection]) -> None:
            nonlocal done
            for one in await self._strangers(room_id, connections):
                identity = rules.identity_of(user_id=one.user_id, device_id=one.device_id)
                await self._server.remove(room_id, identity)
                await self._store.disconnected(one, now)
                done += 1

        await self._each("removals", await self._by_room(now), cut_off)
        return done

    async def run_attendance(self) -> None:
        """Find the connections that have begun or ended without our having been told."""
        now = self._clock.now()
        before = now - timedelta(seconds=LOOK_EVERY_SECONDS)
        rooms = await self._by_room(before)
        for room_id in await self._store.expected(before, now):
            rooms.setdefault(room_id, [])
        await self._each("attendance", rooms, self._look_at)

    async def _look_at(self, room_id: str, connections: list[Connection]) -> None:
        now = self._clock.now()
        there = await self._server.participants(room_id)
        known = {one.sid for one in connections}
        await self._store.seen(there.keys() & known, now)
        for one in connections:
            if one.sid not in there:
                await self._store.disconnected(one, now)
                await self._left(one, now)
        room: Room | None = None
        for sid in there.keys() - known:
            device = rules.device_of(there[sid])
            room = room or await self._load(room_id)
            if device is None or room is None:
                continue
            user_id, device_id = device
            one = Connection(
                sid=sid,
                room_id=room_id,
                room_sid=sid,  # which life of the room it is, nobody has said
                user_id=user_id,
                device_id=device_id,
                at=now,
                told_at=None,
            )
            if room.participant(user_id) is not None:
                await self._joined(one, now)
            else:
                await self._store.connected(one, now)  # to be cut off
        await self._store.looked_at(room_id, now)

    async def _each(
        self,
        job: str,
        rooms: Mapping[str, list[Connection]],
        work: Callable[[str, list[Connection]], Awaitable[None]],
    ) -> None:
        """Work on rooms of LiveKit's: one that cannot be asked keeps no other waiting."""
        failures = 0
        late = self._unanswered[job] = self._unanswered.get(job, set()) & rooms.keys()
        for room_id in sorted(rooms, key=late.__contains__):
            try:
                await work(room_id, rooms[room_id])
            except MediaServerAway as away:
                log.warning("LiveKit is asked again", room_id=room_id, error=str(away))
                late.add(room_id)
                failures += 1
                if failures == FAILURES_MAX:
                    return
            else:
                late.discard(room_id)
                failures = 0

    async def _by_room(self, before: datetime) -> dict[str, list[Connection]]:
        rooms: dict[str, list[Connection]] = {}
        for one in await self._store.live(before):
            rooms.setdefault(one.room_id, []).append(one)
        return rooms

    async def _strangers(self, room_id: str, connections: list[Connection]) -> list[Connection]:
        room = await self._load(room_id)

        def has_seat(one: Connection) -> bool:
            place = room.participant(one.user_id) if room is not None else None
            return place is not None and place.seat(device_name(one.sid)) is not None

        # Read before the room was, so one that is only coming in may not have its seat yet.
        settled = self._clock.now() - timedelta(seconds=COMING_IN_SECONDS)
        return [one for one in connections if one.at <= settled and not has_seat(one)]

    async def _left(self, one: Connection, at: datetime) -> None:
        await self._rooms.left(
            room_id=one.room_id, user_id=one.user_id, device_id=device_name(one.sid), at=at
        )


def _older(one: Connection, other: Connection) -> bool:
    """Whether LiveKit has said that one began before the other; of a mere look there is no telling."""
    return one.told_at is not None and other.told_at is not None and one.told_at < other.told_at


def device_name(sid: str) -> str:
    """The device that a connection to LiveKit is in our room."""
    return f"livekit:{sid}"


def _connection(told: Notification, now: datetime) -> Connection | None:
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
        at=now,
        told_at=told.at,
    )

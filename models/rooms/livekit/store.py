"""Who is connected to LiveKit's rooms as far as it has told, and which of its notifications have been heard.

A connection is kept by LiveKit's own id of it, which is never given twice, and stays as ``gone`` for a day after its
end: LiveKit promises no order, and what is told late of a connection that has ended must not bring it back.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from pymongo import ReturnDocument

from models.db import Database, Document, collection, index

# Longer than LiveKit tries to tell something. One that is seen to live is kept on.
KEPT_HOURS = 24
# Connections that one turn of a job looks at.
LOOK_AT_MAX = 2_000

CONNECTIONS = collection(
    "livekit_connections",
    index("room_sid", where={"gone": False}),
    index("room_id", where={"gone": False}),
    index("at", where={"gone": False}),
    index("expires_at", ttl_seconds=0),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "room_id", "room_sid", "user_id", "device_id", "gone", "at", "expires_at"],
            "properties": {
                "gone": {"bsonType": "bool"},
                "at": {"bsonType": "date"},
                "expires_at": {"bsonType": "date"},
            },
        }
    },
)
# Rooms for which somebody was given a ticket that may still be used: they are looked at though nobody told of them.
TICKETED = collection("livekit_ticketed", index("until", ttl_seconds=0), index("looked_at"))
HEARD = collection("livekit_heard", index("expires_at", ttl_seconds=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A device in one of LiveKit's rooms. ``sid`` is its id there, ``room_sid`` the one of the room's present life.

    ``at`` is when we heard of it, or looked last, ``told_at`` the instant that LiveKit gave what it told first
    (None: it has told nothing). ``seated``: it has had its seat in our room, and gets no second one.
    """

    sid: str
    room_id: str
    room_sid: str
    user_id: str
    device_id: str
    at: datetime
    told_at: datetime | None
    seated: bool = False


class LiveKitStore:
    """Connections and what was heard."""

    def __init__(self, db: Database) -> None:
        self._connections = db[CONNECTIONS]
        self._heard = db[HEARD]
        self._ticketed = db[TICKETED]

    async def heard(self, event_id: str) -> bool:
        """Whether a notification has been acted upon."""
        return await self._heard.find_one({"_id": event_id}) is not None

    async def remember(self, event_id: str, now: datetime) -> None:
        """A notification has been acted upon."""
        kept = {"expires_at": now + timedelta(hours=KEPT_HOURS)}
        await self._heard.update_one({"_id": event_id}, {"$set": kept}, upsert=True)

    async def connected(self, one: Connection, now: datetime) -> Connection | None:
        """Keep a connection, and what is known of it; None when it, or its room, is known to be gone."""
        row = await self._connections.find_one_and_update(
            {"_id": one.sid},
            {"$setOnInsert": _row(one, now)},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        assert row is not None, "it was inserted"
        if not await self.gone(one):
            return _connection_of(row)
        await self.disconnected(one, now)
        return None

    async def seated(self, one: Connection) -> None:
        """A connection has its seat."""
        await self._connections.update_one({"_id": one.sid}, {"$set": {"seated": True}})

    async def gone(self, one: Connection) -> bool:
        """Whether a connection has ended, by itself or with its room."""
        query = {"_id": {"$in": [one.sid, one.room_sid]}, "gone": True}
        return await self._connections.find_one(query, {"_id": 1}) is not None

    async def disconnected(self, one: Connection, now: datetime) -> datetime | None:
        """A connection has ended, also one that nobody has told of yet; when we last knew that it lived."""
        kept = {"gone": True, "expires_at": now + timedelta(hours=KEPT_HOURS)}
        new = {name: value for name, value in _row(one, now).items() if name not in kept}
        before = await self._connections.find_one_and_update(
            {"_id": one.sid}, {"$set": kept, "$setOnInsert": new}, upsert=True
        )
        return before["at"] if before else None

    async def finished(self, *, room_id: str, room_sid: str, now: datetime) -> list[Connection]:
        """A room's life has ended, and with it every connection to it: those that were still there."""
        over = Connection(
            sid=room_sid, room_id=room_id, room_sid=room_sid, user_id="", device_id="", at=now, told_at=now
        )
        await self.disconnected(over, now)
        return await self._live({"room_sid": room_sid})

    async def live(self, before: datetime) -> list[Connection]:
        """Connections that have not ended and were last looked at before an instant, the longest ago first."""
        return await self._live({"at": {"$lte": before}})

    async def of_device(self, *, room_id: str, user_id: str, device_id: str) -> list[Connection]:
        """The connections of a device to a room that have not ended."""
        return await self._live({"room_id": room_id, "user_id": user_id, "device_id": device_id})

    async def ticketed(self, room_id: str, *, until: datetime, now: datetime) -> None:
        """Somebody may connect to a room until then."""
        change = {"$max": {"until": until}, "$setOnInsert": {"looked_at": now}}
        await self._ticketed.update_one({"_id": room_id}, change, upsert=True)

    async def expected(self, before: datetime, now: datetime) -> list[str]:
        """Rooms to which somebody may connect, or may have, last looked at before an instant, the longest ago first."""
        query = {"looked_at": {"$lte": before}, "until": {"$gt": now}}
        cursor = self._ticketed.find(query, {"_id": 1}, sort=[("looked_at", 1)]).limit(LOOK_AT_MAX)
        return [d["_id"] async for d in cursor]

    async def looked_at(self, room_id: str, now: datetime) -> None:
        """A room was looked at."""
        await self._ticketed.update_one({"_id": room_id}, {"$set": {"looked_at": now}})

    async def seen(self, sids: Collection[str], now: datetime) -> None:
        """These connections live."""
        kept = {"at": now, "expires_at": now + timedelta(hours=KEPT_HOURS)}
        await self._connections.update_many({"_id": {"$in": list(sids)}, "gone": False}, {"$set": kept})

    async def _live(self, query: Document) -> list[Connection]:
        cursor = self._connections.find({**query, "gone": False}, sort=[("at", 1)]).limit(LOOK_AT_MAX)
        return [_connection_of(d) async for d in cursor]


def _connection_of(d: Document) -> Connection:
    return Connection(
        sid=d["_id"],
        room_id=d["room_id"],
        room_sid=d["room_sid"],
        user_id=d["user_id"],
        device_id=d["device_id"],
        at=d["at"],
        told_at=d.get("told_at"),
        seated=d.get("seated", False),
    )


def _row(one: Connection, now: datetime) -> Document:
    return {
        "_id": one.sid,
        "room_id": one.room_id,
        "room_sid": one.room_sid,
        "user_id": one.user_id,
        "device_id": one.device_id,
        "gone": False,
        "at": one.at,
        "told_at": one.told_at,
        "expires_at": now + timedelta(hours=KEPT_HOURS),
    }

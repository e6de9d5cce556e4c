"""Who is connected to LiveKit's rooms as far as it has told, and which of its notifications have been heard.

A connection is kept by LiveKit's own id of it, which is never given twice, and stays as ``gone`` for a day after its
end: LiveKit promises no order, and what is told late of a connection that has ended must not bring it back.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from models.db import Database, Document, collection, index

# Longer than LiveKit tries to tell something. One that is seen to live is kept on.
KEPT_HOURS = 24
# Connections that one turn of a job looks at.
LOOK_AT_MAX = 2_000

CONNECTIONS = collection(
    "livekit_connections",
    index("room_sid", where={"gone": False}),
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
HEARD = collection("livekit_heard", index("expires_at", ttl_seconds=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A device in one of LiveKit's rooms. ``sid`` is its id there, ``room_sid`` the one of the room's present life.

    ``at`` is when we heard of it, or looked last.
    """

    sid: str
    room_id: str
    room_sid: str
    user_id: str
    device_id: str
    at: datetime


class LiveKitStore:
    """Connections and what was heard."""

    def __init__(self, db: Database) -> None:
        self._connections = db[CONNECTIONS]
        self._heard = db[HEARD]

    async def heard(self, event_id: str) -> bool:
        """Whether a notification has been acted upon."""
        return await self._heard.find_one({"_id": event_id}) is not None

    async def remember(self, event_id: str, now: datetime) -> None:
        """A notification has been acted upon."""
        kept = {"expires_at": now + timedelta(hours=KEPT_HOURS)}
        await self._heard.update_one({"_id": event_id}, {"$set": kept}, upsert=True)

    async def connected(self, one: Connection, now: datetime) -> bool:
        """Keep a connection; False when it, or its room, is known to be gone."""
        await self._connections.update_one({"_id": one.sid}, {"$setOnInsert": _row(one, now)}, upsert=True)
        if not await self.gone(one):
            return True
        await self.disconnected(one, now)
        return False

    async def gone(self, one: Connection) -> bool:
        """Whether a connection has ended, by itself or with its room."""
        query = {"_id": {"$in": [one.sid, one.room_sid]}, "gone": True}
        return await self._connections.find_one(query, {"_id": 1}) is not None

    async def disconnected(self, one: Connection, now: datetime) -> None:
        """A connection has ended, also one that nobody has told of yet."""
        row = _row(one, now) | {"gone": True}
        del row["_id"]
        await self._connections.update_one({"_id": one.sid}, {"$set": row}, upsert=True)

    async def finished(self, *, room_id: str, room_sid: str, now: datetime) -> list[Connection]:
        """A room's life has ended, and with it every connection to it: those that were still there."""
        over = Connection(sid=room_sid, room_id=room_id, room_sid=room_sid, user_id="", device_id="", at=now)
        await self.disconnected(over, now)
        return await self._live({"room_sid": room_sid})

    async def live(self, before: datetime) -> list[Connection]:
        """Connections that have not ended and were last looked at before an instant, the longest ago first."""
        return await self._live({"at": {"$lte": before}})

    async def seen(self, sids: Collection[str], now: datetime) -> None:
        """These connections live."""
        kept = {"at": now, "expires_at": now + timedelta(hours=KEPT_HOURS)}
        await self._connections.update_many({"_id": {"$in": list(sids)}, "gone": False}, {"$set": kept})

    async def _live(self, query: Document) -> list[Connection]:
        cursor = self._connections.find({**query, "gone": False}, sort=[("at", 1)]).limit(LOOK_AT_MAX)
        return [
            Connection(
                sid=d["_id"],
                room_id=d["room_id"],
                room_sid=d["room_sid"],
                user_id=d["user_id"],
                device_id=d["device_id"],
                at=d["at"],
            )
            async for d in cursor
        ]


def _row(one: Connection, now: datetime) -> Document:
    return {
        "_id": one.sid,
        "room_id": one.room_id,
        "room_sid": one.room_sid,
        "user_id": one.user_id,
        "device_id": one.device_id,
        "gone": False,
        "at": one.at,
        "expires_at": now + timedelta(hours=KEPT_HOURS),
    }

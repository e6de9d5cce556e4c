"""Call logs in MongoDB. A line is written in the transaction of the move that begins, fills or ends its session.

So a session that nobody is in any more has an end, also when the process of the last one in it died.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from models.db import Database, Document, Session, collection, index
from models.rooms.room import Room
from models.rooms.rules import Step

LOGS = collection(
    "call_logs",
    index("user_ids", "-_id"),
    index("room_id", "-_id"),
)

# Names on one line. In a room that is never empty people come and go for weeks; who comes after these is not on it.
NAMES_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLog:
    """One session of a room: from the first who came to the last who left."""

    id: str
    room_id: str
    room_name: str | None
    type: str
    owner_id: str
    user_ids: tuple[str, ...]
    started_by: str
    started_at: datetime
    ended_at: datetime | None

    @property
    def duration_seconds(self) -> int:
        """From the beginning to the end; 0 while it runs."""
        return int((self.ended_at - self.started_at).total_seconds()) if self.ended_at else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """A person's logs, added up."""

    calls: int
    completed: int
    seconds: int


class LogStore:
    """Writes and reads call logs."""

    def __init__(self, db: Database) -> None:
        self._logs = db[LOGS]

    async def write(self, before: Room, step: Step, session: Session) -> None:
        """What a step means to the logs, in its transaction."""
        room, running = step.room, step.room.session
        if step.over is not None:
            over, ended_at = step.over
            seconds = int((ended_at - over.started_at).total_seconds())
            await self._logs.update_one(
                {"_id": over.id},
                {"$set": {"ended_at": ended_at, "duration_seconds": seconds}},
                session=session,
            )
        if running is None:
            return
        come = [fact.data["user_id"] for fact in step.facts if fact.kind == "joined"]
        if before.session is None or before.session.id != running.id:
            names = dict.fromkeys([running.started_by, *(one.user_id for one in room.present)])
            line: Document = {
                "_id": running.id,
                "room_id": room.id,
                "room_name": room.name,
                "type": room.type,
                "owner_id": room.owner_id,
                "user_ids": list(names),
                "started_by": running.started_by,
                "started_at": running.started_at,
                "ended_at": None,
                "duration_seconds": 0,
            }
            await self._logs.insert_one(line, session=session)
        elif come:
            await self._logs.update_one(
                {"_id": running.id, f"user_ids.{NAMES_MAX - 1}": {"$exists": False}},
                {"$addToSet": {"user_ids": {"$each": come}}},
                session=session,
            )

    async def find(self, log_id: str) -> CallLog | None:
        """One line."""
        found = await self._logs.find_one({"_id": log_id})
        return _log_of(found) if found else None

    async def last_of(self, room_id: str) -> CallLog | None:
        """The newest line of a room."""
        found = await self._logs.find_one({"room_id": room_id}, sort=[("_id", -1)])
        return _log_of(found) if found else None

    async def page(self, user_id: str, *, before: str | None, most: int) -> list[CallLog]:
        """The sessions that somebody was in, the newest first, older than ``before``."""
        query: Document = {"user_ids": user_id}
        if before is not None:
            query["_id"] = {"$lt": before}
        cursor = self._logs.find(query, sort=[("_id", -1)]).limit(most)
        return [_log_of(d) async for d in cursor]

    async def totals(self, user_id: str) -> Totals:
        """All the sessions that somebody was in, added up."""
        cursor = await self._logs.aggregate(
            [
                {"$match": {"user_ids": user_id}},
                {
                    "$group": {
                        "_id": None,
                        "calls": {"$sum": 1},
                        "completed": {"$sum": {"$cond": [{"$eq": ["$ended_at", None]}, 0, 1]}},
                        "seconds": {"$sum": "$duration_seconds"},
                    }
                },
            ]
        )
        found = await cursor.to_list()
        if not found:
            return Totals(calls=0, completed=0, seconds=0)
        return Totals(calls=found[0]["calls"], completed=found[0]["completed"], seconds=found[0]["seconds"])


def _log_of(d: Document) -> CallLog:
    return CallLog(
        id=d["_id"],
        room_id=d["room_id"],
        room_name=d["room_name"],
        type=d["type"],
        owner_id=d["owner_id"],
        user_ids=tuple(d["user_ids"]),
        started_by=d["started_by"],
        started_at=d["started_at"],
        ended_at=d["ended_at"],
    )

"""What was between two people, from their calls."""

from __future__ import annotations

from datetime import datetime

from models.calls.call import Call
from models.calls.documents import call_of
from models.calls.store import CALLS
from models.db import Database


class PastStore:
    """Reads calls."""

    def __init__(self, db: Database) -> None:
        self._calls = db[CALLS]

    async def between(self, one: str, other: str, after: datetime, most: int) -> list[Call]:
        """The calls of two people since then, newest first."""
        sides = [{"caller.user_id": a, "callee.user_id": b} for a, b in ((one, other), (other, one))]
        query = {"$or": [{**side, "created_at": {"$gt": after}} for side in sides], "room_id": None}
        cursor = self._calls.find(query, sort=[("created_at", -1), ("_id", -1)]).limit(most)
        return [call_of(d) async for d in cursor]

    async def have_met(self, caller_id: str, callee_id: str) -> bool:
        """Whether the callee has ever answered the caller, or called them."""
        answered = {
            "caller.user_id": caller_id,
            "callee.user_id": callee_id,
            "accepted_at": {"$type": "date"},
        }
        called = {"caller.user_id": callee_id, "callee.user_id": caller_id}
        found = await self._calls.find_one({"$or": [answered, called], "room_id": None}, {"_id": 1})
        return found is not None

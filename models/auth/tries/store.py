"""Rows of wrong tries in MongoDB, with locks that grow.

A try is counted before the code is looked at, in one atomic update, so that a thousand at once from any number of
processes are a thousand tries. A lock that is over begins a new row; one that is right clears all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from models.db import Database, Document, DuplicateKeyError, Session, collection, index

# _id is what is tried, and whose.
TRIES = collection("auth_tries", index("expires_at", ttl_seconds=0))

# Wrong tries in a row before the next lock, and how long each lock lasts; the last length repeats.
TRIES_MAX = 5
LOCKS = (timedelta(minutes=5), timedelta(hours=1), timedelta(hours=24))
# Then the locks so far are forgotten. Seven days of waiting give a guesser less than the last lock repeated.
FORGOTTEN_AFTER = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Tried:
    """A try that was counted. ``locked_until``: it was the last one, unless it is right."""

    tries_left: int
    locked_until: datetime | None


class TryStore:
    """``TryStore(db)``. One row for each ``key``, such as ``sign-in:{user id}``."""

    def __init__(self, db: Database) -> None:
        self._rows = db[TRIES]

    async def count(
        self, key: str, now: datetime, *, locks: Sequence[timedelta] = LOCKS, most: int = TRIES_MAX
    ) -> Tried | None:
        """Count a try, of which ``most`` are before the next lock; None when it is locked: nothing was counted."""
        last = {"$gte": ["$tries", most]}
        was_locked = {"$ne": [{"$ifNull": ["$locked_until", None]}, None]}
        lengths = [
            {"case": {"$eq": [{"$ifNull": ["$locks", 0]}, number]}, "then": now + length}
            for number, length in enumerate(locks[:-1])
        ]
        until = {"$switch": {"branches": lengths, "default": now + locks[-1]}} if lengths else now + locks[-1]
        change: list[Document] = [
            {"$set": {"tries": {"$add": [{"$cond": [was_locked, 0, {"$ifNull": ["$tries", 0]}]}, 1]}}},
            {"$set": {"locked_until": {"$cond": [last, until, None]}}},
            {"$set": {"locks": {"$add": [{"$ifNull": ["$locks", 0]}, {"$cond": [last, 1, 0]}]}}},
            {"$set": {"expires_at": now + FORGOTTEN_AFTER}},
        ]
        query = {"_id": key, "$or": [{"locked_until": None}, {"locked_until": {"$lte": now}}]}
        for _ in range(2):
            try:
                row = await self._rows.find_one_and_update(query, change, upsert=True, return_document=True)
            except DuplicateKeyError:
                continue  # locked; or another has just made the row, which the second look tells
            assert row is not None, "it was made if it was not there"
            return Tried(max(0, most - row["tries"]), row["locked_until"])
        return None

    async def locked_ms(self, key: str, now: datetime) -> int:
        """How long the row is still locked, in milliseconds."""
        row = await self._rows.find_one({"_id": key})
        until = row.get("locked_until") if row else None
        return max(1, round((until - now).total_seconds() * 1000)) if until else 1

    async def keep(self, key: str, until: datetime) -> None:
        """Know this key until then."""
        await self._rows.update_one({"_id": key}, {"$max": {"expires_at": until}}, upsert=True)

    async def kept(self, key: str, now: datetime) -> bool:
        """Whether this key is known still."""
        return await self._rows.find_one({"_id": key, "expires_at": {"$gt": now}}, {"_id": 1}) is not None

    async def clear(self, *keys: str, transaction: Session | None = None) -> None:
        """Forget the wrong tries and the locks."""
        await self._rows.delete_many({"_id": {"$in": list(keys)}}, session=transaction)

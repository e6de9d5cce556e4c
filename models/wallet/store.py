"""PINs in MongoDB. A try is counted by one conditional update before anybody looks at the hash.

The update that counts the last try locks at the same time, so that parallel tries, other processes and a crash in
between cannot win one more; the right PIN takes it all back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument

from models.db import Database, Document, DuplicateKeyError, Session, collection
from models.wallet.rules import LOCKS, TRIES_MAX, PinState

_WHOLE = {"bsonType": ["int", "long"]}
_DATE = {"bsonType": "date"}

# _id is the user's id.
PINS = collection(
    "pins",
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "hash", "tries", "locks", "locked_until", "created_at", "changed_at"],
            "properties": {
                "_id": {"bsonType": "string"},
                "hash": {"bsonType": "string"},
                "tries": {**_WHOLE, "minimum": 0, "maximum": TRIES_MAX},
                "locks": {**_WHOLE, "minimum": 0, "maximum": len(LOCKS)},
                "locked_until": {"bsonType": ["date", "null"]},
                "created_at": _DATE,
                "changed_at": _DATE,
            },
            "additionalProperties": False,
        }
    },
)

_FRESH: Document = {"tries": 0, "locks": 0, "locked_until": None}


class WalletStore:
    """What wallets keep beside the ledger: the PINs."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._pins = db[PINS]
        # What others keep with a PIN that is changed, in the same transaction: whose, and when.
        self.beside_change: Callable[[str, datetime, Session], Awaitable[None]] | None = None

    async def pin(self, user_id: str) -> PinState | None:
        """The user's PIN, if they have one."""
        found = await self._pins.find_one({"_id": user_id})
        return _state(found) if found else None

    async def pin_changed_at(self, user_id: str) -> datetime | None:
        """When the user's PIN was changed or reset; None when it is the first one that they ever had."""
        found = await self._pins.find_one({"_id": user_id}, {"created_at": 1, "changed_at": 1})
        if found is None or found["changed_at"] == found["created_at"]:
            return None
        changed: datetime = found["changed_at"]
        return changed

    async def first_pin(self, user_id: str, hashed: str, now: datetime) -> bool:
        """Keep the user's first PIN; False if there is one already."""
        row = {"_id": user_id, "hash": hashed, **_FRESH, "created_at": now, "changed_at": now}
        try:
            await self._pins.insert_one(row)
        except DuplicateKeyError:
            return False
        return True

    async def count_try(self, user_id: str, now: datetime) -> PinState | None:
        """Count a try and, if it is the last one, lock; the state after it. None: locked, or no PIN."""
        found = await self._pins.find_one_and_update(
            {
                "_id": user_id,
                "locks": {"$lt": len(LOCKS)},
                "$or": [{"locked_until": None}, {"locked_until": {"$lte": now}}],
            },
            [
                # A lock that is over begins a new row of tries.
                {
                    "$set": {
                        "tries": {"$add": [{"$cond": [{"$ne": ["$locked_until", None]}, 0, "$tries"]}, 1]}
                    }
                },
                {"$set": {"locked_until": {"$cond": [_last_try(), _until(now), None]}}},
                {"$set": {"locks": {"$add": ["$locks", {"$cond": [_last_try(), 1, 0]}]}}},
            ],
            return_document=ReturnDocument.AFTER,
        )
        return _state(found) if found else None

    async def give_back(self, user_id: str, tried: PinState) -> None:
        """Take a try back whose hash was never looked at, and the lock with it if the try had made one."""
        lift: Document = {"locks": -1} if tried.tries_left == 0 else {}
        change: Document = {"$inc": {"tries": -1, **lift}}
        if lift:
            change["$set"] = {"locked_until": None}
        query: Document = {"_id": user_id, "hash": tried.hash, "tries": {"$gt": 0}}
        if lift:
            query["locks"] = tried.locks
        await self._pins.update_one(query, change)

    async def was_right(self, user_id: str, hashed: str) -> bool:
        """Forget the wrong tries; False when the PIN is not the one with this hash any more."""
        done = await self._pins.update_one({"_id": user_id, "hash": hashed}, {"$set": _FRESH})
        return bool(done.matched_count)

    async def change(self, user_id: str, new_hash: str, now: datetime, *, seen: str | None = None) -> bool:
        """Set another PIN, which has all its tries; False without a PIN (or, given ``seen``, without that one)."""
        query: Document = {"_id": user_id} if seen is None else {"_id": user_id, "hash": seen}
        change = {"$set": {**_FRESH, "hash": new_hash, "changed_at": now}}
        beside = self.beside_change
        if beside is None:
            return bool((await self._pins.update_one(query, change)).matched_count)

        async def body(session: Session) -> bool:
            done = await self._pins.update_one(query, change, session=session)
            if done.matched_count:
                await beside(user_id, now, session)
            return bool(done.matched_count)

        return await self._db.transaction(body)

    async def drop_of_sessions(self, session_ids: Collection[str], transaction: Session) -> None:
        """Nothing: a PIN is the person's, not a sign-in's."""

    async def drop_all(self, user_id: str, transaction: Session) -> None:
        """Forget the PIN of an account that is deleted."""
        await self._pins.delete_one({"_id": user_id}, session=transaction)


def _last_try() -> Document:
    return {"$gte": ["$tries", TRIES_MAX]}


def _until(now: datetime) -> Document:
    """When the lock after ``locks`` earlier ones is over; null for never."""
    branches = [
        {"case": {"$eq": ["$locks", number]}, "then": None if length is None else now + length}
        for number, length in enumerate(LOCKS)
    ]
    return {"$switch": {"branches": branches, "default": None}}


def _state(document: dict[str, Any]) -> PinState:
    return PinState(
        hash=document["hash"],
        tries=document["tries"],
        locks=document["locks"],
        locked_until=document["locked_until"],
        changed_at=document["changed_at"],
    )

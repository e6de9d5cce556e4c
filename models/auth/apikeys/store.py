"""API keys in MongoDB.

A request with a key is one update: it is found by name and digest, counted for good and for its minute, and that
answers whether it may. So the limit holds over all processes, and nothing that is counted is lost.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from models.auth.apikeys.rules import KEYS_MAX, ApiKey
from models.auth.session import Beside
from models.db import Database, Document, Session, collection, index

API_KEYS = collection(
    "api_keys",
    index("user_id", "_id"),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "user_id", "digest", "name", "scopes", "per_minute", "uses", "expires_at"],
            "properties": {
                "digest": {"bsonType": "string", "minLength": 64},
                "scopes": {"bsonType": "array", "minItems": 1},
                "per_minute": {"bsonType": ["int", "long"], "minimum": 1},
                "uses": {"bsonType": ["int", "long"], "minimum": 0},
                "expires_at": {"bsonType": "date"},
            },
        }
    },
)


class ApiKeyStore:
    """Reads and writes keys; they go with an account that is deleted."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._keys = db[API_KEYS]
        self.beside_made: Beside | None = None

    async def add(self, key: ApiKey, digest: str) -> bool:
        """Keep a new key; False when the user has as many as one may."""

        async def body(session: Session) -> bool:
            if await self._keys.count_documents({"user_id": key.user_id}, session=session) >= KEYS_MAX:
                return False
            row: Document = {
                "_id": key.id,
                "user_id": key.user_id,
                "digest": digest,
                "name": key.name,
                "scopes": list(key.scopes),
                "per_minute": key.per_minute,
                "uses": 0,
                "created_at": key.created_at,
                "expires_at": key.expires_at,
            }
            await self._keys.insert_one(row, session=session)
            if self.beside_made is not None:
                await self.beside_made(key.user_id, key.created_at, session)
            return True

        return await self._db.transaction(body)

    async def use(self, key_id: str, digest: str, now: datetime) -> tuple[ApiKey, int] | None:
        """Count a request; the key, and which request of its minute this is. None: there is no such key (any more).

        Beyond the limit nothing is added to ``uses``.
        """
        minute = now.replace(second=0, microsecond=0)
        in_minute = {"$cond": [{"$eq": ["$minute", minute]}, {"$ifNull": ["$minute_uses", 0]}, 0]}
        change: list[Document] = [
            {"$set": {"minute_uses": {"$add": [in_minute, 1]}, "minute": minute}},
            {
                "$set": {
                    "uses": {"$add": ["$uses", {"$cond": [{"$lte": ["$minute_uses", "$per_minute"]}, 1, 0]}]},
                    "last_used_at": now,
                }
            },
        ]
        query = {"_id": key_id, "digest": digest, "expires_at": {"$gt": now}}
        row = await self._keys.find_one_and_update(query, change, return_document=True)
        return (_key(row), row["minute_uses"]) if row else None

    async def of_user(self, user_id: str) -> list[ApiKey]:
        """The user's keys, expired ones too, in no order that matters."""
        return [_key(row) async for row in self._keys.find({"user_id": user_id}, sort=[("_id", 1)])]

    async def remove(self, user_id: str, key_id: str) -> None:
        """Forget one of the user's keys, if it is there."""
        await self._keys.delete_one({"_id": key_id, "user_id": user_id})

    async def drop_of_sessions(self, session_ids: Collection[str], transaction: Session) -> None:
        """Nothing: a key is the person's, not a sign-in's."""

    async def drop_all(self, user_id: str, transaction: Session) -> None:
        """Forget all keys of a user: the account is deleted, or was somebody else's for a while."""
        await self._keys.delete_many({"user_id": user_id}, session=transaction)


def minute_end(now: datetime) -> datetime:
    """When the next minute begins, and with it another allowance."""
    return now.replace(second=0, microsecond=0) + timedelta(minutes=1)


def _key(row: Document) -> ApiKey:
    return ApiKey(
        id=row["_id"],
        user_id=row["user_id"],
        name=row["name"],
        scopes=tuple(row["scopes"]),
        per_minute=row["per_minute"],
        uses=row["uses"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row.get("last_used_at"),
    )

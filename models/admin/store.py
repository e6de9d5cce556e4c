"""Sign-ins to the administrators' pages in MongoDB. What the browser holds is kept as its digest only.

Each stands on an ordinary sign-in of the account, and goes in the transaction in which that one ends: by another
password, by "sign out everywhere", by the deletion of the account.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from models.also import Also
from models.db import Database, Document, Session, collection, index

_TEXT = {"bsonType": "string"}
_DATE = {"bsonType": "date"}

# _id is the SHA-256 of what the browser holds, in hexadecimal.
ADMIN_SESSIONS = collection(
    "admin_sessions",
    index("session_id"),
    index("user_id"),
    index("expires_at", ttl_seconds=0),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "user_id", "session_id", "proven", "created_at", "seen_at", "expires_at"],
            "properties": {
                "_id": {"bsonType": "string", "pattern": "^[0-9a-f]{64}$"},
                "user_id": _TEXT,
                "session_id": _TEXT,
                "proven": {"bsonType": "bool"},
                "created_at": _DATE,
                "seen_at": _DATE,
                "expires_at": _DATE,
                "shown": {"bsonType": ["string", "null"], "pattern": "^[0-9a-f]{64}$"},
            },
        }
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSession:
    """A sign-in to the pages. ``session_id`` is the sign-in of the account that it stands on.

    ``proven``: a code of the second factor was shown for it. ``shown``: the digest of the seed that its page has shown.
    """

    digest: str
    user_id: str
    session_id: str
    proven: bool
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    shown: str | None = None


class AdminSessionStore:
    """``AdminSessionStore(db)``: also what goes when sign-ins of accounts end (``models.auth.store.Belongings``)."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._rows = db[ADMIN_SESSIONS]

    async def keep(
        self, one: AdminSession, *, instead_of: str | None = None, also: Also | None = None
    ) -> None:
        """Keep a sign-in, in the place of another one's digest if there was one."""
        row = {
            "_id": one.digest,
            "user_id": one.user_id,
            "session_id": one.session_id,
            "proven": one.proven,
            "created_at": one.created_at,
            "seen_at": one.seen_at,
            "expires_at": one.expires_at,
            "shown": one.shown,
        }

        async def body(transaction: Session) -> None:
            if instead_of is not None:
                await self._rows.delete_one({"_id": instead_of}, session=transaction)
            await self._rows.insert_one(row, session=transaction)
            if also is not None:
                await also(transaction)

        await self._db.transaction(body)

    async def find(self, digest: str) -> AdminSession | None:
        """The sign-in of that digest, over or not."""
        row = await self._rows.find_one({"_id": digest})
        return _session(row) if row else None

    async def seen(self, digest: str, now: datetime) -> None:
        """Somebody was there just now."""
        await self._rows.update_one({"_id": digest}, {"$max": {"seen_at": now}})

    async def showed(self, digest: str, shown: str) -> None:
        """Its page shows the seed of that digest."""
        await self._rows.update_one({"_id": digest}, {"$set": {"shown": shown}})

    async def drop(self, digest: str, *, also: Also | None = None) -> None:
        """It is over. Safe to repeat; ``also`` is done once, by whoever was first."""

        async def body(transaction: Session) -> None:
            gone = await self._rows.delete_one({"_id": digest}, session=transaction)
            if gone.deleted_count and also is not None:
                await also(transaction)

        await self._db.transaction(body)

    async def only(self, also: Also) -> None:
        """A transaction of nothing else."""
        await self._db.transaction(also)

    async def drop_of_sessions(self, session_ids: Collection[str], transaction: Session) -> None:
        """Those that stand on sign-ins which end."""
        await self._rows.delete_many({"session_id": {"$in": list(session_ids)}}, session=transaction)

    async def drop_all(self, user_id: str, transaction: Session) -> None:
        """Those of an account that is deleted."""
        await self._rows.delete_many({"user_id": user_id}, session=transaction)


def _session(row: Document) -> AdminSession:
    return AdminSession(
        digest=row["_id"],
        user_id=row["user_id"],
        session_id=row["session_id"],
        proven=row["proven"],
        created_at=row["created_at"],
        seen_at=row["seen_at"],
        expires_at=row["expires_at"],
        shown=row.get("shown"),
    )

"""Second factors in MongoDB.

The seed is sealed, recovery codes are digests. The row of the user says as well that there is a factor, and changes
with it, so that a sign-in that looked before meets the change.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from models.also import Also
from models.auth.session import Beside
from models.db import Database, Document, Session, collection
from models.users.profile import ACTIVE
from models.users.store import USERS

# _id is the user's id.
SECOND_FACTORS = collection(
    "second_factors",
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id"],
            "properties": {
                "seed": {"bsonType": "binData"},
                "pending": {"bsonType": "binData"},
                "last_step": {"bsonType": ["int", "long"]},
                "recovery": {"bsonType": "array", "items": {"bsonType": "string", "minLength": 64}},
            },
            # In use with all that belongs to it, or not.
            "dependencies": {"seed": ["enabled_at", "last_step", "recovery"], "pending": ["pending_until"]},
        }
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A second factor as it is kept. ``seed`` None: none is in use; ``pending`` waits for its first code."""

    seed: bytes | None
    last_step: int
    recovery_left: int
    enabled_at: datetime | None
    pending: bytes | None
    pending_until: datetime | None


class FactorStore:
    """Reads and writes second factors; goes with an account that is deleted."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._factors = db[SECOND_FACTORS]
        self._users = db[USERS]
        self.beside_on: Beside | None = None
        self.beside_off: Beside | None = None

    async def find(self, user_id: str) -> Factor | None:
        """The user's factor, or what is to become one."""
        row = await self._factors.find_one({"_id": user_id})
        return _factor(row) if row else None

    async def set_up(self, user_id: str, pending: bytes, until: datetime) -> bool:
        """Keep a seed that waits for its first code; False when a factor is in use."""

        async def body(session: Session) -> bool:
            row = await self._factors.find_one({"_id": user_id}, session=session)
            if row is not None and "seed" in row:
                return False
            await self._factors.update_one(
                {"_id": user_id},
                {"$set": {"pending": pending, "pending_until": until}},
                upsert=True,
                session=session,
            )
            return True

        return await self._db.transaction(body)

    async def enable(
        self, user_id: str, pending: bytes, *, step: int, recovery: Sequence[str], now: datetime
    ) -> bool:
        """The seed that waited is in use from now on; False when it is not there (any more)."""

        async def body(session: Session) -> bool:
            done = await self._factors.update_one(
                {"_id": user_id, "pending": pending, "seed": {"$exists": False}},
                {
                    "$set": {
                        "seed": pending,
                        "last_step": step,
                        "recovery": list(recovery),
                        "enabled_at": now,
                    },
                    "$unset": {"pending": "", "pending_until": ""},
                },
                session=session,
            )
            if not done.matched_count:
                return False
            marked = await self._users.update_one(
                {"_id": user_id, "status": ACTIVE}, {"$set": {"second_factor": True}}, session=session
            )
            if not marked.matched_count:
                await session.abort_transaction()
            elif self.beside_on is not None:
                await self.beside_on(user_id, now, session)
            return bool(marked.matched_count)

        return await self._db.transaction(body)

    async def use_step(self, user_id: str, seed: bytes, step: int) -> bool:
        """Use a step up; False when it, or a later one, was used already, or the seed is another by now."""
        done = await self._factors.update_one(
            {"_id": user_id, "seed": seed, "last_step": {"$lt": step}}, {"$set": {"last_step": step}}
        )
        return bool(done.modified_count)

    async def use_recovery(self, user_id: str, digest: str) -> bool:
        """Use a recovery code up; False when there is no such one (any more)."""
        done = await self._factors.update_one(
            {"_id": user_id, "recovery": digest}, {"$pull": {"recovery": digest}}
        )
        return bool(done.modified_count)

    async def renew_recovery(self, user_id: str, seed: bytes, recovery: Sequence[str]) -> bool:
        """Other recovery codes, instead of those there were; False when the factor is another by now."""
        done = await self._factors.update_one(
            {"_id": user_id, "seed": seed}, {"$set": {"recovery": list(recovery)}}
        )
        return bool(done.matched_count)

    async def disable(self, user_id: str, now: datetime, also: Also | None = None) -> bool:
        """Forget the factor, and keep when that was; False when there was none in use. ``also`` joins the change."""

        async def body(session: Session) -> bool:
            gone = await self._factors.delete_one(
                {"_id": user_id, "seed": {"$exists": True}}, session=session
            )
            if gone.deleted_count:
                change = {"$unset": {"second_factor": ""}, "$set": {"factor_off_at": now}}
                await self._users.update_one({"_id": user_id}, change, session=session)
                if self.beside_off is not None:
                    await self.beside_off(user_id, now, session)
                if also is not None:
                    await also(session)
            return bool(gone.deleted_count)

        return await self._db.transaction(body)

    async def turned_off_at(self, user_id: str) -> datetime | None:
        """When the user was last without a factor that they had had; None: never."""
        row = await self._users.find_one({"_id": user_id}, {"factor_off_at": 1})
        return row.get("factor_off_at") if row else None

    async def drop_of_sessions(self, session_ids: Collection[str], transaction: Session) -> None:
        """Nothing: a factor is the person's, not a sign-in's."""

    async def drop_all(self, user_id: str, transaction: Session) -> None:
        """Forget the factor of an account that is deleted."""
        await self._factors.delete_one({"_id": user_id}, session=transaction)


def _factor(row: Document) -> Factor:
    return Factor(
        seed=row.get("seed"),
        last_step=row.get("last_step", -1),
        recovery_left=len(row.get("recovery", ())),
        enabled_at=row.get("enabled_at"),
        pending=row.get("pending"),
        pending_until=row.get("pending_until"),
    )

"""Codes and the wishes for them in MongoDB.

A wish is a to-do: whoever asks leaves the same row in the same time, whether or not there is such an account, and a
job does the rest. A code replaces the one before it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from models.auth.codes.rules import GAP, GIVE_UP_AFTER, TRIES_MAX, Purpose, Way
from models.db import Database, Document, DuplicateKeyError, Session, collection, index

WISHES = collection("code_wishes", index("due_at"), index("purge_at", ttl_seconds=0))
# _id is "purpose:user id".
CODES = collection("auth_codes", index("user_id"), index("purge_at", ttl_seconds=0))

# How long it is known when codes were sent.
COUNTED_FOR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Somebody wants a code. ``field`` and ``value`` find the account; ``attempts`` counts this one.

    ``by`` is whose device asks, where it is one that was signed in before.
    """

    id: str
    purpose: Purpose
    field: str
    value: str
    asked_at: datetime
    attempts: int
    lease: str
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A code as it is kept, with the address that it went to; ``known``: asked for by a device of the person's own."""

    user_id: str
    purpose: Purpose
    digest: str
    way: Way
    address: str
    known: bool = False

    @property
    def id(self) -> str:
        """The row's."""
        return code_id(self.purpose, self.user_id, known=self.known)


def code_id(purpose: Purpose, user_id: str, *, known: bool = False) -> str:
    """The ``_id`` of a person's code; those that known devices have asked for are kept apart."""
    return f"{purpose}:{user_id}:known" if known else f"{purpose}:{user_id}"


class CodeStore:
    """Reads and writes wishes and codes; they go with an account that is deleted."""

    def __init__(self, db: Database) -> None:
        self._wishes = db[WISHES]
        self._codes = db[CODES]

    async def wish(
        self, purpose: Purpose, field: str, value: str, now: datetime, *, by: str | None = None
    ) -> None:
        """Keep a wish; one that waits already is the same."""
        row = {
            "purpose": purpose.value,
            "field": field,
            "value": value,
            "asked_at": now,
            "due_at": now,
            "attempts": 0,
            "purge_at": now + 2 * GIVE_UP_AFTER,
            **({"by": by} if by else {}),
        }
        query = {"_id": f"{purpose}:{field}:{value}" + (f":known:{by}" if by else "")}
        try:
            await self._wishes.update_one(query, {"$setOnInsert": row}, upsert=True)
        except DuplicateKeyError:
            return  # another request has just kept it

    async def claim(self, now: datetime, *, lease: str, lease_until: datetime) -> Wish | None:
        """Take the wish that has been due for longest, for this worker alone until then."""
        row = await self._wishes.find_one_and_update(
            {"due_at": {"$lte": now}},
            # Due again when the lease is over: who has it then has finished, or is dead.
            {"$set": {"lease": lease, "due_at": lease_until}, "$inc": {"attempts": 1}},
            sort=[("due_at", 1)],
            return_document=True,
        )
        if row is None:
            return None
        return Wish(
            id=row["_id"],
            purpose=Purpose(row["purpose"]),
            field=row["field"],
            value=row["value"],
            asked_at=row["asked_at"],
            attempts=row["attempts"],
            lease=lease,
            by=row.get("by"),
        )

    async def done(self, wish: Wish) -> None:
        """Forget a wish, unless it is another worker's by now."""
        await self._wishes.delete_one({"_id": wish.id, "lease": wish.lease})

    async def again(self, wish: Wish, at: datetime) -> None:
        """Try a wish again, unless it is another worker's by now."""
        await self._wishes.update_one({"_id": wish.id, "lease": wish.lease}, {"$set": {"due_at": at}})

    async def keep(self, code: Code, now: datetime, expires_at: datetime, *, most: int | None) -> bool:
        """Keep a code in place of the one before it. ``most`` counts it and bounds how many an hour has (None: not).

        False: so many were sent already, or one has just been.
        """
        query: Document = {"_id": code.id}
        change: Document = {
            "$set": {
                "user_id": code.user_id,
                "digest": code.digest,
                "way": code.way.value,
                "address": code.address,
                "expires_at": expires_at,
                "tries": 0,
                "outside_tries": 0,
                "purge_at": now + COUNTED_FOR,
            }
        }
        if most is not None:
            await self._codes.update_one(
                {"_id": code.id}, {"$pull": {"sent_at": {"$lte": now - COUNTED_FOR}}}
            )
            query[f"sent_at.{most - 1}"] = {"$exists": False}
            query["sent_at"] = {"$not": {"$gt": now - GAP}}
            change["$push"] = {"sent_at": now}
        try:
            await self._codes.update_one(query, change, upsert=True)
        except DuplicateKeyError:
            return False
        return True

    async def count_try(
        self, purpose: Purpose, user_id: str, now: datetime, *, known: bool = False, outside: bool = False
    ) -> Code | None:
        """Count a try at a person's code; None when there is none that is good, or it was tried too often.

        The tries of strangers at what a known device has asked for (``outside``) are counted apart.
        """
        counted = "outside_tries" if outside else "tries"
        row = await self._codes.find_one_and_update(
            {
                "_id": code_id(purpose, user_id, known=known),
                "digest": {"$exists": True},
                "expires_at": {"$gt": now},
                counted: {"$lt": TRIES_MAX},
            },
            {"$inc": {counted: 1}},
        )
        if row is None:
            return None
        return Code(
            user_id=row["user_id"],
            purpose=purpose,
            digest=row["digest"],
            way=Way(row["way"]),
            address=row["address"],
            known=known,
        )

    async def use(self, code: Code, transaction: Session) -> bool:
        """Use a code up, and with it the other one for the same; False when it was, or another has taken its place.

        How many were sent is still known.
        """
        gone = {"$unset": {"digest": "", "address": ""}}
        done = await self._codes.update_one(
            {"_id": code.id, "digest": code.digest}, gone, session=transaction
        )
        if done.modified_count:
            other = code_id(code.purpose, code.user_id, known=not code.known)
            await self._codes.update_one({"_id": other}, gone, session=transaction)
        return bool(done.modified_count)

    async def drop_of_sessions(self, session_ids: Collection[str], transaction: Session) -> None:
        """Nothing: a code is the person's, not a sign-in's."""

    async def drop_all(self, user_id: str, transaction: Session) -> None:
        """Forget the codes of an account that is deleted."""
        await self._codes.delete_many({"user_id": user_id}, session=transaction)

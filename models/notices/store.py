"""Notices in MongoDB: the facts that are to be told, and who wants which.

A fact is inserted in the transaction in which it happens. ``due_at`` is there while something is to be sent; a worker
holds a fact by ``lease`` until ``lease_until``, and what it writes back is guarded by that name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from pymongo import ReturnDocument

from models.backlog.store import Overdue, overdue
from models.db import Database, Document, Session, collection, index
from models.notices.notice import Fact, Settings, Todo, What

# What was told stays so long, for who asks the operator whether it was.
KEPT_DAYS = 30
_DATE = {"bsonType": "date"}

NOTICES = collection(
    "notices",
    index("due_at", where={"due_at": {"$exists": True}}),
    index("user_id", "at"),
    index("purge_at", ttl_seconds=0),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "user_id", "what", "at", "purge_at", "lease_until", "attempts", "done"],
            "properties": {
                "_id": {"bsonType": "string"},
                "user_id": {"bsonType": "string"},
                "what": {"enum": [what.value for what in What]},
                "at": _DATE,
                "due_at": _DATE,
                "lease_until": _DATE,
                "purge_at": _DATE,
                "amount_minor": {"bsonType": ["int", "long", "null"]},
                "done": {"bsonType": "array"},
            },
        }
    },
)
# _id is the user's id.
SETTINGS = collection("notice_settings")


class NoticeStore:
    """Keeps, leases and settles facts; keeps what people want."""

    def __init__(self, db: Database) -> None:
        self._rows = db[NOTICES]
        self._settings = db[SETTINGS]

    async def put(self, facts: Sequence[Fact], session: Session) -> None:
        """Keep facts that happen in this very transaction. One that was kept before stays as it is."""
        for fact in facts:
            row: Document = {
                "user_id": fact.user_id,
                "what": fact.what.value,
                "at": fact.at,
                "amount_minor": fact.amount_minor,
                "currency": fact.currency,
                "detail": fact.detail,
                "due_at": fact.at,
                "lease_until": fact.at,
                "purge_at": fact.at + timedelta(days=KEPT_DAYS),
                "attempts": 0,
                "done": [],
                "sent": [],
                "unsure": False,
            }
            await self._rows.update_one({"_id": fact.id}, {"$setOnInsert": row}, upsert=True, session=session)

    async def claim(self, now: datetime, *, lease: str, lease_until: datetime) -> Todo | None:
        """Take the fact that has been due for longest, for this worker alone until then."""
        found = await self._rows.find_one_and_update(
            {"due_at": {"$lte": now}, "lease_until": {"$lte": now}},
            {"$set": {"lease": lease, "lease_until": lease_until}, "$inc": {"attempts": 1}},
            sort=[("due_at", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return _todo(found) if found else None

    async def begin_unsure(self, todo: Todo) -> bool:
        """Say that from now on an SMS may be out. False: it is another worker's, and nothing may be sent."""
        mine = {"_id": todo.fact.id, "lease": todo.lease}
        return (await self._rows.update_one(mine, {"$set": {"unsure": True}})).matched_count == 1

    async def settle(
        self,
        todo: Todo,
        *,
        done: Collection[str],
        sent: Collection[str],
        unsure: bool,
        next_at: datetime | None,
        now: datetime,
    ) -> bool:
        """Give it back: finished, or due again at ``next_at``. False: it is no longer this worker's."""
        change: Document = {
            "$set": {"done": sorted(done), "unsure": unsure, "lease_until": now},
            "$addToSet": {"sent": {"$each": sorted(sent)}},
            "$unset": {"lease": ""},
        }
        if next_at is None:
            change["$unset"]["due_at"] = ""
        else:
            change["$set"]["due_at"] = next_at
        mine = {"_id": todo.fact.id, "lease": todo.lease}
        return (await self._rows.update_one(mine, change)).matched_count == 1

    async def overdue(self, now: datetime) -> Overdue:
        """What is due and not sent."""
        return await overdue(self._rows, now)

    async def sent_since(self, user_id: str, way: str, since: datetime) -> int:
        """How many facts of the time after ``since`` a person was told by a way."""
        return int(await self._rows.count_documents({"user_id": user_id, "at": {"$gt": since}, "sent": way}))

    # -------------------------------------------------------------------------------------------------------- settings

    async def settings(self, user_id: str) -> Settings:
        """What somebody wants; who never said gets what is usual."""
        found = await self._settings.find_one({"_id": user_id})
        return Settings(email=found["email"], sms=found["sms"]) if found else Settings()

    async def set_settings(self, user_id: str, settings: Settings) -> None:
        """Keep what somebody wants."""
        row = {"email": settings.email, "sms": settings.sms}
        await self._settings.update_one({"_id": user_id}, {"$set": row}, upsert=True)

    async def drop_of_sessions(self, session_ids: Collection[str], transaction: Session) -> None:
        """Notices are the person's and not a sign-in's."""

    async def drop_all(self, user_id: str, transaction: Session) -> None:
        """Remove what is the person's, whose account is deleted."""
        await self._rows.delete_many({"user_id": user_id}, session=transaction)
        await self._settings.delete_one({"_id": user_id}, session=transaction)


def _todo(d: Document) -> Todo:
    fact = Fact(
        id=d["_id"],
        user_id=d["user_id"],
        what=What(d["what"]),
        at=d["at"],
        amount_minor=d["amount_minor"],
        currency=d["currency"],
        detail=d["detail"],
    )
    return Todo(
        fact=fact, attempts=d["attempts"], done=frozenset(d["done"]), unsure=d["unsure"], lease=d["lease"]
    )

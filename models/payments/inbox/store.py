"""The notifications of gateways in MongoDB, by their very bytes. One event is one row, however often it comes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pymongo import ReturnDocument

from models.backlog.store import Overdue, overdue
from models.db import Database, Document, collection, index
from models.payments.gateway import About, Notice

# Longer than any gateway delivers again what it has told, and long enough for a person to look something up.
KEPT_DAYS = 90


class Stage(StrEnum):
    """Where a notification is. ``UNMATCHED``: we know nothing of what it is about. ``LEFT``: given up."""

    NEW = "new"
    DONE = "done"
    UNMATCHED = "unmatched"
    LEFT = "left"


INBOX = collection(
    "inbox",
    index("due_at", where={"due_at": {"$type": "date"}}),
    index("stage", "-at"),
    index("expires_at", ttl_seconds=0),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "gateway", "raw", "about", "stage", "at", "deliveries", "expires_at"],
            "properties": {
                "_id": {"bsonType": "string"},
                "raw": {"bsonType": "binData"},
                "about": {"enum": [about.value for about in About]},
                "stage": {"enum": [stage.value for stage in Stage]},
                "due_at": {"bsonType": ["date", "null"]},
            },
        }
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One notification that is to be worked off, and how often that was tried."""

    id: str
    gateway: str
    notice: Notice
    stage: Stage
    at: datetime
    tries: int


class InboxStore:
    """Keeps notifications, and gives them out to be worked off."""

    def __init__(self, db: Database) -> None:
        self._inbox = db[INBOX]

    async def keep(self, row_id: str, gateway: str, notice: Notice, raw: bytes, now: datetime) -> bool:
        """Keep a notification; False when it was kept before. One that nobody knew anything of is tried again."""
        row: Document = {
            "_id": row_id,
            "gateway": gateway,
            "raw": raw,
            "about": notice.about.value,
            "word": notice.word,
            "event": notice.id,
            "reference": notice.reference,
            "gateway_reference": notice.gateway_reference,
            "stage": Stage.NEW.value,
            "at": now,
            "said_at": notice.at,
            "due_at": now,
            "tries": 0,
            "expires_at": now + timedelta(days=KEPT_DAYS),
        }
        # By one exchange, however often it comes: most of what gateways send was sent before.
        lost = {"$in": ["$stage", [Stage.UNMATCHED.value, Stage.LEFT.value]]}
        again = {"stage": Stage.NEW.value, "due_at": now, "tries": 0}
        merged = [
            {"$literal": row},
            "$$ROOT",
            {"deliveries": {"$add": [{"$ifNull": ["$deliveries", 0]}, 1]}},
            {"$cond": [lost, {"$literal": again}, {}]},
        ]
        kept = await self._inbox.update_one(
            {"_id": row_id}, [{"$replaceWith": {"$mergeObjects": merged}}], upsert=True
        )
        return kept.upserted_id is not None

    async def claim(self, now: datetime, until: datetime) -> Told | None:
        """The one that is due the longest, for whoever asks until ``until``."""
        found = await self._inbox.find_one_and_update(
            {"due_at": {"$type": "date", "$lte": now}},
            {"$set": {"due_at": until}},
            sort=[("due_at", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return _told(found) if found else None

    async def overdue(self, now: datetime) -> Overdue:
        """What is due and not done."""
        return await overdue(self._inbox, now, where={"due_at": {"$type": "date", "$lte": now}})

    async def later(self, told: Told, at: datetime) -> None:
        """Try it again then."""
        await self._inbox.update_one({"_id": told.id}, {"$set": {"due_at": at, "tries": told.tries + 1}})

    async def end(self, told: Told, stage: Stage) -> None:
        """It is worked off, or given up."""
        await self._inbox.update_one({"_id": told.id}, {"$set": {"stage": stage.value, "due_at": None}})

    async def newest(self, limit: int, *, stage: Stage | None = None) -> list[Told]:
        """The newest notifications, only those in a stage, at most ``limit``."""
        query: Document = {} if stage is None else {"stage": stage.value}
        cursor = self._inbox.find(query, sort=[("at", -1)]).limit(limit)
        return [_told(d) async for d in cursor]


def _told(d: Document) -> Told:
    notice = Notice(
        id=d["event"],
        about=About(d["about"]),
        word=d["word"],
        reference=d["reference"],
        gateway_reference=d["gateway_reference"],
        at=d["said_at"],
    )
    return Told(
        id=d["_id"],
        gateway=d["gateway"],
        notice=notice,
        stage=Stage(d["stage"]),
        at=d["at"],
        tries=d["tries"],
    )

"""To-dos of messages in MongoDB: one document per person and conversation.

``waiting`` are the numbers of messages not told yet, ``newest`` is the last of them, ``done_seq`` is how far the
person knows: read, or told. A number up to there, or one that waits already, changes nothing, so whoever is not sure
of having told may tell again. ``due_at`` is there while something waits; leases are as in models/notify/rings/store.py.

The changes are pipelines: each is one guarded step in the database however many processes make it. What people wrote
goes in as ``$literal``, or a text that begins with ``$`` would be read as the name of a field.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError

from models.backlog.store import Overdue, overdue
from models.db import Database, Document, DuplicateKeyError, collection, index
from models.notify.messages.bundle import Bundle, News
from models.notify.messages.rules import COUNT_MAX, FIRST_WAIT, SPACING

BUNDLES = collection(
    "push_messages",
    # _id is user and conversation.
    index("due_at", where={"due_at": {"$exists": True}}),
    index("purge_at", ttl_seconds=0),
)
# A document is also the memory of what was told; nobody tells a message again after so long.
KEPT = timedelta(days=8)
# Numbers that wait; what is dropped is only missing in the count, of which no more is said than COUNT_MAX.
WAITING_MAX = COUNT_MAX + 1
_DUPLICATE_KEY = 11000

_WAITING = {"$ifNull": ["$waiting", []]}
_DONE = {"$ifNull": ["$done_seq", -1]}
# Nothing waits: nothing is due, and what people wrote is not kept here any longer.
_NOTHING_WAITS = {"$eq": [{"$size": "$waiting"}, 0]}
_WHILE_WAITING = {
    "due_at": {"$cond": [_NOTHING_WAITS, "$$REMOVE", "$due_at"]},
    "newest": {"$cond": [_NOTHING_WAITS, "$$REMOVE", "$newest"]},
}


class BundleStore:
    """Keeps, leases and settles bundles."""

    def __init__(self, db: Database) -> None:
        self._rows = db[BUNDLES]

    async def add(
        self, news: News, *, conversation_id: str, user_ids: Collection[str], now: datetime
    ) -> None:
        """Keep a message to be told to these people. Repeating it changes nothing."""
        writes = [
            UpdateOne(
                {"_id": _key(user_id, conversation_id)},
                _added(news, user_id, conversation_id, now),
                upsert=True,
            )
            for user_id in user_ids
        ]
        try:
            await self._rows.bulk_write(writes, ordered=False)
        except BulkWriteError as fault:
            # Another process made one of the documents at this very moment; now all are there.
            if any(error["code"] != _DUPLICATE_KEY for error in fault.details["writeErrors"]):
                raise
            await self._rows.bulk_write(writes, ordered=False)

    async def read(self, *, user_id: str, conversation_id: str, seq: int, now: datetime) -> None:
        """The person knows all up to ``seq``: nothing of it is to be told any more, nor kept to be told later."""
        change: list[Document] = [
            {
                "$set": {
                    **_owner(user_id, conversation_id, now),
                    "done_seq": {"$max": [_DONE, seq]},
                    "waiting": _beyond(seq),
                }
            },
            {"$set": _WHILE_WAITING},
        ]
        key = {"_id": _key(user_id, conversation_id)}
        try:
            await self._rows.update_one(key, change, upsert=True)
        except DuplicateKeyError:  # made by another process at this very moment
            await self._rows.update_one(key, change)

    async def unsay(self, *, user_ids: Collection[str], conversation_id: str, message_id: str) -> None:
        """Keep no longer what a message said."""
        keys = [_key(user_id, conversation_id) for user_id in user_ids]
        await self._rows.update_many(
            {"_id": {"$in": keys}, "newest.message_id": message_id}, {"$set": {"newest.preview": None}}
        )

    async def claim(self, now: datetime, *, lease: str, lease_until: datetime) -> Bundle | None:
        """Take the bundle that has been due for longest, for this worker alone until ``lease_until``."""
        found = await self._rows.find_one_and_update(
            {"due_at": {"$lte": now}, "lease_until": {"$lte": now}},
            {"$set": {"lease": lease, "lease_until": lease_until}, "$inc": {"attempts": 1}},
            sort=[("due_at", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return _bundle(found) if found else None

    async def overdue(self, now: datetime) -> Overdue:
        """What is due and not done."""
        return await overdue(self._rows, now)

    async def finish(self, bundle: Bundle, *, now: datetime) -> bool:
        """All of the bundle is told. What came since then is due a little later. False: no longer this worker's."""
        head = bundle.newest.seq
        change: list[Document] = [
            {
                "$set": {
                    "done_seq": {"$max": [_DONE, head]},
                    "waiting": _beyond(head),
                    "told_at": now,
                    "due_at": now + SPACING,
                    "attempts": 0,
                    "told": [],
                    "refused": [],
                    "lease_until": now,
                }
            },
            {"$set": _WHILE_WAITING},
            {"$unset": "lease"},
        ]
        return (
            await self._rows.update_one({"_id": bundle.id, "lease": bundle.lease}, change)
        ).matched_count == 1

    async def postpone(
        self,
        bundle: Bundle,
        *,
        told: Collection[str],
        refused: Collection[str],
        next_at: datetime,
        now: datetime,
    ) -> bool:
        """Give the bundle back until ``next_at``, unless it was read meanwhile. False: no longer this worker's."""
        change: list[Document] = [
            {
                "$set": {
                    "told": {"$literal": sorted(told)},
                    "refused": {"$literal": sorted(refused)},
                    "told_head": bundle.newest.seq,
                    "lease_until": now,
                    "due_at": next_at,
                }
            },
            {"$set": _WHILE_WAITING},
            {"$unset": "lease"},
        ]
        return (
            await self._rows.update_one({"_id": bundle.id, "lease": bundle.lease}, change)
        ).matched_count == 1


def _key(user_id: str, conversation_id: str) -> str:
    return f"{user_id}:{conversation_id}"


def _owner(user_id: str, conversation_id: str, now: datetime) -> Document:
    return {
        "user_id": {"$literal": user_id},
        "conversation_id": {"$literal": conversation_id},
        "lease_until": {"$ifNull": ["$lease_until", now]},
        "purge_at": now + KEPT,
    }


def _beyond(seq: int) -> Document:
    return {"$filter": {"input": _WAITING, "cond": {"$gt": ["$$this", seq]}}}


def _added(news: News, user_id: str, conversation_id: str, now: datetime) -> list[Document]:
    newest = {
        "message_id": news.message_id,
        "seq": news.seq,
        "sender": dict(news.sender),
        "preview": news.preview,
        "title": news.title,
        "at": now,
    }
    spaced: Any = {"$add": ["$told_at", round(SPACING.total_seconds() * 1000)]}
    return [
        {"$set": {"known": {"$or": [{"$lte": [news.seq, _DONE]}, {"$in": [news.seq, _WAITING]}]}}},
        {
            "$set": {
                **_owner(user_id, conversation_id, now),
                "newest": {
                    "$cond": [
                        {"$or": ["$known", {"$gt": [{"$ifNull": ["$newest.seq", -1]}, news.seq]}]},
                        "$newest",
                        {"$literal": newest},
                    ]
                },
                "waiting": {
                    "$cond": [
                        "$known",
                        _WAITING,
                        {"$slice": [{"$concatArrays": [_WAITING, [news.seq]]}, -WAITING_MAX]},
                    ]
                },
                "due_at": {
                    "$cond": [
                        "$known",
                        "$due_at",
                        {"$ifNull": ["$due_at", {"$max": [now + FIRST_WAIT, spaced]}]},
                    ]
                },
            }
        },
        {"$unset": "known"},
    ]


def _bundle(d: Document) -> Bundle:
    newest = d["newest"]
    # Who was told of an older message than the newest is to be told of this one.
    same = d.get("told_head") == newest["seq"]
    return Bundle(
        id=d["_id"],
        user_id=d["user_id"],
        conversation_id=d["conversation_id"],
        newest=News(
            message_id=newest["message_id"],
            seq=newest["seq"],
            sender=newest["sender"],
            preview=newest["preview"],
            title=newest["title"],
        ),
        newest_at=newest["at"],
        seqs=tuple(d["waiting"]),
        count=len(d["waiting"]),
        attempts=d["attempts"],
        told=frozenset(d.get("told", []) if same else []),
        refused=frozenset(d.get("refused", []) if same else []),
        lease=d["lease"],
    )

"""Letters in MongoDB.

A user's numbers are dense: letter ``n + 1`` is inserted by somebody who knows that ``n`` exists, under the unique
key (user, seq), so a reader that sees a number has seen every smaller one. That is why a device may keep just the
last number it handled. A second unique key (user, letter key) makes posting twice impossible.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Any

from models.db import Database, Document, DuplicateKeyError, collection, index
from models.ports import Letter

LETTERS = collection(
    "letters",
    index("user_id", "seq", unique=True),
    index("user_id", "key", unique=True),
    index("posted_at"),
)
MAILBOXES = collection("mailboxes")

# A phone that was away for longer is told ``gap: true`` and reads histories instead.
KEPT_DAYS = 7
# What one replay brings at most; a device further behind is told ``gap: true``.
REPLAY_MAX = 500
# What one look at the other processes' letters brings at most.
FETCH_MAX = 5_000
# Last numbers remembered in memory, to save a read per letter; least recently used go first.
HEADS_MAX = 50_000


class MailboxStore:
    """Reads and appends letters."""

    def __init__(self, db: Database, process: str = "") -> None:
        self._letters = db[LETTERS]
        self._mailboxes = db[MAILBOXES]
        self._process = process
        self._heads: OrderedDict[str, int] = OrderedDict()

    async def append(self, letter: Letter, now: datetime) -> int | None:
        """Append one letter; its number, or None when its key was there already."""
        assert letter.key is not None, "only a letter with a key is kept"
        head = self._heads.get(letter.user_id)
        if head is None:
            head = await self.head(letter.user_id)
        while True:
            head += 1
            try:
                await self._letters.insert_one({**_document(letter, head, now), "by": self._process})
            except DuplicateKeyError as error:
                if "key" in ((error.details or {}).get("keyPattern") or {}):
                    return None
                head = await self.head(letter.user_id)  # another process wrote; go behind it
                continue
            self._remember(letter.user_id, head)
            return head

    async def head(self, user_id: str) -> int:
        """The user's last number, 0 before the first letter."""
        newest = await self._letters.find_one({"user_id": user_id}, {"seq": 1}, sort=[("seq", -1)])
        return int(newest["seq"]) if newest else await self._trimmed_to(user_id)

    async def number_of(self, user_id: str, key: str) -> int | None:
        """The number of the letter with that key."""
        found = await self._letters.find_one({"user_id": user_id, "key": key}, {"seq": 1})
        return int(found["seq"]) if found else None

    async def since(self, user_id: str, seq: int) -> list[Letter]:
        """The letters after ``seq``, oldest first, at most ``REPLAY_MAX``."""
        cursor = self._letters.find({"user_id": user_id, "seq": {"$gt": seq}}, sort=[("seq", 1)]).limit(
            REPLAY_MAX
        )
        return [_letter(document) async for document in cursor]

    async def from_others(self, since: datetime) -> list[Letter]:
        """What other processes have posted at or after ``since``, in order for each user."""
        query = {"posted_at": {"$gte": since}, "by": {"$ne": self._process}}
        cursor = self._letters.find(query, sort=[("posted_at", 1), ("seq", 1)]).limit(FETCH_MAX)
        return [_letter(document) async for document in cursor]

    async def of_calls(self, user_id: str, call_ids: list[str], event: str) -> list[Letter]:
        """The user's letters of one event about the given calls, oldest first."""
        cursor = self._letters.find(
            {"user_id": user_id, "call_id": {"$in": call_ids}, "event": event}, sort=[("seq", -1)]
        ).limit(len(call_ids))
        return [_letter(document) async for document in cursor][::-1]

    async def oldest_after(self, user_id: str) -> int:
        """The number up to which letters of the user may have been thrown away."""
        return await self._trimmed_to(user_id)

    async def trim(self, now: datetime) -> int:
        """Throw away letters older than ``KEPT_DAYS``; how many went. The user's number keeps rising after it."""
        horizon = now - timedelta(days=KEPT_DAYS)
        users = await self._letters.distinct("user_id", {"posted_at": {"$lt": horizon}})
        gone = 0
        for user_id in users:
            newest = await self._letters.find_one(
                {"user_id": user_id, "posted_at": {"$lt": horizon}}, {"seq": 1}, sort=[("seq", -1)]
            )
            if newest is None:
                continue
            # The mark goes first: a crash in between keeps letters too long, never a silent hole.
            await self._mailboxes.update_one(
                {"_id": user_id}, {"$max": {"trimmed_to": newest["seq"]}}, upsert=True
            )
            result = await self._letters.delete_many({"user_id": user_id, "seq": {"$lte": newest["seq"]}})
            gone += result.deleted_count
        return gone

    async def _trimmed_to(self, user_id: str) -> int:
        mark = await self._mailboxes.find_one({"_id": user_id}, {"trimmed_to": 1})
        return int(mark["trimmed_to"]) if mark else 0

    def _remember(self, user_id: str, head: int) -> None:
        self._heads[user_id] = max(head, self._heads.get(user_id, 0))
        self._heads.move_to_end(user_id)
        if len(self._heads) > HEADS_MAX:
            self._heads.popitem(last=False)


def _document(letter: Letter, seq: int, now: datetime) -> Document:
    document: dict[str, Any] = {
        "user_id": letter.user_id,
        "seq": seq,
        "key": letter.key,
        "event": letter.event,
        "payload": dict(letter.payload),
        "posted_at": now,
    }
    for name in ("only_device", "except_device", "call_id", "rings_until"):
        value = getattr(letter, name)
        if value is not None:
            document[name] = value
    return document


def _letter(document: Document) -> Letter:
    return Letter(
        user_id=document["user_id"],
        event=document["event"],
        payload=document["payload"],
        key=document["key"],
        only_device=document.get("only_device"),
        except_device=document.get("except_device"),
        call_id=document.get("call_id"),
        rings_until=document.get("rings_until"),
        seq=document["seq"],
    )

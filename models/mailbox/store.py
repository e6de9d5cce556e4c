"""Letters in MongoDB.

A user's numbers are dense: letter ``n + 1`` is inserted by somebody who knows that ``n`` exists, under the unique
key (user, seq), so a reader that sees a number has seen every smaller one. That is why a device may keep just the
last number it handled. A second unique key (user, letter key) makes posting twice impossible.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pymongo.errors import BulkWriteError

from models.db import Database, Document, DuplicateKeyError, collection, index
from models.ports import Letter

LETTERS = collection(
    "letters",
    index("user_id", "seq", unique=True),
    index("user_id", "key", unique=True),
    index("posted_at", "seq"),
)
MAILBOXES = collection("mailboxes")

# A phone that was away for longer is told ``gap: true`` and reads histories instead.
KEPT_DAYS = 7
# What one look into the log brings at most.
PAGE_MAX = 500
# What one insert takes: a busy group's letters in one exchange, and yet not long enough for others to wait for.
BATCH_MAX = 1_000
_DUPLICATE_KEY = 11000
_AFTER_COLON = chr(ord(":") + 1)
# What one exchange of a look at the other processes' letters brings at most.
FETCH_MAX = 5_000
# Last numbers remembered in memory, to save a read per letter; least recently used go first.
HEADS_MAX = 50_000
# A remembered number is one to go on from because whatever others have posted behind it stands in the way. What is
# thrown away does not, so a number is believed for much less time than a letter is kept.
HEADS_FOR = timedelta(hours=1)
assert timedelta(days=KEPT_DAYS) > 24 * HEADS_FOR


class MailboxStore:
    """Reads and appends letters."""

    def __init__(self, db: Database, process: str = "") -> None:
        self._letters = db[LETTERS]
        self._mailboxes = db[MAILBOXES]
        self._process = process
        self._heads: OrderedDict[str, tuple[int, datetime]] = OrderedDict()

    async def append(self, letter: Letter, now: datetime) -> int | None:
        """Append one letter; its number, or None when its key was there already."""
        assert letter.key is not None, "only a letter with a key is kept"
        head = self._remembered(letter.user_id, now)
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
            self._remember(letter.user_id, head, now)
            return head

    async def append_all(self, letters: Sequence[Letter], now: datetime) -> list[int | None]:
        """Append letters, each user's in their order; their numbers, None for one whose key was there already.

        One exchange for all of them as long as nobody else writes to the same people: in an ordered insert nothing
        behind the first obstacle is tried, so whatever happens nobody's numbers have a hole.
        """
        numbers: list[int | None] = [None] * len(letters)
        left = sorted(range(len(letters)), key=lambda place: letters[place].user_id)
        heads: dict[str, int] = {}
        while left:
            batch = left[:BATCH_MAX]
            await self._learn({letters[place].user_id for place in batch}, heads, now)
            rows = []
            for place in batch:
                letter = letters[place]
                heads[letter.user_id] += 1
                rows.append({**_document(letter, heads[letter.user_id], now), "by": self._process})
            kept, known = await self._insert(rows)
            for place, row in zip(batch[:kept], rows[:kept], strict=True):
                numbers[place] = row["seq"]
                self._remember(row["user_id"], row["seq"], now)
            if kept < len(batch):
                for place in batch[kept:]:
                    heads.pop(letters[place].user_id, None)  # read anew: who stood in the way has written
                    self._heads.pop(letters[place].user_id, None)
            left = left[kept + known :]
        return numbers

    async def _insert(self, rows: list[Document]) -> tuple[int, bool]:
        """Insert in order up to the first obstacle: how many, and whether the next one is there already by its key."""
        try:
            await self._letters.insert_many(rows, ordered=True)
        except BulkWriteError as error:
            errors = (error.details or {}).get("writeErrors") or []
            if not errors or errors[0]["code"] != _DUPLICATE_KEY:
                raise
            return errors[0]["index"], "key" in errors[0]["keyPattern"]
        return len(rows), False

    async def _learn(self, user_ids: set[str], heads: dict[str, int], now: datetime) -> None:
        """Put the last numbers of these users into ``heads``, from memory or from the database."""
        for user_id in user_ids - heads.keys():
            head = self._remembered(user_id, now)
            if head is not None:
                heads[user_id] = head
        unknown = sorted(user_ids - heads.keys())
        heads.update(zip(unknown, await asyncio.gather(*map(self.head, unknown)), strict=True))

    async def redact(self, user_ids: Collection[str], key: str, changes: Mapping[str, Any]) -> None:
        """Change fields in the payloads of letters with this key, or with one that goes on behind it after a colon."""
        await self._letters.update_many(
            {"user_id": {"$in": list(user_ids)}, "key": _span(key)},
            {"$set": {f"payload.{name}": value for name, value in changes.items()}},
        )

    async def holders(self, user_ids: Collection[str], key: str) -> set[str]:
        """Those of the users who have a letter with this key, or with one that goes on behind it after a colon."""
        query = {"user_id": {"$in": list(user_ids)}, "key": _span(key)}
        return {row["user_id"] async for row in self._letters.find(query, {"user_id": 1})}

    async def head(self, user_id: str) -> int:
        """The user's last number, 0 before the first letter."""
        newest = await self._letters.find_one({"user_id": user_id}, {"seq": 1}, sort=[("seq", -1)])
        return int(newest["seq"]) if newest else await self.trimmed_to(user_id)

    async def number_of(self, user_id: str, key: str) -> int | None:
        """The number of the letter with that key."""
        found = await self._letters.find_one({"user_id": user_id, "key": key}, {"seq": 1})
        return int(found["seq"]) if found else None

    async def numbers_of(self, letters: Sequence[Letter]) -> dict[tuple[str, str], int]:
        """The numbers of those of the letters that are there already, by user and key."""
        found: dict[tuple[str, str], int] = {}
        for start in range(0, len(letters), BATCH_MAX):
            batch = letters[start : start + BATCH_MAX]
            query = {
                "user_id": {"$in": sorted({letter.user_id for letter in batch})},
                "key": {"$in": sorted({letter.key for letter in batch if letter.key is not None})},
            }
            async for row in self._letters.find(query, {"user_id": 1, "key": 1, "seq": 1}):
                found[row["user_id"], row["key"]] = int(row["seq"])
        return found

    async def since(self, user_id: str, seq: int) -> list[Letter]:
        """The letters after ``seq``, oldest first, at most ``PAGE_MAX``."""
        query = {"user_id": user_id, "seq": {"$gt": seq}}
        cursor = self._letters.find(query, sort=[("seq", 1)]).limit(PAGE_MAX)
        return [_letter(document) async for document in cursor]

    async def count_for(self, user_id: str, device_id: str, *, after: int, upto: int) -> int:
        """How many letters after one number and up to another are for this device."""
        query = {
            "user_id": user_id,
            "seq": {"$gt": after, "$lte": upto},
            "only_device": {"$in": [None, device_id]},
            "except_device": {"$ne": device_id},
        }
        return await self._letters.count_documents(query)

    async def from_others(self, since: datetime) -> AsyncIterator[Letter]:
        """All that other processes have posted at or after ``since``, in order for each user."""
        query = {"posted_at": {"$gte": since}, "by": {"$ne": self._process}}
        order = [("posted_at", 1), ("seq", 1)]
        async for document in self._letters.find(query, sort=order, batch_size=FETCH_MAX):
            yield _letter(document)

    async def of_calls(self, user_id: str, call_ids: list[str], event: str) -> list[Letter]:
        """The user's letters of one event about the given calls, oldest first."""
        cursor = self._letters.find(
            {"user_id": user_id, "call_id": {"$in": call_ids}, "event": event}, sort=[("seq", -1)]
        ).limit(len(call_ids))
        return [_letter(document) async for document in cursor][::-1]

    async def trim(self, now: datetime) -> int:
        """Throw away letters older than ``KEPT_DAYS``; how many went. The user's number keeps rising after it."""
        horizon = now - timedelta(days=KEPT_DAYS)
        newest_old: list[Document] = [
            {"$match": {"posted_at": {"$lt": horizon}}},
            {"$group": {"_id": "$user_id", "seq": {"$max": "$seq"}}},
        ]
        gone = 0
        async for old in await self._letters.aggregate(newest_old, allowDiskUse=True):
            user_id, seq = old["_id"], old["seq"]
            # The mark goes first: a crash in between keeps letters too long, never a silent hole.
            await self._mailboxes.update_one({"_id": user_id}, {"$max": {"trimmed_to": seq}}, upsert=True)
            result = await self._letters.delete_many({"user_id": user_id, "seq": {"$lte": seq}})
            gone += result.deleted_count
        return gone

    async def trimmed_to(self, user_id: str) -> int:
        """The number up to which letters of the user may have been thrown away."""
        mark = await self._mailboxes.find_one({"_id": user_id}, {"trimmed_to": 1})
        return int(mark["trimmed_to"]) if mark else 0

    def _remembered(self, user_id: str, now: datetime) -> int | None:
        """The last number that this process knows of a user, if it is young enough to go on from."""
        head, at = self._heads.get(user_id, (0, now))
        return head if head and timedelta(0) <= now - at < HEADS_FOR else None

    def _remember(self, user_id: str, head: int, now: datetime) -> None:
        if head >= self._heads.get(user_id, (0, now))[0]:
            self._heads[user_id] = (head, now)
        self._heads.move_to_end(user_id)
        if len(self._heads) > HEADS_MAX:
            self._heads.popitem(last=False)


def _span(key: str) -> Document:
    """This key, and those that go on behind it after a colon."""
    return {"$gte": key, "$lt": key + _AFTER_COLON}


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

"""What is written in rooms, in MongoDB: dense numbers per room, the way of the chat's.

Message ``n + 1`` is inserted by somebody who knows that ``n`` is there, under the unique key (room, seq). A second
unique key (room, sender, opId) makes sending twice impossible. ``tell_at`` is there until the message is told.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from pymongo import ReturnDocument

from models.db import Database, Document, DuplicateKeyError, collection, index

LINES = collection(
    "room_messages",
    index("room_id", "seq", unique=True),
    index("room_id", "sender_id", "op_id", unique=True, where={"op_id": {"$type": "string"}}),
    index("tell_at", where={"tell_at": {"$exists": True}}),
)

# More than a request may take: until then the one who wrote the message is at it.
TELL_SECONDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A message in a room. ``hidden_from`` are those who knew the room and between whom and the sender a block stood
    when it was written.
    """

    id: str
    room_id: str
    seq: int
    sender_id: str
    device_id: str
    text: str
    op_id: str | None
    hidden_from: frozenset[str]
    created_at: datetime
    told: bool = True


class TalkStore:
    """Reads and appends."""

    def __init__(self, db: Database) -> None:
        self._lines = db[LINES]

    async def append(self, line: Line) -> Line | None:
        """Append a message at the next number; None when its sender has used the ``opId`` in this room before."""
        row: Document = {
            "_id": line.id,
            "room_id": line.room_id,
            "sender_id": line.sender_id,
            "device_id": line.device_id,
            "text": line.text,
            "hidden_from": sorted(line.hidden_from),
            "created_at": line.created_at,
            "tell_at": line.created_at + timedelta(seconds=TELL_SECONDS),
            **({"op_id": line.op_id} if line.op_id is not None else {}),
        }
        while True:
            row["seq"] = await self._head(line.room_id) + 1
            try:
                await self._lines.insert_one(row)
            except DuplicateKeyError as error:
                if "op_id" in ((error.details or {}).get("keyPattern") or {}):
                    return None
                continue  # another process wrote; go behind it
            return _line_of(row)

    async def by_op(self, room_id: str, sender_id: str, op_id: str) -> Line | None:
        """The message that was sent with this ``opId``."""
        found = await self._lines.find_one({"room_id": room_id, "sender_id": sender_id, "op_id": op_id})
        return _line_of(found) if found else None

    async def told(self, line_id: str) -> None:
        """A message has been told."""
        await self._lines.update_one({"_id": line_id}, {"$unset": {"tell_at": ""}})

    async def claim_untold(self, now: datetime) -> Line | None:
        """A message that nobody has told in time; others leave it to the caller for ``TELL_SECONDS``."""
        found = await self._lines.find_one_and_update(
            {"tell_at": {"$lte": now}},
            {"$set": {"tell_at": now + timedelta(seconds=TELL_SECONDS)}},
            sort=[("tell_at", 1), ("seq", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return _line_of(found) if found else None

    async def page(
        self,
        room_id: str,
        viewer_id: str,
        *,
        before: int | None,
        after: int | None,
        most: int,
        without: Collection[str] = (),
    ) -> list[Line]:
        """Messages for ``viewer_id``: newest first below ``before``, or oldest first above ``after``; none of those by
        people in ``without``.
        """
        query: Document = {"room_id": room_id, "hidden_from": {"$ne": viewer_id}}
        if without:
            query["sender_id"] = {"$nin": list(without)}
        if before is not None:
            query["seq"] = {"$lt": before}
        if after is not None:
            query["seq"] = {"$gt": after}
        cursor = self._lines.find(query, sort=[("seq", 1 if after is not None else -1)]).limit(most)
        return [_line_of(d) async for d in cursor]

    async def _head(self, room_id: str) -> int:
        newest = await self._lines.find_one({"room_id": room_id}, {"seq": 1}, sort=[("seq", -1)])
        return int(newest["seq"]) if newest else 0


def _line_of(d: Document) -> Line:
    return Line(
        id=d["_id"],
        room_id=d["room_id"],
        seq=d["seq"],
        sender_id=d["sender_id"],
        device_id=d["device_id"],
        text=d["text"],
        op_id=d.get("op_id"),
        hidden_from=frozenset(d["hidden_from"]),
        created_at=d["created_at"],
        told="tell_at" not in d,
    )

"""Messages in MongoDB.

Numbers are dense in the way of the mailbox: message ``n + 1`` is inserted by somebody who knows that ``n`` is there,
under the unique key (conversation, seq). A second unique key (sender, opId) makes sending twice impossible.

``tell_at`` is there until the message's letters are posted: then, at the latest, somebody else is to post them.
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta

from pymongo import ReturnDocument

from models.chat.message import Conversation, Message
from models.db import Database, Document, DuplicateKeyError, collection, index, taken

MESSAGES = collection(
    "messages",
    index("conversation_id", "seq", unique=True),
    index("sender_id", "op_id", unique=True),
    index("tell_at", where={"tell_at": {"$exists": True}}),
)
CONVERSATIONS = collection("conversations", index("members"))

# More than a request may take: until then the one who wrote the message is at it.
TELL_SECONDS = 10


class ChatStore:
    """Reads and appends messages."""

    def __init__(self, db: Database) -> None:
        self._messages = db[MESSAGES]
        self._conversations = db[CONVERSATIONS]

    async def conversation(self, conversation_id: str) -> Conversation | None:
        """A conversation that has begun."""
        found = await self._conversations.find_one({"_id": conversation_id})
        return Conversation(id=found["_id"], members=tuple(found["members"])) if found else None

    async def begin(self, conversation: Conversation, now: datetime) -> None:
        """Keep a conversation, unless it has begun already."""
        row = {"_id": conversation.id, "members": list(conversation.members), "created_at": now}
        with contextlib.suppress(DuplicateKeyError):
            await self._conversations.insert_one(row)

    async def by_op(self, sender_id: str, op_id: str) -> Message | None:
        """The message that was sent with this ``opId``."""
        found = await self._messages.find_one({"sender_id": sender_id, "op_id": op_id})
        return _message(found) if found else None

    async def append(
        self,
        conversation_id: str,
        *,
        message_id: str,
        sender_id: str,
        device_id: str,
        op_id: str,
        text: str,
        now: datetime,
    ) -> Message | None:
        """Append a message at the next number; None when its sender has used the ``opId`` before."""
        row: Document = {
            "_id": message_id,
            "conversation_id": conversation_id,
            "sender_id": sender_id,
            "device_id": device_id,
            "op_id": op_id,
            "text": text,
            "created_at": now,
            "tell_at": now + timedelta(seconds=TELL_SECONDS),
        }
        while True:
            row["seq"] = await self._head(conversation_id) + 1
            try:
                await self._messages.insert_one(row)
            except DuplicateKeyError as error:
                if taken(error) == "sender_id":
                    return None
                continue  # another process wrote; go behind it
            return _message(row)

    async def told(self, message: Message) -> None:
        """The letters of a message are posted."""
        await self._messages.update_one({"_id": message.id}, {"$unset": {"tell_at": ""}})

    async def is_told(self, message: Message) -> bool:
        """Whether the letters of a message are posted."""
        return (
            await self._messages.find_one({"_id": message.id, "tell_at": {"$exists": True}}, {"_id": 1})
            is None
        )

    async def claim_untold(self, now: datetime) -> Message | None:
        """A message whose letters nobody has posted in time; others leave it to the caller for ``TELL_SECONDS``."""
        found = await self._messages.find_one_and_update(
            {"tell_at": {"$lte": now}},
            {"$set": {"tell_at": now + timedelta(seconds=TELL_SECONDS)}},
            sort=[("tell_at", 1), ("seq", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return _message(found) if found else None

    async def history(self, conversation_id: str, *, before: int | None, most: int) -> list[Message]:
        """Messages of a conversation, newest first, below number ``before``."""
        query: Document = {"conversation_id": conversation_id}
        if before is not None:
            query["seq"] = {"$lt": before}
        cursor = self._messages.find(query, sort=[("seq", -1)]).limit(most)
        return [_message(document) async for document in cursor]

    async def _head(self, conversation_id: str) -> int:
        newest = await self._messages.find_one(
            {"conversation_id": conversation_id}, {"seq": 1}, sort=[("seq", -1)]
        )
        return int(newest["seq"]) if newest else 0


def _message(d: Document) -> Message:
    return Message(
        id=d["_id"],
        conversation_id=d["conversation_id"],
        seq=d["seq"],
        sender_id=d["sender_id"],
        device_id=d["device_id"],
        op_id=d["op_id"],
        text=d["text"],
        created_at=d["created_at"],
    )

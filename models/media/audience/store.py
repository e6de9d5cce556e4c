"""Files in messages, read from chat's collections.

A file is seen by whoever sees a message with it: so blocks, leaving and joining a group, and deleting the message
count for the file at once and in the same way as for the message, without any of it being kept a second time.
"""

from __future__ import annotations

from models.chat.conversations.store import ConversationStore
from models.chat.store import MESSAGES
from models.db import Database, Document


class MessageFiles:
    """``models.media.service.Audience``."""

    def __init__(self, db: Database) -> None:
        self._messages = db[MESSAGES]
        self._conversations = ConversationStore(db)

    async def sees(self, user_id: str, conversation_id: str, media_id: str) -> bool:
        """Whether the person may see a message of the conversation that has the file."""
        place = await self._conversations.membership(conversation_id, user_id)
        if place is None:
            return False
        seq: Document = {"$gt": place.joined_seq}
        if place.left_seq is not None:
            seq["$lte"] = place.left_seq
        return await self._any(conversation_id, media_id, {"seq": seq, "hidden_from": {"$ne": user_id}})

    async def carries(self, conversation_id: str, media_id: str) -> bool:
        """Whether a message of the conversation has the file; a deleted one has none."""
        return await self._any(conversation_id, media_id, {})

    async def _any(self, conversation_id: str, media_id: str, more: Document) -> bool:
        query = {"attachment.id": media_id, "conversation_id": conversation_id, **more}
        return await self._messages.find_one(query, {"_id": 1}) is not None

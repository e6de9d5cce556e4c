"""The list of somebody's conversations, read from MongoDB in one exchange: places, newest messages, unread counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from models.chat.conversations.conversation import Conversation, Membership
from models.chat.conversations.store import (
    CONVERSATIONS,
    MEMBERSHIPS,
    conversation_of,
    membership_of,
    place_key,
)
from models.chat.message import Message
from models.chat.store import MESSAGES, message_of
from models.db import Database, Document

# Beyond it an app shows "1000+" at most, and nobody waits for us to count.
UNREAD_MAX = 1000
# In how many conversations, the most lately active ones, a search looks and unread messages are counted in all.
CONVERSATIONS_MAX = 1000


@dataclass(frozen=True, slots=True)
class InboxRow:
    """A conversation in somebody's list: their place in it, the newest message that they see, what is unread."""

    conversation: Conversation
    mine: Membership
    last: Message | None
    unread: int


class InboxStore:
    """Reads what one person sees of all their conversations."""

    def __init__(self, db: Database) -> None:
        self._conversations = db[CONVERSATIONS]
        self._memberships = db[MEMBERSHIPS]

    async def inbox(self, user_id: str, *, after: tuple[datetime, str] | None, most: int) -> list[InboxRow]:
        """Somebody's conversations, newest activity first, behind ``after`` (an instant and an id)."""
        query: Document = {"members": user_id}
        if after is not None:
            at, last_id = after
            query["$or"] = [{"active_at": {"$lt": at}}, {"active_at": at, "_id": {"$lt": last_id}}]
        return await self._inbox(user_id, query, most)

    async def inbox_row(self, user_id: str, conversation_id: str) -> InboxRow | None:
        """One conversation as it would stand in somebody's list."""
        rows = await self._inbox(user_id, {"_id": conversation_id, "members": user_id}, 1)
        return rows[0] if rows else None

    async def places(self, user_id: str) -> list[Membership]:
        """Somebody's places in the conversations that were active last, at most ``CONVERSATIONS_MAX``."""
        cursor = self._conversations.find(
            {"members": user_id}, {"_id": 1}, sort=[("active_at", -1), ("_id", -1)]
        ).limit(CONVERSATIONS_MAX)
        keys = [place_key(row["_id"], user_id) async for row in cursor]
        return [membership_of(row) async for row in self._memberships.find({"_id": {"$in": keys}})]

    async def unread(self, user_id: str) -> tuple[int, int]:
        """How many messages somebody has not read, and in how many conversations."""
        pipeline: list[Document] = [
            {"$match": {"members": user_id}},
            {"$sort": {"active_at": -1, "_id": -1}},
            {"$limit": CONVERSATIONS_MAX},
            *_own_place(user_id),
            {"$match": {"$expr": {"$gt": ["$head_seq", "$mine.read_seq"]}}},
            *_count_unread(user_id),
            {"$match": {"unread": {"$gt": 0}}},
            {"$group": {"_id": None, "messages": {"$sum": "$unread"}, "conversations": {"$sum": 1}}},
        ]
        found = await (await self._conversations.aggregate(pipeline)).to_list()
        return (found[0]["messages"], found[0]["conversations"]) if found else (0, 0)

    async def _inbox(self, user_id: str, query: Document, most: int) -> list[InboxRow]:
        pipeline: list[Document] = [
            {"$match": query},
            {"$sort": {"active_at": -1, "_id": -1}},
            {"$limit": most},
            *_own_place(user_id),
            *_count_unread(user_id),
            {
                "$lookup": {
                    "from": MESSAGES,
                    "let": {"conversation": "$_id", "joined": "$mine.joined_seq"},
                    "pipeline": [
                        {"$match": {"$expr": _above("$$joined"), "hidden_from": {"$ne": user_id}}},
                        {"$sort": {"seq": -1}},
                        {"$limit": 1},
                    ],
                    "as": "last",
                }
            },
        ]
        cursor = await self._conversations.aggregate(pipeline)
        return [
            InboxRow(
                conversation_of(row),
                membership_of(row["mine"]),
                message_of(row["last"][0]) if row["last"] else None,
                row["unread"],
            )
            for row in await cursor.to_list()
        ]

    async def all_of(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Membership]:
        """The places named by (conversation, person)."""
        keys = [place_key(*pair) for pair in wanted]
        rows = self._memberships.find({"_id": {"$in": keys}})
        return {(row["conversation_id"], row["user_id"]): membership_of(row) async for row in rows}


def _above(floor: str) -> Document:
    return {"$and": [{"$eq": ["$conversation_id", "$$conversation"]}, {"$gt": ["$seq", floor]}]}


def _own_place(user_id: str) -> list[Document]:
    """Stages that add a person's place in a conversation as ``mine``."""
    return [
        {"$set": {"place": {"$concat": ["$_id", ":", user_id]}}},
        {"$lookup": {"from": MEMBERSHIPS, "localField": "place", "foreignField": "_id", "as": "mine"}},
        {"$unwind": "$mine"},
    ]


def _count_unread(user_id: str) -> list[Document]:
    """Stages that add how many messages a person has not read as ``unread``: of others, and there to be read."""
    counted = [
        {
            "$match": {
                "$expr": _above("$$floor"),
                "sender_id": {"$ne": user_id},
                "hidden_from": {"$ne": user_id},
                "deleted_at": {"$exists": False},
                "note": {"$exists": False},
            }
        },
        {"$limit": UNREAD_MAX},
        {"$count": "n"},
    ]
    floor = {"$max": ["$mine.read_seq", "$mine.joined_seq"]}
    let = {"conversation": "$_id", "floor": floor}
    return [
        {"$lookup": {"from": MESSAGES, "let": let, "pipeline": counted, "as": "counted"}},
        {"$set": {"unread": {"$ifNull": [{"$first": "$counted.n"}, 0]}}},
    ]

"""Conversations and memberships in MongoDB.

A conversation's row says who is in it now. Each person's place in it is a row of its own, ``{conversation}:{person}``,
because markers move far more often than members do. A change of a group is one transaction with the note that takes
its number in the row of messages.

``head_seq`` and ``active_at`` of a conversation follow its newest message, soon after it is kept: they order the list
of conversations and say where something may be unread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta

from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError

from models.also import Also
from models.chat.conversations.conversation import DIRECT, Conversation, Membership
from models.chat.rules import Change
from models.chat.store import DUPLICATE_KEY, TELL_SECONDS
from models.db import Database, Document, DuplicateKeyError, Session, collection, index

CONVERSATIONS = collection(
    "conversations",
    index("members", "-active_at", "-_id"),
    index("founder_id", "op_id", unique=True, where={"op_id": {"$exists": True}}),
)
MEMBERSHIPS = collection(
    "memberships",
    index("conversation_id", "joined_seq"),
    index("tell_at", where={"tell_at": {"$exists": True}}),
)


class ConversationStore:
    """Reads and changes conversations and memberships."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._conversations = db[CONVERSATIONS]
        self._memberships = db[MEMBERSHIPS]

    # ------------------------------------------------------------------------------------------------- conversations

    async def find(self, conversation_id: str) -> Conversation | None:
        """A conversation that has begun."""
        found = await self._conversations.find_one({"_id": conversation_id})
        return conversation_of(found) if found else None

    async def begin(self, conversation: Conversation, now: datetime) -> None:
        """Keep a pair's conversation, unless it has begun already."""
        # The places first: whoever finds the conversation finds them.
        places = [_place(conversation.id, user_id, 0) for user_id in conversation.members]
        try:
            await self._memberships.insert_many(places, ordered=False)
        except BulkWriteError as error:  # begun by the other one, or by one that died
            if any(fault["code"] != DUPLICATE_KEY for fault in (error.details or {})["writeErrors"]):
                raise
        row = {
            "_id": conversation.id,
            "kind": DIRECT,
            "members": list(conversation.members),
            "version": 1,
            "head_seq": 0,
            "created_at": now,
            "active_at": now,
        }
        with contextlib.suppress(DuplicateKeyError):
            await self._conversations.insert_one(row)

    async def found(
        self, change: Change, now: datetime, *, op_id: str | None, op_print: str, also: Also
    ) -> bool:
        """Keep a new group with its members and, by ``also``, its first note; False if its ``op_id`` was used."""
        group = change.after
        row: Document = {
            "_id": group.id,
            "founder_id": group.owner_id,
            "op_print": op_print,
            "created_at": now,
            "active_at": now,
            "head_seq": 1,
            **_changing(group),
        }
        if op_id is not None:
            row["op_id"] = op_id

        async def body(session: Session) -> None:
            await self._conversations.insert_one(row, session=session)
            await self._memberships.insert_many(
                [_place(group.id, user_id, 0) for user_id in group.members], session=session
            )
            await also(session)

        try:
            await self._db.transaction(body)
        except DuplicateKeyError:
            return False
        return True

    async def founded(self, founder_id: str, op_id: str) -> tuple[Conversation, str] | None:
        """The group that was founded with this ``opId``, and what was asked for with it."""
        found = await self._conversations.find_one({"founder_id": founder_id, "op_id": op_id})
        return (conversation_of(found), found["op_print"]) if found else None

    async def change(
        self, before: Conversation, change: Change, seq: int, now: datetime, *, also: Also
    ) -> bool:
        """Make a change whose note has number ``seq`` and is kept by ``also``; False when another came before it."""
        after = change.after

        async def body(session: Session) -> None:
            done = await self._conversations.update_one(
                {"_id": before.id, "version": before.version},
                {"$set": {**_changing(after), "active_at": now}, "$max": {"head_seq": seq}},
                session=session,
            )
            if not done.matched_count:
                raise _Overtaken
            places = [
                UpdateOne(
                    {"_id": place_key(before.id, user_id)},
                    {"$set": _place(before.id, user_id, seq - 1), "$unset": {"left_seq": "", "tell_at": ""}},
                    upsert=True,
                )
                for user_id in change.came
            ]
            places += [
                UpdateOne({"_id": place_key(before.id, user_id)}, {"$set": {"left_seq": seq}})
                for user_id in change.went
            ]
            if places:
                await self._memberships.bulk_write(places, session=session)
            await also(session)

        try:
            await self._db.transaction(body)
        except (_Overtaken, DuplicateKeyError):
            return False
        return True

    async def active(self, conversation_id: str, head: int, at: datetime) -> None:
        """The conversation's newest message has number ``head`` and was sent at ``at``."""
        await self._conversations.update_one(
            {"_id": conversation_id}, {"$max": {"head_seq": head, "active_at": at}}
        )

    # --------------------------------------------------------------------------------------------------- memberships

    async def membership(self, conversation_id: str, user_id: str) -> Membership | None:
        """Somebody's place in a conversation, also when they have left it."""
        found = await self._memberships.find_one({"_id": place_key(conversation_id, user_id)})
        return membership_of(found) if found else None

    async def memberships(self, conversation_id: str, user_ids: Collection[str]) -> dict[str, Membership]:
        """The places of several people."""
        keys = [place_key(conversation_id, user_id) for user_id in user_ids]
        return {
            row["user_id"]: membership_of(row) async for row in self._memberships.find({"_id": {"$in": keys}})
        }

    async def readers(self, conversation_id: str, seq: int, *, still_in: bool) -> tuple[str, ...]:
        """Who sees the message of that number; with ``still_in`` without those who have left since."""
        gone: Document = {"left_seq": {"$exists": False}}
        if not still_in:
            gone = {"$or": [gone, {"left_seq": {"$gte": seq}}]}
        query = {"conversation_id": conversation_id, "joined_seq": {"$lt": seq}, **gone}
        return tuple([row["user_id"] async for row in self._memberships.find(query, {"user_id": 1})])

    async def everybody(self, conversation_id: str) -> list[Membership]:
        """The places of all who are in a conversation, or were."""
        return [
            membership_of(row) async for row in self._memberships.find({"conversation_id": conversation_id})
        ]

    async def muted(self, conversation_id: str) -> set[str]:
        """Who wants no push for this conversation."""
        query = {"conversation_id": conversation_id, "muted": True}
        return {row["user_id"] async for row in self._memberships.find(query, {"user_id": 1})}

    async def mute(self, conversation_id: str, user_id: str, muted: bool) -> None:
        """Want no push for this conversation, or want them again."""
        await self._memberships.update_one(
            {"_id": place_key(conversation_id, user_id)}, {"$set": {"muted": muted}}
        )

    async def mark(
        self, place: Membership, *, delivered_seq: int, read_seq: int | None, now: datetime
    ) -> Membership | None:
        """Move somebody's markers forward; their place after it, or None when nothing of it was forward.

        ``untold`` of that place says whether there was something untold *before* it.
        """
        forward: list[Document] = [{"delivered_seq": {"$lt": delivered_seq}}]
        change: Document = {"$max": {"delivered_seq": delivered_seq}}
        stamps = {"tell_at": now + timedelta(seconds=TELL_SECONDS)}
        if read_seq is None:
            stamps["delivered_at"] = now
        else:
            forward = [{"read_seq": {"$lt": read_seq}}]
            change["$max"]["read_seq"] = read_seq
            stamps["read_at"] = now
            if delivered_seq > place.delivered_seq:
                stamps["delivered_at"] = now
        found = await self._memberships.find_one_and_update(
            {"_id": place_key(place.conversation_id, place.user_id), "$or": forward},
            {**change, "$set": stamps},
            return_document=ReturnDocument.BEFORE,
        )
        if found is None:
            return None
        moved = {name: max(found[name], seq) for name, seq in change["$max"].items()}
        return replace(membership_of({**found, **stamps, **moved}), untold="tell_at" in found)

    async def marks_told(self, place: Membership) -> None:
        """The letters of these very markers are posted."""
        await self._memberships.update_one(
            {
                "_id": place_key(place.conversation_id, place.user_id),
                "delivered_seq": place.delivered_seq,
                "read_seq": place.read_seq,
            },
            {"$unset": {"tell_at": ""}},
        )

    async def claim_untold(self, now: datetime) -> Membership | None:
        """A place whose markers nobody has told in time; others leave it to the caller for ``TELL_SECONDS``."""
        found = await self._memberships.find_one_and_update(
            {"tell_at": {"$lte": now}},
            {"$set": {"tell_at": now + timedelta(seconds=TELL_SECONDS)}},
            sort=[("tell_at", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return membership_of(found) if found else None


class _Overtaken(Exception):
    """The conversation is another by now."""


def place_key(conversation_id: str, user_id: str) -> str:
    """The ``_id`` of somebody's place in a conversation."""
    return f"{conversation_id}:{user_id}"


def _place(conversation_id: str, user_id: str, joined_seq: int) -> Document:
    """A new member's row. What was before they came counts as read."""
    return {
        "_id": place_key(conversation_id, user_id),
        "conversation_id": conversation_id,
        "user_id": user_id,
        "joined_seq": joined_seq,
        "delivered_seq": joined_seq,
        "read_seq": joined_seq,
        "muted": False,
    }


def _changing(group: Conversation) -> Document:
    """What changes of a group."""
    return {
        "kind": group.kind,
        "name": group.name,
        "members": list(group.members),
        "owner_id": group.owner_id,
        "admins": sorted(group.admins),
        "version": group.version,
    }


def conversation_of(row: Document) -> Conversation:
    """A row as a value."""
    return Conversation(
        id=row["_id"],
        members=tuple(row["members"]),
        kind=row["kind"],
        name=row.get("name"),
        owner_id=row.get("owner_id"),
        admins=frozenset(row.get("admins", ())),
        version=row["version"],
        created_at=row["created_at"],
        active_at=row["active_at"],
    )


def membership_of(row: Document) -> Membership:
    """A row as a value."""
    return Membership(
        conversation_id=row["conversation_id"],
        user_id=row["user_id"],
        joined_seq=row["joined_seq"],
        left_seq=row.get("left_seq"),
        delivered_seq=row["delivered_seq"],
        delivered_at=row.get("delivered_at"),
        read_seq=row["read_seq"],
        read_at=row.get("read_at"),
        muted=row["muted"],
        untold="tell_at" in row,
    )

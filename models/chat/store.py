"""Messages in MongoDB.

Numbers are dense in the way of the mailbox: message ``n + 1`` is inserted by somebody who knows that ``n`` is there,
under the unique key (conversation, seq). A second unique key (sender, opId) makes sending twice impossible.

``tell_at`` is there until the message's letters are posted: then, at the latest, somebody else is to post them.
``words`` are what a search finds the message by; an encrypted or a deleted one has none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import BulkWriteError

from models.chat.conversations.conversation import Membership
from models.chat.message import Attachment, Ciphertext, Message, Note
from models.chat.rules import words_of
from models.db import Database, Document, Session, collection, index
from models.users.rules import LAST_CHARACTER

MESSAGES = collection(
    "messages",
    index("conversation_id", "seq", unique=True),
    index("sender_id", "op_id", unique=True),
    index("conversation_id", "words", "-seq"),
    index("attachment.id", where={"attachment.id": {"$exists": True}}),
    index("tell_at", where={"tell_at": {"$exists": True}}),
)

# More than a request may take: until then the one who wrote the message is at it.
TELL_SECONDS = 10
# A search for one letter reads all the messages of somebody who has very many. It ends here, as if the database were
# away for it, and takes nobody else's time.
SEARCH_MS_MAX = 3_000
# The server's code for it, in the faults of a write of many.
DUPLICATE_KEY = 11000


class ChatStore:
    """Reads, appends and changes messages."""

    def __init__(self, db: Database) -> None:
        self._messages = db[MESSAGES]

    # ------------------------------------------------------------------------------------------------------- writing

    async def append(self, messages: Sequence[Message]) -> tuple[int, str | None]:
        """Append messages of one conversation that follow on from its newest, in one exchange.

        How many of them, from the first on, are kept; and what stood in the way of the next one: ``conversation_id``
        (somebody else has its number) or ``sender_id`` (its sender has used its ``op_id``).
        """
        try:
            await self._messages.insert_many([_document(message) for message in messages])
        except BulkWriteError as error:
            fault = (error.details or {})["writeErrors"][0]
            if fault["code"] != DUPLICATE_KEY:
                raise
            return fault["index"], next(iter(fault["keyPattern"]))
        return len(messages), None

    async def put(self, message: Message, session: Session) -> None:
        """Append one message inside a transaction. ``DuplicateKeyError`` when its number is taken."""
        await self._messages.insert_one(_document(message), session=session)

    async def edit(self, before: Message, text: str, hidden_from: Collection[str], now: datetime) -> str:
        """Set another text; ``told`` or ``untold`` as the message was before it, or ``stale``: it is another by now."""
        change: Document = {
            "text": text,
            "words": words_of(text),
            "edited_at": now,
        }
        return await self._change(before, {"$set": change, **_hidden(hidden_from)}, now)

    async def erase(self, before: Message, now: datetime) -> str:
        """Take everything out of a message but its place; the answer is that of ``edit``."""
        content = dict.fromkeys(("text", "words", "attachment", "ciphertexts", "op_print"), "")
        return await self._change(before, {"$set": {"deleted_at": now}, "$unset": content}, now)

    async def _change(self, before: Message, change: Document, now: datetime) -> str:
        change["$set"] |= {"version": before.version + 1, "tell_at": now + timedelta(seconds=TELL_SECONDS)}
        found = await self._messages.find_one_and_update(
            {"_id": before.id, "version": before.version},
            change,
            {"tell_at": 1},
            return_document=ReturnDocument.BEFORE,
        )
        if found is None:
            return "stale"
        return "untold" if "tell_at" in found else "told"

    # ------------------------------------------------------------------------------------------------------- telling

    async def hide(self, message: Message, user_ids: Collection[str]) -> Message:
        """Show a message to none of these people from now on; the message after it."""
        await self._messages.update_one({"_id": message.id}, _hidden(user_ids))
        return replace(message, hidden_from=message.hidden_from | set(user_ids))

    async def told(self, messages: Sequence[Message]) -> bool:
        """The letters of messages of one version are posted; False when one of them has been changed since."""
        done = await self._messages.update_many(
            {"_id": {"$in": [message.id for message in messages]}, "version": messages[0].version},
            {"$unset": {"tell_at": ""}},
        )
        return done.matched_count == len(messages)

    async def is_told(self, message_id: str) -> bool:
        """Whether the letters of a message are posted."""
        query = {"_id": message_id, "tell_at": {"$exists": True}}
        return await self._messages.find_one(query, {"_id": 1}) is None

    async def untold(self, conversation_id: str, most: int) -> list[Message]:
        """Messages of a conversation whose letters are not posted, or not yet, in order."""
        query = {"conversation_id": conversation_id, "tell_at": {"$exists": True}}
        return [message_of(row) async for row in self._messages.find(query, sort=[("seq", 1)]).limit(most)]

    async def claim_untold(self, now: datetime) -> Message | None:
        """A message whose letters nobody has posted in time; others leave it to the caller for ``TELL_SECONDS``."""
        found = await self._messages.find_one_and_update(
            {"tell_at": {"$lte": now}},
            {"$set": {"tell_at": now + timedelta(seconds=TELL_SECONDS)}},
            sort=[("tell_at", 1), ("seq", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return message_of(found) if found else None

    # ------------------------------------------------------------------------------------------------------- reading

    async def by_id(self, message_id: str) -> Message | None:
        """A message."""
        found = await self._messages.find_one({"_id": message_id})
        return message_of(found) if found else None

    async def by_op(self, sender_id: str, op_id: str) -> Message | None:
        """The message that was sent with this ``opId``."""
        found = await self._messages.find_one({"sender_id": sender_id, "op_id": op_id})
        return message_of(found) if found else None

    async def some(self, conversation_id: str, message_ids: Collection[str]) -> dict[str, Message]:
        """Those of the messages that are in the conversation, by id."""
        cursor = self._messages.find({"_id": {"$in": list(message_ids)}, "conversation_id": conversation_id})
        return {document["_id"]: message_of(document) async for document in cursor}

    async def numbered(self, conversation_id: str, seqs: Collection[int]) -> list[Message]:
        """The messages of a conversation that have these numbers, in order."""
        query = {"conversation_id": conversation_id, "seq": {"$in": list(seqs)}}
        return [message_of(row) async for row in self._messages.find(query, sort=[("seq", 1)])]

    async def written_by(self, sender_id: str, *, after: str | None, most: int) -> list[Message]:
        """All that somebody has written, in the order of its ``op_id``, behind that one."""
        query: Document = {"sender_id": sender_id}
        if after is not None:
            query["op_id"] = {"$gt": after}
        return [message_of(row) async for row in self._messages.find(query, sort=[("op_id", 1)]).limit(most)]

    async def head(self, conversation_id: str) -> int:
        """The newest number of a conversation, 0 before the first message."""
        newest = await self._messages.find_one(
            {"conversation_id": conversation_id}, {"seq": 1}, sort=[("seq", -1)]
        )
        return int(newest["seq"]) if newest else 0

    async def history(
        self, mine: Membership, *, before: int | None = None, after: int | None = None, most: int
    ) -> list[Message]:
        """What a member sees of a conversation: newest first below ``before``, or oldest first above ``after``."""
        span: Document = {"$gt": max(mine.joined_seq, after or 0)}
        if before is not None:
            span["$lt"] = before
        if mine.left_seq is not None:
            span["$lte"] = mine.left_seq
        query = {
            "conversation_id": mine.conversation_id,
            "seq": span,
            "hidden_from": {"$ne": mine.user_id},
        }
        order = [("seq", 1 if after is not None else -1)]
        return [message_of(row) async for row in self._messages.find(query, sort=order).limit(most)]

    async def search(
        self,
        places: Sequence[Membership],
        words: Sequence[str],
        *,
        before: str | None,
        after: str | None = None,
        most: int,
    ) -> list[Message]:
        """What one person sees in these conversations that has a word with each of the beginnings.

        Newest first, older than the message ``before``; or oldest first, newer than the message ``after``.
        """
        if not places:
            return []
        begins: list[Document] = [
            {"words": {"$elemMatch": {"$gte": word, "$lt": word + LAST_CHARACTER}}} for word in words
        ]
        query: Document = {
            "conversation_id": {"$in": [place.conversation_id for place in places]},
            "$and": begins,
            "hidden_from": {"$ne": places[0].user_id},
        }
        unseen = [window for place in places for window in _unseen(place)]
        if unseen:
            query["$nor"] = unseen
        if after is not None:
            query["_id"] = {"$gt": after}
        elif before is not None:
            query["_id"] = {"$lt": before}
        # By the words, whatever the planner thinks of walking back through everybody's messages in order of their ids.
        order = [("_id", -1 if after is None else 1)]
        found = self._messages.find(query, sort=order, hint=_BY_WORDS, limit=most, max_time_ms=SEARCH_MS_MAX)
        return [message_of(document) async for document in found]


_BY_WORDS = [("conversation_id", 1), ("words", 1), ("seq", -1)]


def _unseen(place: Membership) -> list[Document]:
    """What of a conversation is not theirs to see: before they came, after they went."""
    spans: list[Document] = []
    if place.joined_seq:
        spans.append({"$lte": place.joined_seq})
    if place.left_seq is not None:
        spans.append({"$gt": place.left_seq})
    return [{"conversation_id": place.conversation_id, "seq": span} for span in spans]


def _hidden(user_ids: Collection[str]) -> Document:
    return {"$addToSet": {"hidden_from": {"$each": sorted(user_ids)}}}


def _document(message: Message) -> Document:
    row: dict[str, Any] = {
        "_id": message.id,
        "conversation_id": message.conversation_id,
        "seq": message.seq,
        "sender_id": message.sender_id,
        "device_id": message.device_id,
        "op_id": message.op_id,
        "created_at": message.created_at,
        "version": message.version,
        "tell_at": message.created_at + timedelta(seconds=TELL_SECONDS),
    }
    for name in ("op_print", "text", "reply_to"):
        if getattr(message, name) is not None:
            row[name] = getattr(message, name)
    if message.text is not None:
        row["words"] = words_of(message.text)
    if message.attachment is not None:
        row["attachment"] = asdict(message.attachment)
    if message.encrypted:
        row |= {"encrypted": True, "ciphertexts": [asdict(one) for one in message.ciphertexts]}
    if message.note is not None:
        row["note"] = asdict(message.note)
    if message.hidden_from:
        row["hidden_from"] = sorted(message.hidden_from)
    return row


def message_of(row: Document) -> Message:
    """A row as a value."""
    attachment, note = row.get("attachment"), row.get("note")
    return Message(
        id=row["_id"],
        conversation_id=row["conversation_id"],
        seq=row["seq"],
        sender_id=row["sender_id"],
        device_id=row["device_id"],
        op_id=row["op_id"],
        op_print=row.get("op_print"),
        text=row.get("text"),
        created_at=row["created_at"],
        reply_to=row.get("reply_to"),
        attachment=Attachment(**attachment) if attachment else None,
        encrypted=row.get("encrypted", False),
        ciphertexts=tuple(Ciphertext(**one) for one in row.get("ciphertexts", ())),
        note=Note(**{**note, "user_ids": tuple(note["user_ids"])}) if note else None,
        hidden_from=frozenset(row.get("hidden_from", ())),
        version=row.get("version", 1),
        edited_at=row.get("edited_at"),
        deleted_at=row.get("deleted_at"),
    )


def edited(before: Message, text: str, hidden_from: Collection[str], now: datetime) -> Message:
    """The message as ``ChatStore.edit`` has left it."""
    hidden = before.hidden_from | set(hidden_from)
    return replace(before, text=text, hidden_from=hidden, edited_at=now, version=before.version + 1)


def erased(before: Message, now: datetime) -> Message:
    """The message as ``ChatStore.erase`` has left it."""
    return replace(
        before,
        text=None,
        attachment=None,
        ciphertexts=(),
        op_print=None,
        deleted_at=now,
        version=before.version + 1,
    )

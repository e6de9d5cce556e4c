"""What is known of files in MongoDB. Their bytes are elsewhere (``models.media.ports.Files``).

A row is there before the first byte and after the last one, so whatever a process leaves behind is found by its row.
``due_at`` is when a job has to look at it: the end of an upload, of an unsent file, of a claim by another job. It looks
at sent files, too, from time to time: a process may have died between deleting a message and letting go of its file.
``held_bytes`` is what a file counts against its owner's room: what it may become while it comes, then what it is.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from pymongo import ReturnDocument

from models.db import Database, Document, Session, collection, index
from models.media.media import Content, Kind, Media, State, Thumbnail
from models.media.rules import CONVERSATIONS_MAX, LEASE_SECONDS

MEDIA = collection(
    "media",
    index("owner_id", "held_bytes"),
    index("due_at"),
)
_UNSENT: Document = {"conversations": []}


class MediaStore:
    """Reads and writes rows; every change of a state is conditional on the state before it."""

    def __init__(self, db: Database) -> None:
        self._media = db[MEDIA]

    async def begin(
        self, media_id: str, *, owner_id: str, held_bytes: int, due_at: datetime, now: datetime
    ) -> None:
        """An upload begins."""
        await self._media.insert_one(
            {
                "_id": media_id,
                "owner_id": owner_id,
                "state": State.UPLOADING,
                "held_bytes": held_bytes,
                "conversations": [],
                "created_at": now,
                "due_at": due_at,
            }
        )

    async def held_by(self, owner_id: str) -> tuple[int, int]:
        """How many bytes and how many files a person's files are, those that just come in included."""
        cursor = await self._media.aggregate(
            [
                {"$match": {"owner_id": owner_id, "held_bytes": {"$gt": 0}}},
                {"$group": {"_id": None, "bytes": {"$sum": "$held_bytes"}, "files": {"$sum": 1}}},
            ]
        )
        found = [document async for document in cursor]
        return (int(found[0]["bytes"]), int(found[0]["files"])) if found else (0, 0)

    async def withdraw(self, media_id: str) -> None:
        """An upload of which no byte was kept never was."""
        await self._media.delete_one({"_id": media_id, "state": State.UPLOADING})

    async def finish(self, media_id: str, content: Content, *, due_at: datetime) -> Media | None:
        """The upload is whole; None when it came too late."""
        thumb = content.thumb
        row: Document = {
            "state": State.READY,
            "due_at": due_at,
            "held_bytes": content.size_bytes + (thumb.size_bytes if thumb else 0),
            "content_type": content.content_type,
            "kind": content.kind,
            "size_bytes": content.size_bytes,
            "filename": content.filename,
            "width": content.width,
            "height": content.height,
            "thumb": {"content_type": thumb.content_type, "size_bytes": thumb.size_bytes} if thumb else None,
        }
        return await self._swap({"_id": media_id, "state": State.UPLOADING}, {"$set": row})

    async def find(self, media_id: str) -> Media | None:
        """A file that is there."""
        found = await self._media.find_one({"_id": media_id, "state": State.READY})
        return _media(found) if found else None

    async def find_many(self, media_ids: Collection[str]) -> list[Media]:
        """Those of the files that are there."""
        cursor = self._media.find({"_id": {"$in": list(media_ids)}, "state": State.READY})
        return [_media(document) async for document in cursor]

    async def attach(
        self, media_id: str, *, owner_id: str, conversation_id: str, due_at: datetime
    ) -> Media | None:
        """Add a conversation to the owner's file; None when there is no such file, or no room for another one.

        ``due_at`` is when somebody looks whether the message has come.
        """
        query = {
            "_id": media_id,
            "owner_id": owner_id,
            "state": State.READY,
            "$or": [
                {"conversations": conversation_id},
                {f"conversations.{CONVERSATIONS_MAX - 1}": {"$exists": False}},
            ],
        }
        change = {"$addToSet": {"conversations": conversation_id}, "$set": {"due_at": due_at}}
        return await self._swap(query, change)

    async def detach(self, media: Media, conversation_ids: Collection[str], *, now: datetime) -> bool:
        """Take conversations from a file; without any left it is due at once. False: it was sent again since."""
        left = {"$setDifference": ["$conversations", {"$literal": list(conversation_ids)}]}
        due_at = {"$cond": [{"$eq": ["$conversations", []]}, now, "$due_at"]}
        done = await self._media.update_one(
            {"_id": media.id, "state": State.READY, "due_at": media.due_at},
            [{"$set": {"conversations": left}}, {"$set": {"due_at": due_at}}],
        )
        return bool(done.matched_count)

    async def settle(self, media: Media, *, look_at: datetime) -> None:
        """The messages of a claimed file are there: it is looked at again then, unless it was sent once more since."""
        await self._media.update_one(
            {"_id": media.id, "state": State.READY, "due_at": media.due_at}, {"$set": {"due_at": look_at}}
        )

    async def doom(
        self, media_id: str, *, states: Collection[State], owner_id: str | None = None, now: datetime
    ) -> bool:
        """An upload that failed, or a file that nobody has sent, is to be deleted; whether it is one of these."""
        query: Document = {"_id": media_id, "state": {"$in": list(states)}, **_UNSENT}
        if owner_id is not None:
            query["owner_id"] = owner_id
        lease = now + timedelta(seconds=LEASE_SECONDS)
        change = {"$set": {"state": State.DELETING, "due_at": lease, "held_bytes": 0}}
        return await self._swap(query, change) is not None

    async def erased(self, media_id: str, *, again_at: datetime) -> None:
        """The bytes of a doomed file are deleted."""
        await self._media.update_one(
            {"_id": media_id, "state": State.DELETING}, {"$set": {"state": State.ERASED, "due_at": again_at}}
        )

    async def forget(self, media_id: str) -> None:
        """The bytes are deleted for the second time: nothing is left to know."""
        await self._media.delete_one({"_id": media_id, "state": State.ERASED})

    async def drop_all(self, owner_id: str, transaction: Session) -> None:
        """The person's account is deleted: what was not sent is due at once, what was sent is the conversation's."""
        query = {"owner_id": owner_id, "state": State.READY, **_UNSENT}
        due = [{"$set": {"due_at": "$created_at"}}]  # long ago, so to say
        await self._media.update_many(query, due, session=transaction)

    async def drop_of_sessions(self, session_ids: Collection[str], transaction: Session) -> None:
        """Files are a person's and not a sign-in's: they stay."""

    async def claim_due(self, now: datetime) -> Media | None:
        """A file that somebody has to look at; others leave it to the caller for ``LEASE_SECONDS``."""
        found = await self._media.find_one_and_update(
            {"due_at": {"$lte": now}},
            {"$set": {"due_at": now + timedelta(seconds=LEASE_SECONDS)}},
            sort=[("due_at", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return _media(found) if found else None

    async def _swap(self, query: Document, change: Document) -> Media | None:
        found = await self._media.find_one_and_update(query, change, return_document=ReturnDocument.AFTER)
        return _media(found) if found else None


def _media(d: Document) -> Media:
    content = None
    if "content_type" in d:
        thumb = d["thumb"]
        content = Content(
            content_type=d["content_type"],
            kind=Kind(d["kind"]),
            size_bytes=d["size_bytes"],
            filename=d["filename"],
            width=d["width"],
            height=d["height"],
            thumb=Thumbnail(content_type=thumb["content_type"], size_bytes=thumb["size_bytes"])
            if thumb
            else None,
        )
    return Media(
        id=d["_id"],
        owner_id=d["owner_id"],
        state=State(d["state"]),
        created_at=d["created_at"],
        due_at=d["due_at"],
        conversations=tuple(d["conversations"]),
        content=content,
    )

"""Sessions and revocations in MongoDB.

A session's row stays until its refresh token would have expired, so that one that is used after the end is known
for what it is. A revocation is a note for all processes, written in the transaction of the change that it is about:
each process reads the notes of the last minute again and again and closes its own sockets.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from models.auth.session import Revocation, Session, SignInDevice
from models.db import Database, Document, collection, index
from models.db import Session as Transaction

_TEXT = {"bsonType": "string"}
_DATE = {"bsonType": "date"}

SESSIONS = collection(
    "sessions",
    index("user_id", "-seen_at"),
    index("expires_at"),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "user_id", "generation", "created_at", "seen_at", "expires_at"],
            "properties": {
                "_id": _TEXT,
                "user_id": _TEXT,
                "generation": {"bsonType": ["int", "long"], "minimum": 1},
                "device": {"bsonType": "object"},
                "created_at": _DATE,
                "seen_at": _DATE,
                "rotated_at": _DATE,
                "expires_at": _DATE,
                "ended_at": _DATE,
                "ended_code": _TEXT,
            },
            # Ended, with a reason, or not ended.
            "dependencies": {"ended_at": ["ended_code"], "ended_code": ["ended_at"]},
        }
    },
)
REVOCATIONS = collection("revocations", index("at"), index("user_id"))

# Sign-ins of one person that live at once; the one longest unused ends first. More than anybody's devices, few
# enough that a person can look through them.
SESSIONS_MAX = 50

_LIVE: dict[str, Any] = {"ended_at": {"$exists": False}}


class SessionStore:
    """Reads and writes sessions; the verbs that take a ``transaction`` are parts of larger changes."""

    def __init__(self, db: Database) -> None:
        self._sessions = db[SESSIONS]
        self._revocations = db[REVOCATIONS]

    async def find(self, session_id: str) -> Session | None:
        """A session, over or not."""
        document = await self._sessions.find_one({"_id": session_id})
        return _session(document) if document else None

    async def lives(self, session_id: str, user_id: str) -> bool:
        """Whether the session is the user's and not over."""
        query = {"_id": session_id, "user_id": user_id, **_LIVE}
        return await self._sessions.find_one(query, {"_id": 1}) is not None

    async def live(self, user_id: str, now: datetime) -> list[Session]:
        """The user's sessions that are not over, most recently used first."""
        cursor = self._sessions.find({"user_id": user_id, **_LIVE, "expires_at": {"$gt": now}})
        return [_session(document) async for document in cursor.sort("seen_at", -1)]

    async def insert(self, session: Session, transaction: Transaction) -> None:
        """Keep a new session."""
        device = {k: v for k, v in _device_row(session.device).items() if v is not None}
        row = {
            "_id": session.id,
            "user_id": session.user_id,
            "generation": session.generation,
            "device": device,
            "created_at": session.created_at,
            "seen_at": session.seen_at,
            "expires_at": session.expires_at,
        }
        await self._sessions.insert_one(row, session=transaction)

    async def surplus(self, user_id: str, transaction: Transaction) -> list[str]:
        """The ids of live sessions beyond ``SESSIONS_MAX``."""
        query = {"user_id": user_id, **_LIVE}
        cursor = self._sessions.find(query, {"_id": 1}, sort=[("seen_at", -1)], session=transaction)
        return [document["_id"] async for document in cursor.skip(SESSIONS_MAX)]

    async def live_ids(self, user_id: str, transaction: Transaction) -> list[str]:
        """The ids of all sessions of the user that are not over."""
        cursor = self._sessions.find({"user_id": user_id, **_LIVE}, {"_id": 1}, session=transaction)
        return [document["_id"] async for document in cursor]

    async def rotate(self, session_id: str, generation: int, now: datetime, expires_at: datetime) -> bool:
        """From ``generation`` to the next; False when somebody else was first or the session is over."""
        result = await self._sessions.update_one(
            {"_id": session_id, "generation": generation, **_LIVE},
            {
                "$inc": {"generation": 1},
                "$set": {"rotated_at": now, "seen_at": now, "expires_at": expires_at},
            },
        )
        return result.modified_count == 1

    async def hold(self, session_id: str, user_id: str, transaction: Transaction) -> bool:
        """Make sure that the session lives until the transaction commits; False when it is over."""
        query = {"_id": session_id, "user_id": user_id, **_LIVE}
        # Counted, so that the row changes for certain: a write of what is there already conflicts with nobody.
        result = await self._sessions.update_one(query, {"$inc": {"holds": 1}}, session=transaction)
        return result.modified_count == 1

    async def end(
        self, session_ids: Collection[str], code: str, now: datetime, transaction: Transaction
    ) -> list[str]:
        """End those of the sessions that live; their ids."""
        query = {"_id": {"$in": list(session_ids)}, **_LIVE}
        cursor = self._sessions.find(query, {"_id": 1}, session=transaction)
        ended = [document["_id"] async for document in cursor]
        if ended:
            await self._sessions.update_many(
                {"_id": {"$in": ended}},
                {"$set": {"ended_at": now, "ended_code": code}, "$unset": {"device": ""}},
                session=transaction,
            )
        return ended

    async def strip(self, user_id: str, transaction: Transaction) -> None:
        """Remove what the user's sessions say about devices."""
        await self._sessions.update_many(
            {"user_id": user_id}, {"$unset": {"device": ""}}, session=transaction
        )

    async def note(self, revocation: Revocation, transaction: Transaction) -> None:
        """Leave a note for every process."""
        row = {
            "_id": revocation.id,
            "user_id": revocation.user_id,
            "session_ids": list(revocation.session_ids) if revocation.session_ids is not None else None,
            "code": revocation.code,
            "at": revocation.at,
        }
        await self._revocations.insert_one(row, session=transaction)

    async def take_back(self, user_id: str, code: str, transaction: Transaction) -> None:
        """Remove the notes of that code about the user."""
        await self._revocations.delete_many({"user_id": user_id, "code": code}, session=transaction)

    async def notes_after(self, at: datetime) -> list[Revocation]:
        """The notes left after ``at``, in order."""
        cursor = self._revocations.find({"at": {"$gt": at}}, sort=[("at", 1)])
        return [
            Revocation(
                id=document["_id"],
                user_id=document["user_id"],
                session_ids=None if document["session_ids"] is None else tuple(document["session_ids"]),
                code=document["code"],
                at=document["at"],
            )
            async for document in cursor
        ]

    async def expired(self, before: datetime, most: int) -> list[str]:
        """The ids of sessions whose time was up ``before``."""
        cursor = self._sessions.find({"expires_at": {"$lt": before}}, {"_id": 1}).limit(most)
        return [document["_id"] async for document in cursor]

    async def remove(self, session_ids: Collection[str], transaction: Transaction) -> None:
        """Remove sessions that no longer mean anything."""
        await self._sessions.delete_many({"_id": {"$in": list(session_ids)}}, session=transaction)

    async def remove_notes(self, before: datetime) -> None:
        """Remove notes that every process has read long ago."""
        await self._revocations.delete_many({"at": {"$lt": before}})


def _device_row(device: SignInDevice) -> dict[str, str | None]:
    return {"id": device.id, "name": device.name, "platform": device.platform}


def _session(document: Document) -> Session:
    return Session(
        id=document["_id"],
        user_id=document["user_id"],
        generation=document["generation"],
        device=SignInDevice(**document.get("device", {})),
        created_at=document["created_at"],
        seen_at=document["seen_at"],
        rotated_at=document.get("rotated_at"),
        expires_at=document["expires_at"],
        ended_code=document.get("ended_code"),
    )

"""Users and blocks in MongoDB.

Names are stored twice: as written, and folded for comparing. A search is a range over the folded form (everything
from ``ada`` up to ``ada`` + the highest character), which the index answers; no pattern is ever made of what a client
sends.

A deleted user stays as a tombstone without anything personal, so that what others have with them (calls, messages)
still has an other side.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from models.db import Database, Document, DuplicateKeyError, Session, collection, index, taken
from models.errors import Refusal
from models.users.profile import ACTIVE, ADMIN, BANNED, DELETED, USER, Account, Meeting, Profile
from models.users.rules import LAST_CHARACTER

_TEXT = {"bsonType": "string"}
_DATE = {"bsonType": "date"}
_MINOR = {"bsonType": ["int", "long", "null"], "minimum": 0}


def _present(field: str) -> dict[str, Any]:
    return {field: {"$exists": True}}


USERS = collection(
    "users",
    index("email_key", unique=True, where=_present("email_key")),
    index("phone", unique=True, where=_present("phone")),
    index("username_key", unique=True, where=_present("username_key")),
    index("status", "username_key"),
    index("status", "display_key", "_id"),
    index("forget_owed_at", where=_present("forget_owed_at")),
    index("role", where={"role": ADMIN}),
    index("created_at"),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": [
                *("_id", "username", "display_name", "currency", "role", "status", "created_at", "updated_at")
            ],
            "properties": {
                "_id": _TEXT,
                "username": _TEXT,
                "username_key": _TEXT,
                "display_name": _TEXT,
                "display_key": _TEXT,
                "email": _TEXT,
                "email_key": _TEXT,
                "phone": {"bsonType": "string", "pattern": "^\\+[0-9]+$"},
                "password_hash": _TEXT,
                "avatar_url": {"bsonType": ["string", "null"]},
                "rate_per_minute_minor": _MINOR,
                "video_rate_per_minute_minor": _MINOR,
                "currency": _TEXT,
                "role": {"enum": [USER, ADMIN]},
                "status": {"enum": [ACTIVE, BANNED, DELETED]},
                "created_at": _DATE,
                "updated_at": _DATE,
            },
            # Whoever is not deleted can be found and can sign in; whoever is, has nothing personal left.
            "oneOf": [
                {
                    "required": ["username_key", "display_key", "password_hash"],
                    "properties": {"status": {"enum": [ACTIVE, BANNED]}},
                    "anyOf": [{"required": ["email_key"]}, {"required": ["phone"]}],
                },
                {
                    "properties": {"status": {"enum": [DELETED]}},
                    "not": {
                        "anyOf": [
                            {"required": [field]}
                            for field in (
                                "email",
                                "email_key",
                                "phone",
                                "username_key",
                                "display_key",
                                "password_hash",
                            )
                        ]
                    },
                },
            ],
        }
    },
)
# _id is "blocker:blocked".
BLOCKS = collection("blocks", index("blocked_id"), index("blocker_id"))

_PROFILE = dict.fromkeys(
    (
        *("username", "display_name", "avatar_url"),
        *("rate_per_minute_minor", "video_rate_per_minute_minor"),
        *("currency", "status", "role"),
    ),
    1,
)


class UserStore:
    """Reads people; writes what they may change by themselves."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._users = db[USERS]
        self._blocks = db[BLOCKS]

    async def profiles(self, user_ids: Collection[str]) -> dict[str, Profile]:
        """The profiles of those who exist, deleted ones included, by id."""
        cursor = self._users.find({"_id": {"$in": list(user_ids)}}, _PROFILE)
        return {document["_id"]: profile_of(document) async for document in cursor}

    async def account(self, user_id: str) -> Account | None:
        """All that a person sees of themselves."""
        document = await self._users.find_one({"_id": user_id})
        return account_of(document) if document else None

    async def administrators(self, most: int) -> list[str]:
        """The ids of those who keep the server and may act now."""
        cursor = self._users.find({"role": ADMIN, "status": ACTIVE}, {"_id": 1}).limit(most)
        return [document["_id"] async for document in cursor]

    async def meeting(self, caller_id: str, callee_id: str) -> Meeting | None:
        """Both people and the blocks between them; None without the caller."""
        people, blocks = await asyncio.gather(
            self.profiles([caller_id, callee_id]),
            self.blocks_between([(caller_id, callee_id), (callee_id, caller_id)]),
        )
        if caller_id not in people:
            return None
        return Meeting(
            caller=people[caller_id],
            callee=people.get(callee_id),
            blocked_by_caller=(caller_id, callee_id) in blocks,
            blocked_by_callee=(callee_id, caller_id) in blocks,
        )

    async def blocks_between(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of the pairs (blocker, blocked) that are blocks."""
        names = {block_id(*pair): pair for pair in pairs}
        cursor = self._blocks.find({"_id": {"$in": list(names)}}, {"_id": 1})
        return {names[document["_id"]] async for document in cursor}

    async def blocks_among(self, ones: Collection[str], others: Collection[str]) -> set[tuple[str, str]]:
        """The blocks (blocker, blocked) that one of ``ones`` has made of ``others``, or one of these of those."""
        query = {
            "$or": [
                {"blocker_id": {"$in": list(ones)}, "blocked_id": {"$in": list(others)}},
                {"blocker_id": {"$in": list(others)}, "blocked_id": {"$in": list(ones)}},
            ]
        }
        cursor = self._blocks.find(query, {"blocker_id": 1, "blocked_id": 1})
        return {(document["blocker_id"], document["blocked_id"]) async for document in cursor}

    async def update(self, user_id: str, changes: Mapping[str, Any], now: datetime) -> Account | None:
        """Set fields of an active user; the account after it, or None. ``ACCOUNT_EXISTS`` for a name that is taken."""
        try:
            document = await self._users.find_one_and_update(
                {"_id": user_id, "status": ACTIVE},
                {"$set": {**changes, "updated_at": now}},
                return_document=True,
            )
        except DuplicateKeyError as error:
            raise exists_already(error) from None
        return account_of(document) if document else None

    async def by_username(self, prefix: str, after: str, limit: int) -> list[tuple[str, Profile]]:
        """Active people whose folded username begins with ``prefix``, behind ``after``, in order, with their keys."""
        span = {"$gte": prefix, "$gt": after, "$lt": prefix + LAST_CHARACTER}
        cursor = self._users.find(
            {"status": ACTIVE, "username_key": span},
            {**_PROFILE, "username_key": 1},
            sort=[("username_key", 1)],
        ).limit(limit)
        return [(document["username_key"], profile_of(document)) async for document in cursor]

    async def by_display_name(
        self, prefix: str, after: tuple[str, str], limit: int
    ) -> list[tuple[str, Profile]]:
        """Active people found by display name and not by username, behind ``after`` (folded name, id), in order."""
        key, user_id = after
        query = {
            "status": ACTIVE,
            "display_key": {"$gte": max(prefix, key), "$lt": prefix + LAST_CHARACTER},
            "$and": [
                {"$or": [{"display_key": {"$gt": key}}, {"display_key": key, "_id": {"$gt": user_id}}]},
                {
                    "$or": [
                        {"username_key": {"$lt": prefix}},
                        {"username_key": {"$gte": prefix + LAST_CHARACTER}},
                    ]
                },
            ],
        }
        order = [("display_key", 1), ("_id", 1)]
        cursor = self._users.find(query, {**_PROFILE, "display_key": 1}, sort=order).limit(limit)
        return [(document["display_key"], profile_of(document)) async for document in cursor]

    async def blocked_by(self, user_id: str) -> list[str]:
        """Those of whom the user wants nothing more."""
        cursor = self._blocks.find({"blocker_id": user_id}, {"blocked_id": 1})
        return [document["blocked_id"] async for document in cursor]

    async def parted_from(self, user_id: str) -> set[str]:
        """Everybody between whom and the user there is a block, whoever has made it."""
        query = {"$or": [{"blocker_id": user_id}, {"blocked_id": user_id}]}
        cursor = self._blocks.find(query, {"_id": 0, "blocker_id": 1, "blocked_id": 1})
        return {one async for document in cursor for one in document.values()} - {user_id}

    async def block(self, blocker_id: str, blocked_id: str, now: datetime) -> None:
        """Keep a block; a second time changes nothing."""
        row = {"blocker_id": blocker_id, "blocked_id": blocked_id, "at": now}
        with contextlib.suppress(DuplicateKeyError):  # two at once: the other has kept it
            await self._blocks.update_one(
                {"_id": block_id(blocker_id, blocked_id)}, {"$setOnInsert": row}, upsert=True
            )

    async def unblock(self, blocker_id: str, blocked_id: str) -> None:
        """Take a block back, if there is one."""
        await self._blocks.delete_one({"_id": block_id(blocker_id, blocked_id)})

    async def forget_blocks(self, user_id: str, session: Session) -> None:
        """Remove every block that names the user, inside a transaction."""
        await self._blocks.delete_many({"blocker_id": user_id}, session=session)
        await self._blocks.delete_many({"blocked_id": user_id}, session=session)


def block_id(blocker_id: str, blocked_id: str) -> str:
    """The ``_id`` of a block."""
    return f"{blocker_id}:{blocked_id}"


def exists_already(error: DuplicateKeyError) -> Refusal:
    """The refusal for a unique key that is taken; ``details.field`` is the field's name on the wire."""
    wire = {"email_key": "email", "phone": "phone", "username_key": "username"}
    return Refusal("ACCOUNT_EXISTS", field=wire.get(taken(error), "id"))


def profile_of(document: Document) -> Profile:
    """A row as others see it."""
    return Profile(
        user_id=document["_id"],
        username=document["username"],
        display_name=document["display_name"],
        avatar_url=document.get("avatar_url"),
        rate_per_minute_minor=document.get("rate_per_minute_minor"),
        video_rate_per_minute_minor=document.get("video_rate_per_minute_minor"),
        currency=document["currency"],
        status=document["status"],
        role=document["role"],
    )


def account_of(document: Document) -> Account:
    """A row as its owner sees it."""
    return Account(
        profile=profile_of(document),
        email=document.get("email"),
        phone=document.get("phone"),
        email_verified="email_verified_at" in document,
        phone_verified="phone_verified_at" in document,
        second_factor="second_factor" in document,
        created_at=document["created_at"],
        updated_at=document["updated_at"],
    )

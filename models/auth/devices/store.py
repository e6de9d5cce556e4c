"""Push tokens in MongoDB.

A token names an installation of an app, not a person: when somebody else signs in on the same phone, the token goes
over to them, or the first person's calls would ring there. A device has at most one token of each kind, and a token
ends with the sign-in that brought it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from models.auth.session import PushToken
from models.db import Database, Document, collection, index
from models.db import Session as Transaction

PUSH_TOKENS = collection(
    "push_tokens",
    # _id is the token itself.
    index("user_id", "device_id", "kind", unique=True),
    index("session_id"),
)
# Tokens of one person; the one longest not renewed goes first. As many as sign-ins, of two kinds on an iPhone.
TOKENS_MAX = 100


class DeviceStore:
    """Reads and writes push tokens."""

    def __init__(self, db: Database) -> None:
        self._tokens = db[PUSH_TOKENS]

    async def keep(self, push: PushToken, transaction: Transaction) -> None:
        """Keep a token for its device, instead of what the device had and whoever had the token."""
        place = {"user_id": push.user_id, "device_id": push.device_id, "kind": push.kind}
        await self._tokens.delete_many({**place, "_id": {"$ne": push.token}}, session=transaction)
        row = {
            **place,
            "session_id": push.session_id,
            "platform": push.platform,
            "updated_at": push.updated_at,
        }
        await self._tokens.replace_one({"_id": push.token}, row, upsert=True, session=transaction)
        query = {"user_id": push.user_id}
        cursor = self._tokens.find(query, {"_id": 1}, sort=[("updated_at", -1)], session=transaction)
        surplus = [document["_id"] async for document in cursor.skip(TOKENS_MAX)]
        if surplus:
            await self._tokens.delete_many({"_id": {"$in": surplus}}, session=transaction)

    async def of_users(self, user_ids: Collection[str]) -> list[PushToken]:
        """Every token of these people."""
        cursor = self._tokens.find({"user_id": {"$in": list(user_ids)}})
        return [_push_token(document) async for document in cursor]

    async def drop(self, user_id: str, *, token: str | None = None, device_id: str | None = None) -> None:
        """Forget the user's own tokens: the one given, or all of a device."""
        which = {"_id": token} if token is not None else {"device_id": device_id}
        await self._tokens.delete_many({**which, "user_id": user_id})

    async def dead(self, tokens: Mapping[str, datetime]) -> None:
        """Forget tokens that the push service did not know any more at the instant beside each.

        A token that a device has shown anew since then lives, whoever's it is now.
        """
        for token, since in tokens.items():
            await self._tokens.delete_one({"_id": token, "updated_at": {"$lte": since}})

    async def drop_of_sessions(self, session_ids: Collection[str], transaction: Transaction) -> None:
        """Forget what these sign-ins brought."""
        await self._tokens.delete_many({"session_id": {"$in": list(session_ids)}}, session=transaction)

    async def drop_all(self, user_id: str, transaction: Transaction) -> None:
        """Forget all of a user's tokens."""
        await self._tokens.delete_many({"user_id": user_id}, session=transaction)


def _push_token(document: Document) -> PushToken:
    return PushToken(
        user_id=document["user_id"],
        device_id=document["device_id"],
        session_id=document["session_id"],
        kind=document["kind"],
        token=document["_id"],
        platform=document.get("platform"),
        updated_at=document["updated_at"],
    )

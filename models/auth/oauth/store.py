"""Whose account a person at a provider has, in MongoDB."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from models.auth.oauth.rules import Person
from models.db import Database, DuplicateKeyError, Session, collection, index

IDENTITIES = collection(
    "oauth_identities",
    # _id is "provider:subject". One of each provider is enough for anybody.
    index("user_id", "provider", unique=True),
)


@dataclass(frozen=True, slots=True)
class Link:
    """One of a user's ways in. ``email`` is what the provider said when it was linked."""

    provider: str
    email: str | None
    linked_at: datetime


class IdentityStore:
    """Reads and writes links; they go with an account that is deleted."""

    def __init__(self, db: Database) -> None:
        self._rows = db[IDENTITIES]

    async def user_of(self, person: Person) -> str | None:
        """The user's id, where the person has an account here."""
        row = await self._rows.find_one({"_id": person.id})
        return row["user_id"] if row else None

    async def link(
        self, person: Person, user_id: str, now: datetime, transaction: Session | None = None
    ) -> None:
        """Keep a link. Raises the driver's error for a person or a user who has one."""
        row = {
            "_id": person.id,
            "provider": person.provider,
            "user_id": user_id,
            "email": person.email,
            "linked_at": now,
        }
        await self._rows.insert_one(row, session=transaction)

    async def linked(self, person: Person, user_id: str, now: datetime) -> bool:
        """Keep a link; False when the person has another account, or the user another person of that provider."""
        try:
            await self.link(person, user_id, now)
        except DuplicateKeyError:
            return await self.user_of(person) == user_id
        return True

    async def links(self, user_id: str) -> list[Link]:
        """The user's."""
        cursor = self._rows.find({"user_id": user_id}, sort=[("provider", 1)])
        return [Link(row["provider"], row["email"], row["linked_at"]) async for row in cursor]

    async def unlink(self, user_id: str, provider: str) -> None:
        """Forget a link, if there is one."""
        await self._rows.delete_one({"user_id": user_id, "provider": provider})

    async def drop_of_sessions(self, session_ids: Collection[str], transaction: Session) -> None:
        """Nothing: a link is the person's, not a sign-in's."""

    async def drop_all(self, user_id: str, transaction: Session) -> None:
        """Forget the links of an account that is deleted."""
        await self._rows.delete_many({"user_id": user_id}, session=transaction)

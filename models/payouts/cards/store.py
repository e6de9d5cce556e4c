"""Kept cards in MongoDB. They go with their owner's account."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from datetime import datetime

from models.db import Database, Document, DuplicateKeyError, Session, collection, index

_TEXT = {"bsonType": "string", "minLength": 1}

CARDS = collection(
    "cards",
    index("user_id", "gateway", "token", unique=True),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "user_id", "gateway", "token", "last4", "brand", "expires", "created_at"],
            "properties": {
                **dict.fromkeys(("_id", "user_id", "gateway", "token"), _TEXT),
                # Whatever a gateway sends there: never more of a number than this.
                "last4": {"bsonType": "string", "pattern": "^[0-9]{4}$"},
                "brand": {"bsonType": "string"},
                "expires": {"bsonType": ["string", "null"]},
                "created_at": {"bsonType": "date"},
            },
        }
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A card that was kept. ``token`` is for the gateway alone."""

    id: str
    user_id: str
    gateway: str
    token: str = field(repr=False)
    last4: str
    brand: str
    expires: str | None
    created_at: datetime


class CardStore:
    """``CardStore(db)``. As belongings of an account it is given to the store of accounts."""

    def __init__(self, db: Database) -> None:
        self._cards = db[CARDS]

    async def add(self, card: Card) -> Card:
        """Keep one; the one that there is of the same token."""
        row = asdict(card)
        row["_id"] = row.pop("id")
        try:
            await self._cards.insert_one(row)
        except DuplicateKeyError:
            mine = {"user_id": card.user_id, "gateway": card.gateway, "token": card.token}
            known = await self._cards.find_one(mine)
            return _card(known) if known else card
        return card

    async def of_user(self, user_id: str) -> list[Card]:
        """A user's cards, the oldest first."""
        return [
            _card(row) async for row in self._cards.find({"user_id": user_id}, sort=[("_id", 1)]).limit(100)
        ]

    async def remove(self, user_id: str, card_id: str) -> bool:
        """Forget one; False when the user has none of this id."""
        return bool((await self._cards.delete_one({"_id": card_id, "user_id": user_id})).deleted_count)

    # ----------------------------------------------------------------------------- belongings of accounts (models/auth)

    async def drop_of_sessions(self, session_ids: Collection[str], transaction: Session) -> None:
        """They do not go with a sign-in."""

    async def drop_all(self, user_id: str, transaction: Session) -> None:
        """Forget all of a user, whose account is deleted."""
        await self._cards.delete_many({"user_id": user_id}, session=transaction)


def _card(row: Document) -> Card:
    fields = {name: value for name, value in row.items() if name != "_id"}
    return Card(id=row["_id"], **fields)

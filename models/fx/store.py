"""Quotes in MongoDB. Using one is a conditional update within the transaction of its entry."""

from __future__ import annotations

from datetime import datetime, timedelta

from models.db import Database, Document, Session, collection, index
from models.fx.rules import Quote
from models.money import AMOUNT_MAX

_LONG = {"bsonType": ["int", "long"]}
_TEXT = {"bsonType": "string"}
_DATE = {"bsonType": "date"}
_CODE = {"bsonType": "string", "pattern": "^[A-Z]{3}$"}
_AMOUNT = {**_LONG, "minimum": 1, "maximum": AMOUNT_MAX}

# An unused quote is kept for some time after its end, so that whoever comes late hears that it has expired.
KEPT = timedelta(days=1)

QUOTES = collection(
    "fx_quotes",
    index("forget_at", ttl_seconds=0),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": [
                *("_id", "user_id", "source", "target", "amount", "worth", "spread", "rate", "rate_at"),
                *("created_at", "expires_at", "used_at"),
            ],
            "properties": {
                "_id": _TEXT,
                "user_id": _TEXT,
                "source": _CODE,
                "target": _CODE,
                "amount": _AMOUNT,
                "worth": _AMOUNT,
                "spread": {**_LONG, "minimum": 0, "maximum": AMOUNT_MAX},
                "rate": _TEXT,
                "rate_at": _DATE,
                "created_at": _DATE,
                "expires_at": _DATE,
                "used_at": {"bsonType": ["date", "null"]},
                "used_key": {"bsonType": ["string", "null"]},
                "forget_at": _DATE,
            },
            "additionalProperties": False,
        },
        "$expr": {"$lt": ["$spread", "$worth"]},
    },
)


class QuoteStore:
    """What is asked of quotes."""

    def __init__(self, db: Database) -> None:
        self._quotes = db[QUOTES]

    async def add(self, quote: Quote) -> None:
        """Keep a new quote."""
        await self._quotes.insert_one(
            {
                "_id": quote.id,
                "user_id": quote.user_id,
                "source": quote.source,
                "target": quote.target,
                "amount": quote.amount_minor,
                "worth": quote.worth_minor,
                "spread": quote.spread_minor,
                "rate": quote.rate,
                "rate_at": quote.rate_at,
                "created_at": quote.created_at,
                "expires_at": quote.expires_at,
                "used_at": None,
                "used_key": None,
                "forget_at": quote.expires_at + KEPT,
            }
        )

    async def find(self, quote_id: str) -> Quote | None:
        """A quote by its id."""
        found = await self._quotes.find_one({"_id": quote_id})
        return quote_of(found) if found else None

    async def use(self, quote_id: str, key: str | None, now: datetime, session: Session) -> bool:
        """Mark a quote as used, for good; False when it is used, expired or gone."""
        done = await self._quotes.update_one(
            {"_id": quote_id, "used_at": None, "expires_at": {"$gt": now}},
            {"$set": {"used_at": now, "used_key": key}, "$unset": {"forget_at": ""}},
            session=session,
        )
        return bool(done.modified_count)


def quote_of(d: Document) -> Quote:
    """A document as a quote."""
    return Quote(
        id=d["_id"],
        user_id=d["user_id"],
        source=d["source"],
        target=d["target"],
        amount_minor=d["amount"],
        worth_minor=d["worth"],
        spread_minor=d["spread"],
        rate=d["rate"],
        rate_at=d["rate_at"],
        created_at=d["created_at"],
        expires_at=d["expires_at"],
        used_at=d["used_at"],
        used_key=d.get("used_key"),
    )

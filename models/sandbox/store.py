"""What the sandbox knows, in MongoDB: a document for each payment, payout and refund of it.

``tell_at`` is there while a notification is owed. Who tells takes it by moving it on; a teller that dies leaves it to
the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pymongo import ReturnDocument

from models.db import Database, Document, DuplicateKeyError, collection, index
from models.sandbox.rules import Step, Thing

_TEXT = {"bsonType": "string"}
_MINOR = {"bsonType": ["int", "long"], "minimum": 0}

SANDBOX = collection(
    "sandbox",
    index("tell_at", where={"tell_at": {"$exists": True}}),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "reference", "amount_minor", "currency", "steps"],
            "properties": {
                "_id": {"bsonType": "string", "pattern": "^(payment|payout|refund):"},
                "reference": _TEXT,
                "amount_minor": _MINOR,
                "currency": {"bsonType": "string", "pattern": "^[A-Z]{3}$"},
                "tell_at": {"bsonType": "date"},
                "steps": {
                    "bsonType": "array",
                    "minItems": 1,
                    "items": {
                        "bsonType": "object",
                        "required": ["at", "state", "paid_minor", "reversed_minor"],
                        "properties": {
                            "at": {"bsonType": "date"},
                            "state": _TEXT,
                            "paid_minor": _MINOR,
                            "reversed_minor": _MINOR,
                        },
                    },
                },
            },
        }
    },
)


class SandboxStore:
    """Keeps the sandbox's payments, payouts and refunds."""

    def __init__(self, db: Database) -> None:
        self._rows = db[SANDBOX]

    async def add(self, thing: Thing, *, tell_at: datetime | None) -> bool:
        """Keep a new one. False: its id is taken."""
        row: Document = {
            "_id": thing.id,
            "reference": thing.reference,
            "amount_minor": thing.amount_minor,
            "currency": thing.currency,
            "who": thing.who,
            "about": thing.about,
            "return_url": thing.return_url,
            "account_number": thing.account_number,
            "steps": [_row(step) for step in thing.steps],
        }
        if tell_at is not None:
            row["tell_at"] = tell_at
        try:
            await self._rows.insert_one(row)
        except DuplicateKeyError:
            return False
        return True

    async def find(self, id: str) -> Thing | None:
        """One by its id."""
        found = await self._rows.find_one({"_id": id})
        return _thing(found) if found else None

    async def go_on(self, thing: Thing, steps: Sequence[Step], *, tell_at: datetime) -> bool:
        """Add steps to what it was when it was read. False: it has gone on since."""
        done = await self._rows.update_one(
            {"_id": thing.id, "steps": {"$size": len(thing.steps)}},
            {"$push": {"steps": {"$each": [_row(step) for step in steps]}}, "$set": {"tell_at": tell_at}},
        )
        return done.modified_count == 1

    async def to_tell(self, now: datetime, *, again_at: datetime) -> Thing | None:
        """One of which something is to be told now; it is offered again at ``again_at`` unless ``told`` is called."""
        found = await self._rows.find_one_and_update(
            {"tell_at": {"$lte": now}},
            {"$set": {"tell_at": again_at}},
            sort=[("tell_at", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return _thing(found) if found else None

    async def told(self, thing: Thing, *, taken_until: datetime, next_at: datetime | None) -> None:
        """It was told as it stood; unless more has happened since, the next telling is at ``next_at``, or none."""
        change = {"$unset": {"tell_at": ""}} if next_at is None else {"$set": {"tell_at": next_at}}
        mine = {"_id": thing.id, "tell_at": taken_until, "steps": {"$size": len(thing.steps)}}
        await self._rows.update_one(mine, change)


def _row(step: Step) -> Document:
    return {
        "at": step.at,
        "state": str(step.state),
        "paid_minor": step.paid_minor,
        "reversed_minor": step.reversed_minor,
    }


def _thing(d: Document) -> Thing:
    return Thing(
        id=d["_id"],
        reference=d["reference"],
        amount_minor=d["amount_minor"],
        currency=d["currency"],
        who=d["who"],
        about=d["about"],
        return_url=d["return_url"],
        account_number=d["account_number"],
        steps=tuple(
            Step(
                at=step["at"],
                state=step["state"],
                paid_minor=step["paid_minor"],
                reversed_minor=step["reversed_minor"],
            )
            for step in d["steps"]
        ),
    )

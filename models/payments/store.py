"""Payments in MongoDB."""

from __future__ import annotations

from typing import Any

from models.db import Database, Document, Session, collection, index
from models.money import AMOUNT_MAX
from models.payments.payment import Payment, Status

_TEXT = {"bsonType": "string"}

PAYMENTS = collection(
    "payments",
    index("reference", unique=True),
    index("user_id", "-_id"),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": [
                *("_id", "reference", "user_id", "gateway", "amount_minor", "currency", "into", "status"),
                *("checkout_url", "created_at"),
            ],
            "properties": {
                "_id": _TEXT,
                "reference": _TEXT,
                "user_id": _TEXT,
                "gateway": _TEXT,
                "amount_minor": {"bsonType": ["int", "long"], "minimum": 1, "maximum": AMOUNT_MAX},
                "currency": {"bsonType": "string", "pattern": "^[A-Z]{3}$"},
                "into": {"enum": ["primary", "call_credits"]},
                "status": {"enum": [status.value for status in Status]},
                "checkout_url": {"bsonType": ["string", "null"]},
                "created_at": {"bsonType": "date"},
            },
        }
    },
)


class PaymentStore:
    """Reads payments and keeps new ones."""

    def __init__(self, db: Database) -> None:
        self._payments = db[PAYMENTS]

    async def add(self, payment: Payment, session: Session) -> None:
        """Keep a new payment, within a transaction."""
        row = {
            "_id": payment.id,
            "reference": payment.reference,
            "user_id": payment.user_id,
            "gateway": payment.gateway,
            "amount_minor": payment.amount_minor,
            "currency": payment.currency,
            "into": payment.into,
            "status": payment.status.value,
            "checkout_url": payment.checkout_url,
            "created_at": payment.created_at,
        }
        await self._payments.insert_one(row, session=session)

    async def find(self, payment_id: str) -> Payment | None:
        """A payment by its id."""
        found = await self._payments.find_one({"_id": payment_id})
        return payment_of(found) if found else None

    async def by_reference(self, reference: str) -> Payment | None:
        """A payment by its reference."""
        found = await self._payments.find_one({"reference": reference})
        return payment_of(found) if found else None

    async def of_user(self, user_id: str, *, before_id: str | None, most: int) -> list[Payment]:
        """A user's payments, the newest first (ids rise with time), below an id."""
        query: Document = {"user_id": user_id}
        if before_id is not None:
            query["_id"] = {"$lt": before_id}
        cursor = self._payments.find(query, sort=[("_id", -1)]).limit(most)
        return [payment_of(d) async for d in cursor]


def payment_of(d: dict[str, Any]) -> Payment:
    """A document as a payment."""
    return Payment(
        id=d["_id"],
        reference=d["reference"],
        user_id=d["user_id"],
        gateway=d["gateway"],
        amount_minor=d["amount_minor"],
        currency=d["currency"],
        into=d["into"],
        status=Status(d["status"]),
        checkout_url=d["checkout_url"],
        created_at=d["created_at"],
    )

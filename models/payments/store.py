"""Payments in MongoDB.

What a payment is worth changes by a swap that is guarded by its version, within the transaction of the entry that
moves the money. When it is looked at next, and who opens its checkout, is not guarded: doing that twice does no harm.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pymongo import ReturnDocument

from models.backlog.store import Overdue, overdue
from models.db import Database, Document, Session, collection, index
from models.money import AMOUNT_MAX
from models.payments.gateway import CardToken
from models.payments.payment import Asked, Payment, Status

_TEXT = {"bsonType": "string"}
_AMOUNT = {"bsonType": ["int", "long"], "minimum": 0, "maximum": AMOUNT_MAX}
_CURRENCY = {"bsonType": "string", "pattern": "^[A-Z]{3}$"}

PAYMENTS = collection(
    "payments",
    index("reference", unique=True),
    index("asked.reference", unique=True, where={"asked.reference": {"$exists": True}}),
    index("gateway", "asked.gateway_reference", where={"asked.gateway_reference": {"$type": "string"}}),
    index("user_id", "-_id"),
    index("look_at", where={"look_at": {"$type": "date"}}),
    index("untold", where={"untold": {"$type": "date"}}),
    index("review", where={"review": {"$type": "string"}}),
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
                "amount_minor": {**_AMOUNT, "minimum": 1},
                "currency": _CURRENCY,
                "into": {"enum": ["primary", "call_credits"]},
                "status": {"enum": [status.value for status in Status]},
                "checkout_url": {"bsonType": ["string", "null"]},
                "created_at": {"bsonType": "date"},
                "paid_minor": _AMOUNT,
                "reversed_minor": _AMOUNT,
                "refunding_minor": _AMOUNT,
                "asked": {"bsonType": "array"},
                "version": _AMOUNT,
                "review": {"bsonType": ["string", "null"]},
                "look_at": {"bsonType": ["date", "null"]},
            },
        },
        # Never more goes back than came.
        "$expr": {"$lte": [{"$ifNull": ["$reversed_minor", 0]}, {"$ifNull": ["$paid_minor", AMOUNT_MAX]}]},
    },
)


class PaymentStore:
    """Reads and guarded writes of payments."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._payments = db[PAYMENTS]

    async def add(
        self,
        payment: Payment,
        session: Session | None = None,
        *,
        opening_until: datetime | None = None,
        untold: datetime | None = None,
    ) -> None:
        """Keep a new payment; whoever does may open its checkout until then.

        Raises ``DuplicateKeyError`` when there is one of this reference.
        """
        row = {
            "_id": payment.id,
            "reference": payment.reference,
            "user_id": payment.user_id,
            "gateway": payment.gateway,
            "amount_minor": payment.amount_minor,
            "currency": payment.currency,
            "into": payment.into,
            "checkout_url": payment.checkout_url,
            "created_at": payment.created_at,
            "look_at": payment.look_at,
            "tries": payment.tries,
            "opening_until": opening_until,
            **_state(payment),
        }
        if untold is not None:
            row["untold"] = untold
        await self._payments.insert_one(row, session=session)

    async def swap(
        self,
        before: Payment,
        after: Payment,
        *,
        untold: datetime | None = None,
        session: Session | None = None,
    ) -> bool:
        """Write what ``after`` says, unless the payment has changed since ``before``; ``after`` has its version.

        ``untold``: since when its owner is to be told of it.
        """
        assert after.version == before.version + 1
        change: Document = {
            **_state(after),
            "checkout_url": after.checkout_url,
            "look_at": after.look_at,
            "tries": after.tries,
        }
        if untold is not None:
            change["untold"] = untold
        # A row of before there were versions has none.
        version: Any = before.version if before.version else {"$in": [0, None]}
        done = await self._payments.update_one(
            {"_id": before.id, "version": version}, {"$set": change}, session=session
        )
        return bool(done.matched_count)

    async def find(self, payment_id: str) -> Payment | None:
        """A payment by its id."""
        found = await self._payments.find_one({"_id": payment_id})
        return payment_of(found) if found else None

    async def by_reference(self, reference: str) -> Payment | None:
        """A payment by its reference, or by that of one of its checkouts."""
        query = {"$or": [{"reference": reference}, {"asked.reference": reference}]}
        found = await self._payments.find_one(query)
        return payment_of(found) if found else None

    async def by_gateway_reference(self, gateway: str, reference: str) -> Payment | None:
        """A payment by what its gateway calls it."""
        found = await self._payments.find_one({"gateway": gateway, "asked.gateway_reference": reference})
        return payment_of(found) if found else None

    async def of_user(
        self, user_id: str, *, before_id: str | None, most: int, besides: str | None = None
    ) -> list[Payment]:
        """A user's payments, the newest first (ids rise with time), below an id, without those of one gateway."""
        query: Document = {"user_id": user_id}
        if besides is not None:
            query["gateway"] = {"$ne": besides}
        if before_id is not None:
            query["_id"] = {"$lt": before_id}
        cursor = self._payments.find(query, sort=[("_id", -1)]).limit(most)
        return [payment_of(d) async for d in cursor]

    async def newest(
        self, limit: int, *, status: Status | None = None, review: bool = False
    ) -> list[Payment]:
        """Payments, the newest first, at most ``limit``; only those in ``status``, only those for a person."""
        query: Document = {} if status is None else {"status": status.value}
        if review:
            query["review"] = {"$type": "string"}
        cursor = self._payments.find(query, sort=[("_id", -1)]).limit(limit)
        return [payment_of(d) async for d in cursor]

    # ---------------------------------------------------------------------------------------------- looking, telling

    async def open(self, payment_id: str, now: datetime, until: datetime) -> Payment | None:
        """Take the right to open its checkout until then; None while another has it, or when it is open."""
        free = [{"opening_until": None}, {"opening_until": {"$lte": now}}]
        found = await self._payments.find_one_and_update(
            {"_id": payment_id, "checkout_url": None, "$or": free},
            {"$set": {"opening_until": until}},
            return_document=ReturnDocument.AFTER,
        )
        return payment_of(found) if found else None

    async def opened(self, payment_id: str) -> None:
        """Give that right back."""
        await self._payments.update_one({"_id": payment_id}, {"$set": {"opening_until": None}})

    async def claim(self, now: datetime, until: datetime) -> Payment | None:
        """The payment that is due to be looked at the longest, for whoever asks until ``until``."""
        found = await self._payments.find_one_and_update(
            {"look_at": {"$type": "date", "$lte": now}},
            {"$set": {"look_at": until}},
            sort=[("look_at", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return payment_of(found) if found else None

    async def overdue(self, now: datetime) -> Overdue:
        """What is to be looked at and was not."""
        return await overdue(
            self._payments, now, by="look_at", where={"look_at": {"$type": "date", "$lte": now}}
        )

    async def look_again(self, payment_id: str, at: datetime | None, tries: int) -> None:
        """When it is looked at next."""
        await self._payments.update_one({"_id": payment_id}, {"$set": {"look_at": at, "tries": tries}})

    async def look_by(self, payment_id: str, at: datetime) -> None:
        """Look at it at that time if not earlier."""
        query = {"_id": payment_id, "$or": [{"look_at": None}, {"look_at": {"$gt": at}}]}
        await self._payments.update_one(query, {"$set": {"look_at": at}})

    async def may_ask(self, payment_id: str, now: datetime, seconds: float) -> bool:
        """Whether nobody has asked for this one within so many seconds; it counts as asked then."""
        before = now - timedelta(seconds=seconds)
        query = {"_id": payment_id, "$or": [{"asked_at": None}, {"asked_at": {"$lte": before}}]}
        done = await self._payments.update_one(query, {"$set": {"asked_at": now}})
        return bool(done.matched_count)

    async def untold(self, before: datetime, most: int) -> list[Payment]:
        """Payments whose change, made before a time, was not told by whoever made it."""
        cursor = self._payments.find({"untold": {"$type": "date", "$lte": before}}).limit(most)
        return [payment_of(d) async for d in cursor]

    async def told(self, payment: Payment) -> None:
        """The owner was told of it as it is at this version."""
        query = {"_id": payment.id, "version": payment.version}
        await self._payments.update_one(query, {"$unset": {"untold": ""}})


def _state(payment: Payment) -> Document:
    card = payment.card
    return {
        "status": payment.status.value,
        "asked": [
            {
                "reference": one.reference,
                "gateway_reference": one.gateway_reference,
                "paid_minor": one.paid_minor,
                "reversed_minor": one.reversed_minor,
            }
            for one in payment.asked
        ],
        "paid_minor": payment.paid_minor,
        "reversed_minor": payment.reversed_minor,
        "refunding_minor": payment.refunding_minor,
        "credits": payment.credits,
        "reversals": payment.reversals,
        "fee_minor": payment.fee_minor,
        "card": None
        if card is None
        else {"token": card.token, "last4": card.last4, "brand": card.brand, "expires": card.expires},
        "word": payment.word,
        "review": payment.review,
        "version": payment.version,
        "completed_at": payment.completed_at,
    }


def payment_of(d: dict[str, Any]) -> Payment:
    """A document as a payment. One of before there was a checkout was credited when it was made."""
    old = d["amount_minor"] if "asked" not in d and d["status"] == Status.COMPLETED.value else 0
    card = d.get("card")
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
        asked=tuple(Asked(**one) for one in d["asked"])
        if "asked" in d
        else (Asked(reference=d["reference"], paid_minor=old),),
        paid_minor=d.get("paid_minor", old),
        reversed_minor=d.get("reversed_minor", 0),
        refunding_minor=d.get("refunding_minor", 0),
        credits=d.get("credits", 1 if old else 0),
        reversals=d.get("reversals", 0),
        fee_minor=d.get("fee_minor"),
        card=CardToken(**card) if card else None,
        word=d.get("word", ""),
        review=d.get("review"),
        version=d.get("version", 0),
        completed_at=d.get("completed_at", d["created_at"] if old else None),
        look_at=d.get("look_at"),
        tries=d.get("tries", 0),
    )

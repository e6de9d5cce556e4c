"""Refunds in MongoDB. Every step goes from the stage in which the refund was read."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pymongo import ReturnDocument

from models.backlog.store import Overdue, overdue
from models.db import Database, Session, collection, index
from models.money import AMOUNT_MAX
from models.payments.payment import OPEN_REFUNDS, Refund, RefundStage

REFUNDS = collection(
    "refunds",
    index("payment_id"),
    index("look_at", where={"look_at": {"$type": "date"}}),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": [
                "_id",
                "payment_id",
                "gateway",
                "asked",
                "amount_minor",
                "currency",
                "stage",
                "number",
            ],
            "properties": {
                "amount_minor": {"bsonType": ["int", "long"], "minimum": 1, "maximum": AMOUNT_MAX},
                "currency": {"bsonType": "string", "pattern": "^[A-Z]{3}$"},
                "stage": {"enum": [stage.value for stage in RefundStage]},
            },
        }
    },
)


class RefundStore:
    """Reads and guarded writes of refunds."""

    def __init__(self, db: Database) -> None:
        self._refunds = db[REFUNDS]

    async def add(self, refund: Refund, session: Session) -> None:
        """Keep a new refund, within the transaction that takes its money."""
        row = {
            "_id": refund.id,
            "payment_id": refund.payment_id,
            "gateway": refund.gateway,
            "asked": refund.asked,
            "amount_minor": refund.amount_minor,
            "currency": refund.currency,
            "reason": refund.reason,
            "number": refund.number,
            "stage": refund.stage.value,
            "created_at": refund.created_at,
            "gateway_reference": refund.gateway_reference,
            "word": refund.word,
            "review": refund.review,
            "look_at": refund.look_at,
            "tries": refund.tries,
        }
        await self._refunds.insert_one(row, session=session)

    async def find(self, refund_id: str) -> Refund | None:
        """A refund by our reference."""
        found = await self._refunds.find_one({"_id": refund_id})
        return refund_of(found) if found else None

    async def of_payment(self, payment_id: str) -> list[Refund]:
        """A payment's refunds, the oldest first."""
        cursor = self._refunds.find({"payment_id": payment_id}, sort=[("number", 1)]).limit(1000)
        return [refund_of(d) async for d in cursor]

    async def for_review(self, limit: int) -> list[Refund]:
        """Refunds that a person has to look at."""
        cursor = self._refunds.find({"review": {"$type": "string"}}).limit(limit)
        return [refund_of(d) async for d in cursor]

    async def move(
        self, refund: Refund, stage: RefundStage, *, session: Session | None = None, **changes: Any
    ) -> bool:
        """Put it from the stage in which it was read to another; False when it is in that stage no more."""
        change = {"stage": stage.value, **changes}
        done = await self._refunds.update_one(
            {"_id": refund.id, "stage": refund.stage.value}, {"$set": change}, session=session
        )
        return bool(done.matched_count)

    async def claim(self, now: datetime, until: datetime) -> Refund | None:
        """The open refund that is due the longest, for whoever asks until ``until``."""
        found = await self._refunds.find_one_and_update(
            {
                "look_at": {"$type": "date", "$lte": now},
                "stage": {"$in": [stage.value for stage in OPEN_REFUNDS]},
            },
            {"$set": {"look_at": until}},
            sort=[("look_at", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return refund_of(found) if found else None

    async def overdue(self, now: datetime) -> Overdue:
        """What is due and not done."""
        return await overdue(
            self._refunds, now, by="look_at", where={"look_at": {"$type": "date", "$lte": now}}
        )

    async def look_by(self, refund_id: str, at: datetime) -> None:
        """Look at it at that time if not earlier."""
        await self._refunds.update_one({"_id": refund_id, "look_at": {"$gt": at}}, {"$set": {"look_at": at}})


def refund_of(d: dict[str, Any]) -> Refund:
    """A document as a refund."""
    return Refund(
        id=d["_id"],
        payment_id=d["payment_id"],
        gateway=d["gateway"],
        asked=d["asked"],
        amount_minor=d["amount_minor"],
        currency=d["currency"],
        reason=d["reason"],
        number=d["number"],
        stage=RefundStage(d["stage"]),
        created_at=d["created_at"],
        gateway_reference=d["gateway_reference"],
        word=d["word"],
        review=d["review"],
        look_at=d["look_at"],
        tries=d["tries"],
    )

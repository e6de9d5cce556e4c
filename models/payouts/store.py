"""Payouts in MongoDB. Every change is guarded by the version it was computed from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime

from pymongo import ReturnDocument

from models.also import Also
from models.backlog.store import Overdue, overdue
from models.db import (
    Database,
    Document,
    DuplicateKeyError,
    Session,
    Stale,
    collection,
    index,
    taken,
)
from models.money import AMOUNT_MAX
from models.payouts.payout import Destination, Payout, Reason, Stage

_TEXT = {"bsonType": "string"}
_DATE = {"bsonType": "date"}
_WHOLE = {"bsonType": ["int", "long"], "minimum": 0, "maximum": AMOUNT_MAX}

PAYOUTS = collection(
    "payouts",
    index("reference", unique=True),
    # A retry is the same withdrawal, for ever.
    index("user_id", "key", unique=True),
    index("gateway_reference", "gateway", where={"gateway_reference": {"$exists": True}}),
    index("user_id", "-_id"),
    index("user_id", "created_at"),
    index("look_at", where={"look_at": {"$exists": True}}),
    index("tell_at", where={"tell_at": {"$exists": True}}),
    index("stage", "-_id"),
    index("stage_at", where={"review": {"$exists": True}}),
    index("-stage_at", where={"stage": Stage.APPROVAL.value}),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": [
                *("_id", "reference", "key", "user_id", "gateway", "amount_minor", "fee_minor", "currency"),
                *("to", "stage", "stage_at", "created_at", "give_up_at", "version"),
            ],
            "properties": {
                "_id": _TEXT,
                "reference": {"bsonType": "string", "pattern": "^[A-Za-z0-9-]{1,64}$"},
                "key": _TEXT,
                "user_id": _TEXT,
                "gateway": _TEXT,
                "amount_minor": {**_WHOLE, "minimum": 1},
                "fee_minor": _WHOLE,
                "currency": {"bsonType": "string", "pattern": "^[A-Z]{3}$"},
                "to": {"bsonType": "object"},
                "stage": {"enum": [stage.value for stage in Stage]},
                "reason": {"enum": [None, *(reason.value for reason in Reason)]},
                "stage_at": _DATE,
                "created_at": _DATE,
                "give_up_at": _DATE,
                # These are there or not: the indexes have only those that are.
                "look_at": _DATE,
                "tell_at": _DATE,
                "review": _TEXT,
                "version": _WHOLE,
            },
        }
    },
)


_SPARSE = ("look_at", "tell_at", "review", "gateway_reference")


class KeyTaken(Exception):
    """This user has asked for a payout under this key before."""


class PayoutStore:
    """``PayoutStore(db)``."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._payouts = db[PAYOUTS]

    async def add(self, payout: Payout, session: Session) -> None:
        """Keep a new payout, within a transaction. Raises ``KeyTaken``."""
        try:
            await self._payouts.insert_one(_row(payout), session=session)
        except DuplicateKeyError as error:
            if taken(error) != "user_id":
                raise
            raise KeyTaken from None

    async def asked_since(
        self, user_id: str, since: datetime, session: Session | None = None
    ) -> dict[str, int]:
        """What a user has asked for since then and has not got back, by currency, in minor units, without fees."""
        gone = [stage.value for stage in Stage if stage not in (Stage.FAILED, Stage.REVERSED)]
        query = {"user_id": user_id, "created_at": {"$gt": since}, "stage": {"$in": gone}}
        sums: dict[str, int] = {}
        async for row in self._payouts.find(query, {"amount_minor": 1, "currency": 1}, session=session):
            sums[row["currency"]] = sums.get(row["currency"], 0) + int(row["amount_minor"])
        return sums

    async def find(self, payout_id: str) -> Payout | None:
        """A payout by its id."""
        return _payout(await self._payouts.find_one({"_id": payout_id}))

    async def by_reference(self, reference: str) -> Payout | None:
        """A payout by what the gateway calls it."""
        return _payout(await self._payouts.find_one({"reference": reference}))

    async def by_gateway_reference(self, gateway: str, reference: str) -> Payout | None:
        """A payout by what its gateway calls it among its own."""
        return _payout(await self._payouts.find_one({"gateway_reference": reference, "gateway": gateway}))

    async def by_key(self, user_id: str, key: str) -> Payout | None:
        """What a user has asked for under an idempotency key."""
        return _payout(await self._payouts.find_one({"user_id": user_id, "key": key}))

    async def of_user(self, user_id: str, *, before_id: str | None, most: int) -> list[Payout]:
        """A user's payouts, the newest first (ids rise with time), below an id."""
        query: Document = {"user_id": user_id}
        if before_id is not None:
            query["_id"] = {"$lt": before_id}
        return [payout_of(row) async for row in self._payouts.find(query, sort=[("_id", -1)]).limit(most)]

    async def some(self, stages: Collection[Stage] | None, *, review: bool, most: int) -> list[Payout]:
        """Payouts in some stages (None: in any), newest first; with ``review`` only those that need a person."""
        query: Document = {} if stages is None else {"stage": {"$in": [stage.value for stage in stages]}}
        if review:
            query["review"] = {"$exists": True}
        return [payout_of(row) async for row in self._payouts.find(query, sort=[("_id", -1)]).limit(most)]

    # ------------------------------------------------------------------------------------------------------- changes

    async def swap(self, before: Payout, after: Payout, session: Session | None = None) -> None:
        """Put ``after`` where ``before`` is. Raises ``Stale`` when somebody has changed it meanwhile."""
        assert after.version == before.version + 1, "a change is one version"
        row = _row(after)
        query = {"_id": before.id, "version": before.version}
        done = await self._payouts.replace_one(query, row, session=session)
        if done.matched_count != 1:
            raise Stale(before.id)

    async def swap_with(self, before: Payout, after: Payout, also: Also) -> None:
        """The same with ``also`` in one transaction."""

        async def body(session: Session) -> None:
            await self.swap(before, after, session)
            await also(session)

        await self._db.transaction(body)

    async def claim(self, now: datetime, until: datetime) -> Payout | None:
        """Take the payout that has been due for longest; the others leave it alone until then.

        It has a new version, so that whoever took it before and stood still changes nothing any more.
        """
        found = await self._payouts.find_one_and_update(
            {"look_at": {"$lte": now}},
            {"$set": {"look_at": until}, "$inc": {"version": 1}},
            sort=[("look_at", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return _payout(found)

    async def hurry(self, reference: str, now: datetime) -> Payout | None:
        """Something may have happened to it: it is due now, whatever it is. None: it is not ours.

        Nor one that waits for approval: no gateway has heard of it.
        """
        found = await self._payouts.find_one_and_update(
            {"reference": reference, "stage": {"$ne": Stage.APPROVAL.value}},
            {"$set": {"look_at": now}, "$inc": {"version": 1}},
            return_document=ReturnDocument.AFTER,
        )
        return _payout(found)

    async def claim_untold(self, now: datetime, until: datetime) -> Payout | None:
        """Take a payout whose owner has not been told in time; the others leave it alone until then."""
        found = await self._payouts.find_one_and_update(
            {"tell_at": {"$lte": now}},
            {"$set": {"tell_at": until}},
            sort=[("tell_at", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return _payout(found)

    async def told(self, payout: Payout) -> None:
        """Its owner has been told of where it was then."""
        query = {"_id": payout.id, "stage": payout.stage.value}
        await self._payouts.update_one(query, {"$unset": {"tell_at": ""}})

    async def overdue(self, now: datetime) -> Overdue:
        """What is due and not done."""
        return await overdue(self._payouts, now, by="look_at")

    async def reviewed(self, now: datetime) -> Overdue:
        """What waits for a person."""
        return await overdue(self._payouts, now, by="stage_at", where={"review": {"$exists": True}})

    async def unapproved(self, now: datetime) -> Overdue:
        """What waits for an administrator's approval."""
        where = {"stage": {"$eq": Stage.APPROVAL.value}}
        return await overdue(self._payouts, now, by="stage_at", where=where)


def _row(payout: Payout) -> Document:
    row = asdict(payout)
    row["_id"] = row.pop("id")
    row["stage"] = payout.stage.value
    row["reason"] = payout.reason.value if payout.reason else None
    return {name: value for name, value in row.items() if value is not None or name not in _SPARSE}


def _payout(row: Document | None) -> Payout | None:
    return payout_of(row) if row else None


def payout_of(row: Document) -> Payout:
    """A document as a payout."""
    fields = {name: value for name, value in row.items() if name != "_id"}
    return Payout(
        **{
            **dict.fromkeys(_SPARSE),
            **fields,
            "id": row["_id"],
            "to": Destination(**row["to"]),
            "stage": Stage(row["stage"]),
            "reason": Reason(row["reason"]) if row["reason"] else None,
        }
    )

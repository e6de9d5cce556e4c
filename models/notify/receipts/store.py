"""Receipts to ask for, in MongoDB: one document per push that a provider took without knowing its end.

A worker holds a share of them by ``lease`` until ``lease_until``. A document goes when its receipt is known, and at
the latest when the provider has forgotten it, too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from models.backlog.store import Overdue, overdue
from models.db import Database, collection, index
from models.notify.ports import KINDS

RECEIPTS = collection(
    "push_receipts",
    # _id is the provider's id of the receipt.
    index("kind", "check_at"),
    index("lease"),
    index("purge_at", ttl_seconds=0),
)
# Devices that asked for fewer notifications; _id is the token.
QUIET = collection("push_quiet", index("until", ttl_seconds=0))

# Expo writes receipts within some fifteen minutes, and forgets them after a day.
CHECK_AFTER = timedelta(minutes=15)
FORGOTTEN_AFTER = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A receipt that will be there: of which push."""

    id: str
    kind: str
    token: str
    sent_at: datetime


class ReceiptStore:
    """Keeps, leases and drops receipts, and remembers who wants quiet."""

    def __init__(self, db: Database) -> None:
        self._rows = db[RECEIPTS]
        self._quiet = db[QUIET]

    async def keep(self, receipts: Sequence[Receipt], now: datetime) -> None:
        """Remember to ask."""
        if not receipts:
            return
        await self._rows.insert_many(
            [
                {
                    "_id": receipt.id,
                    "kind": receipt.kind,
                    "token": receipt.token,
                    "sent_at": receipt.sent_at,
                    "check_at": now + CHECK_AFTER,
                    "lease_until": now,
                    "purge_at": now + FORGOTTEN_AFTER,
                }
                for receipt in receipts
            ],
        )

    async def claim(
        self, now: datetime, *, kind: str, lease: str, lease_until: datetime, most: int
    ) -> list[Receipt]:
        """Take receipts of a provider that are due, the oldest first, for this worker alone until ``lease_until``."""
        due = {"kind": kind, "check_at": {"$lte": now}, "lease_until": {"$lte": now}}
        cursor = self._rows.find(due, {"_id": 1}, sort=[("check_at", 1)]).limit(most)
        ids = [row["_id"] async for row in cursor]
        if not ids:
            return []
        mine = {"$set": {"lease": lease, "lease_until": lease_until}}
        await self._rows.update_many({**due, "_id": {"$in": ids}}, mine)
        return [
            Receipt(id=row["_id"], kind=row["kind"], token=row["token"], sent_at=row["sent_at"])
            async for row in self._rows.find({"lease": lease})
        ]

    async def overdue(self, now: datetime) -> Overdue:
        """What is due and not done."""
        return await overdue(self._rows, now, by="check_at", where={"kind": {"$in": KINDS}})

    async def settle(self, lease: str, *, known: Collection[str], again_at: datetime, now: datetime) -> None:
        """Give a share back: the ``known`` go, the rest is due at ``again_at``."""
        await self._rows.delete_many({"lease": lease, "_id": {"$in": list(known)}})
        rest = {"$set": {"check_at": again_at, "lease_until": now}, "$unset": {"lease": ""}}
        await self._rows.update_many({"lease": lease}, rest)

    async def hush(self, tokens: Collection[str], until: datetime) -> None:
        """These devices want no messages until then."""
        for token in tokens:
            await self._quiet.update_one({"_id": token}, {"$max": {"until": until}}, upsert=True)

    async def hushed(self, tokens: Collection[str], now: datetime) -> set[str]:
        """Which of these want no messages now."""
        if not tokens:
            return set()
        query = {"_id": {"$in": list(tokens)}, "until": {"$gt": now}}
        return {row["_id"] async for row in self._quiet.find(query, {"_id": 1})}

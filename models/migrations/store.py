"""What has been migrated, by whom and when, and who does it now.

One document per migration (``_id`` is its name), and one for the lease. A lease that is not renewed is anybody's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from models.db import Database, Document, DuplicateKeyError, collection

MIGRATIONS = collection("migrations")
LEASE = "lease"
LEASE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Record:
    """A migration that was begun: how often, when and by whom last, and when it was done."""

    name: str
    by: str
    tries: int
    begun_at: datetime
    done_at: datetime | None


class MigrationStore:
    """The records and the lease."""

    def __init__(self, db: Database) -> None:
        self._rows = db[MIGRATIONS]

    async def records(self) -> dict[str, Record]:
        """Every migration that was begun, by name."""
        found = await self._rows.find({"_id": {"$ne": LEASE}}).to_list()
        return {d["_id"]: _record(d) for d in found}

    async def holder(self, now: datetime) -> str | None:
        """Who has the lease."""
        found = await self._rows.find_one({"_id": LEASE, "until": {"$gt": now}})
        return str(found["by"]) if found else None

    async def take(self, by: str, now: datetime) -> bool:
        """Take the lease, when it is nobody's or one's own."""
        free: Document = {"_id": LEASE, "$or": [{"until": {"$lte": now}}, {"by": by}]}
        try:
            await self._rows.update_one(free, {"$set": _lease(by, now)}, upsert=True)
        except DuplicateKeyError:
            return False
        return True

    async def renew(self, by: str, now: datetime) -> bool:
        """Keep the lease; False when it is another's by now."""
        done = await self._rows.update_one({"_id": LEASE, "by": by}, {"$set": _lease(by, now)})
        return bool(done.matched_count)

    async def give_back(self, by: str) -> None:
        """Let go of the lease."""
        await self._rows.delete_one({"_id": LEASE, "by": by})

    async def begin(self, name: str, by: str, now: datetime) -> None:
        """Say that a migration begins."""
        change = {"$set": {"by": by, "begun_at": now}, "$inc": {"tries": 1}}
        await self._rows.update_one({"_id": name}, change, upsert=True)

    async def done(self, name: str, now: datetime) -> None:
        """Say that it is done; the first who says so is right."""
        await self._rows.update_one({"_id": name, "done_at": None}, {"$set": {"done_at": now}})


def _lease(by: str, now: datetime) -> dict[str, Any]:
    return {"by": by, "until": now + timedelta(seconds=LEASE_SECONDS)}


def _record(d: Document) -> Record:
    return Record(
        name=d["_id"], by=d["by"], tries=d["tries"], begun_at=d["begun_at"], done_at=d.get("done_at")
    )

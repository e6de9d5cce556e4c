"""To-dos of pushes in MongoDB: one document per call.

``due_at`` is there while something is to be done. A worker holds a document by ``lease`` until ``lease_until``; what
it writes back is guarded by that name, so a worker that was taken for dead changes nothing. Since there is one
document per call, a cancel waits until the ring that is on its way has an outcome: it cannot overtake it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from pymongo import ReturnDocument

from models.backlog.store import Overdue, overdue
from models.db import Database, Document, DuplicateKeyError, collection, index
from models.notify.rings.todo import Todo, What

PUSHES = collection(
    "pushes",
    index("what", "due_at", where={"due_at": {"$exists": True}}),
    index("purge_at", ttl_seconds=0),
)

# A call's document also keeps a late ring from coming after its cancel; nothing is that late.
KEPT_HOURS = 24


class RingStore:
    """Keeps, leases and settles to-dos."""

    def __init__(self, db: Database) -> None:
        self._rows = db[PUSHES]

    async def add_ring(
        self,
        *,
        call_id: str,
        call_type: str,
        caller: Mapping[str, Any],
        callee_id: str,
        rings_until: datetime,
        now: datetime,
    ) -> bool:
        """Keep a ring to be pushed. False: the call has its document already (rung before, or over already)."""
        row = {
            "_id": call_id,
            **_fresh(What.RING, call_type, caller, callee_id, now, rings_until),
            "started_at": now,
            "rings_until": rings_until,
            "lease_until": now,
            "purge_at": rings_until + timedelta(hours=KEPT_HOURS),
        }
        try:
            await self._rows.insert_one(row)
        except DuplicateKeyError:
            return False
        return True

    async def turn_into(
        self,
        what: What,
        *,
        call_id: str,
        call_type: str,
        caller: Mapping[str, Any],
        callee_id: str,
        give_up_at: datetime,
        answered_on: str | None,
        now: datetime,
    ) -> bool:
        """Make the call's ring (sent or not, known or not) a missed or cancelled call. False: it was that already."""
        change = {
            "$set": {
                **_fresh(what, call_type, caller, callee_id, now, give_up_at),
                "answered_on": answered_on,
            },
            "$setOnInsert": {
                "started_at": now,
                "rings_until": now,
                "lease_until": now,
                "purge_at": now + timedelta(hours=KEPT_HOURS),
            },
        }
        ring = {"_id": call_id, "what": What.RING.value}
        # The second try is for a ring that is being inserted at this very moment.
        for _ in range(2):
            try:
                await self._rows.update_one(ring, change, upsert=True)
                return True
            except DuplicateKeyError:
                continue
        return False

    async def claim(
        self, whats: Collection[What], now: datetime, *, lease: str, lease_until: datetime
    ) -> Todo | None:
        """Take the to-do of one of these sorts that has been due for longest, for this worker alone until then."""
        found = await self._rows.find_one_and_update(
            {
                "what": {"$in": [what.value for what in whats]},
                "due_at": {"$lte": now},
                "lease_until": {"$lte": now},
            },
            {"$set": {"lease": lease, "lease_until": lease_until}, "$inc": {"attempts": 1}},
            sort=[("due_at", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return _todo(found) if found else None

    async def overdue(self, now: datetime) -> Overdue:
        """What is due and not done."""
        return await overdue(self._rows, now, where={"what": {"$in": [what.value for what in What]}})

    async def begin_ring(self, todo: Todo) -> bool:
        """Say that the ring goes out now. False: it was taken back or is another worker's; nothing may be sent."""
        guard = {"_id": todo.call_id, "lease": todo.lease, "what": What.RING.value}
        return (await self._rows.update_one(guard, {"$set": {"rung": True}})).matched_count == 1

    async def settle(
        self,
        todo: Todo,
        *,
        told: Collection[str],
        refused: Collection[str],
        next_at: datetime | None,
        now: datetime,
    ) -> bool:
        """Give the to-do back: finished, or due again at ``next_at``. False: it is no longer this worker's.

        When it has become something else in the meantime, that is due as it stands.
        """
        mine = {"_id": todo.call_id, "lease": todo.lease}
        change: Document = {"$set": {"told": sorted(told), "refused": sorted(refused), "lease_until": now}}
        if next_at is None:
            change["$unset"] = {"due_at": "", "lease": ""}
        else:
            change["$set"]["due_at"] = next_at
            change["$unset"] = {"lease": ""}
        if (await self._rows.update_one({**mine, "what": todo.what.value}, change)).matched_count:
            return True
        free = {"$set": {"lease_until": now}, "$unset": {"lease": ""}}
        return (await self._rows.update_one(mine, free)).matched_count == 1


def _fresh(
    what: What, call_type: str, caller: Mapping[str, Any], callee_id: str, now: datetime, give_up_at: datetime
) -> Document:
    return {
        "what": what.value,
        "call_type": call_type,
        "caller": dict(caller),
        "callee_id": callee_id,
        "due_at": now,
        "give_up_at": give_up_at,
        "attempts": 0,
        "told": [],
        "refused": [],
    }


def _todo(d: Document) -> Todo:
    return Todo(
        call_id=d["_id"],
        what=What(d["what"]),
        call_type=d["call_type"],
        caller=d["caller"],
        callee_id=d["callee_id"],
        # The lists and the start are missing in to-dos that an earlier version left behind.
        started_at=d["started_at"] if "started_at" in d else d["rings_until"],
        rings_until=d["rings_until"],
        give_up_at=d["give_up_at"],
        attempts=d["attempts"],
        told=frozenset(d.get("told", [])),
        refused=frozenset(d.get("refused", [])),
        rung=d.get("rung", False),
        answered_on=d.get("answered_on"),
        lease=d["lease"],
    )

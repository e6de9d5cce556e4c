"""To-dos of invitations in MongoDB: one document per person and room, leased as in models/notify/rings/store.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from pymongo import ReturnDocument

from models.backlog.store import Overdue, overdue
from models.db import Database, Document, DuplicateKeyError, collection, index
from models.notify.invites.rules import AGAIN_AFTER, GIVE_UP_AFTER, Invite

INVITES = collection(
    "push_invites",
    # _id is user and room.
    index("due_at", where={"due_at": {"$exists": True}}),
    index("purge_at", ttl_seconds=0),
)
KEPT = timedelta(hours=24)


class InviteStore:
    """Keeps, leases and settles invitations."""

    def __init__(self, db: Database) -> None:
        self._rows = db[INVITES]

    async def add(
        self, *, room_id: str, room_name: str | None, by: Mapping[str, Any], user_id: str, now: datetime
    ) -> bool:
        """Keep an invitation to be told. False: the same was kept a moment ago."""
        change = {
            "$set": {
                "user_id": user_id,
                "room_id": room_id,
                "room_name": room_name,
                "by": dict(by),
                "due_at": now,
                "give_up_at": now + GIVE_UP_AFTER,
                "again_at": now + AGAIN_AFTER,
                "attempts": 0,
                "told": [],
                "refused": [],
                "purge_at": now + KEPT,
            },
            "$setOnInsert": {"lease_until": now},
        }
        ripe = {"_id": f"{user_id}:{room_id}", "again_at": {"$lte": now}}
        try:
            await self._rows.update_one(ripe, change, upsert=True)
        except DuplicateKeyError:  # it is there, and too young for another
            return False
        return True

    async def claim(self, now: datetime, *, lease: str, lease_until: datetime) -> Invite | None:
        """Take the invitation that has been due for longest, for this worker alone until ``lease_until``."""
        found = await self._rows.find_one_and_update(
            {"due_at": {"$lte": now}, "lease_until": {"$lte": now}},
            {"$set": {"lease": lease, "lease_until": lease_until}, "$inc": {"attempts": 1}},
            sort=[("due_at", 1)],
            return_document=ReturnDocument.AFTER,
        )
        return _invite(found) if found else None

    async def overdue(self, now: datetime) -> Overdue:
        """What is due and not done."""
        return await overdue(self._rows, now)

    async def settle(
        self,
        invite: Invite,
        *,
        told: Collection[str],
        refused: Collection[str],
        next_at: datetime | None,
        now: datetime,
    ) -> bool:
        """Give it back: finished, or due again at ``next_at``. False: it is no longer this worker's."""
        change: Document = {"$set": {"told": sorted(told), "refused": sorted(refused), "lease_until": now}}
        if next_at is None:
            change["$unset"] = {"due_at": "", "lease": ""}
        else:
            change["$set"]["due_at"] = next_at
            change["$unset"] = {"lease": ""}
        mine = {"_id": invite.id, "lease": invite.lease}
        return (await self._rows.update_one(mine, change)).matched_count == 1


def _invite(d: Document) -> Invite:
    return Invite(
        id=d["_id"],
        user_id=d["user_id"],
        room_id=d["room_id"],
        room_name=d["room_name"],
        by=d["by"],
        give_up_at=d["give_up_at"],
        attempts=d["attempts"],
        told=frozenset(d["told"]),
        refused=frozenset(d["refused"]),
        lease=d["lease"],
    )

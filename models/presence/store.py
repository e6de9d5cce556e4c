"""Who is connected, in MongoDB: one document for each person, with a lease for each of their devices.

A lease belongs to the process that holds the device's socket, and to nobody else: a device that has connected
elsewhere has its lease there, and the old process, which notices late that its socket is dead, finds none of its own
to take away. The leases of one person are in one document, so that what is folded from them was true at one instant.

``version`` and ``changed_at`` tell other processes that there is something to look at; ``by`` is who wrote last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import UpdateOne

from models.db import Database, Document, DuplicateKeyError, Session, collection, index
from models.presence.rules import DeviceState

_TEXT = {"bsonType": "string"}
_DATE = {"bsonType": "date"}

PRESENCE = collection(
    "presence",
    index("devices.process"),
    index("changed_at"),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "devices", "version", "changed_at"],
            "properties": {
                "devices": {
                    "bsonType": "array",
                    "items": {
                        "bsonType": "object",
                        "required": ["id", "process", "state", "focus", "since"],
                        "properties": {
                            "id": _TEXT,
                            "process": _TEXT,
                            "state": {"enum": ["online", "away"]},
                            "focus": {"bsonType": ["string", "null"]},
                            "since": _DATE,
                        },
                    },
                },
                "version": {"bsonType": ["int", "long"]},
                "changed_at": _DATE,
                "last_seen_at": _DATE,
            },
        }
    },
)

# Devices of one person that are kept; whoever has more connected is no less online. The oldest go first.
DEVICES_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A device's socket: at which process, what the device says of itself, and which conversation it shows."""

    device_id: str
    process: str
    state: DeviceState
    focus: str | None
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All leases of a person."""

    user_id: str
    leases: tuple[Lease, ...]
    last_seen_at: datetime | None
    version: int
    changed_at: datetime


class PresenceStore:
    """``PresenceStore(db, process)``: the leases of all, written in the name of one process."""

    def __init__(self, db: Database, process: str) -> None:
        self._rows = db[PRESENCE]
        self.process = process

    # ------------------------------------------------------------------------------------------------ own leases

    async def enter(self, user_id: str, lease: Lease, now: datetime) -> None:
        """The device is here, wherever it was before."""
        others = {"$filter": {"input": _DEVICES, "cond": {"$ne": ["$$this.id", lease.device_id]}}}
        entered = {"$concatArrays": [others, [{"$literal": _document(lease)}]]}
        change = [
            {
                "$set": {
                    "devices": {"$slice": [entered, -DEVICES_MAX]},
                    "changed_at": now,
                    "by": self.process,
                    "version": {"$add": [{"$ifNull": ["$version", 0]}, 1]},
                }
            }
        ]
        try:
            await self._rows.update_one({"_id": user_id}, change, upsert=True)
        except DuplicateKeyError:  # the first device of this person came elsewhere at the same moment
            await self._rows.update_one({"_id": user_id}, change)

    async def alter(self, user_id: str, lease: Lease, now: datetime) -> None:
        """The device says something else of itself. Nothing, if its lease is not ours any more."""
        change = self._mark(now, {"devices.$.state": lease.state, "devices.$.focus": lease.focus})
        await self._rows.update_one(self._held(user_id, lease.device_id), change)

    async def leave(self, user_id: str, device_id: str, *, seen_at: datetime, now: datetime) -> None:
        """The device is gone from here. Nothing, if it is elsewhere by now."""
        change = self._mark(now) | _without({"id": device_id, "process": self.process}, seen_at)
        await self._rows.update_one(self._held(user_id, device_id), change)

    async def restore(self, leases: Sequence[tuple[str, Lease]], now: datetime) -> None:
        """Enter (user, lease) again where somebody has taken the lease away; a device that is elsewhere stays there."""
        await self._rows.bulk_write(
            [
                UpdateOne(
                    {"_id": user_id, "devices.id": {"$ne": lease.device_id}},
                    self._mark(now) | {"$push": {"devices": _document(lease)}},
                )
                for user_id, lease in leases
            ],
            ordered=False,
        )

    async def touch(self, user_ids: Collection[str], now: datetime) -> None:
        """Something of these people has changed that is not here: other processes may look again."""
        change = self._mark(now) | {"$setOnInsert": {"devices": []}}
        await self._rows.bulk_write(
            [UpdateOne({"_id": user_id}, change, upsert=True) for user_id in user_ids], ordered=False
        )

    # ------------------------------------------------------------------------------------------- everybody's leases

    async def rows(self, user_ids: Collection[str]) -> dict[str, Row]:
        """What there is of these people, by id."""
        found = self._rows.find({"_id": {"$in": list(user_ids)}})
        return {document["_id"]: _row(document) async for document in found}

    async def elsewhere(self, most: int) -> list[Row]:
        """People with a device at another process, those who changed last first."""
        query = {"devices": {"$elemMatch": {"process": {"$ne": self.process}}}}
        return [_row(d) async for d in self._rows.find(query, sort=[("changed_at", -1)]).limit(most)]

    async def changed_since(self, since: datetime, most: int) -> list[Row]:
        """What other processes have changed at or after ``since``, the oldest change first."""
        query = {"changed_at": {"$gte": since}, "by": {"$ne": self.process}}
        return [_row(d) async for d in self._rows.find(query, sort=[("changed_at", 1)]).limit(most)]

    async def held_outside(self, processes: Collection[str], most: int) -> list[Row]:
        """People with a lease of a process that is not one of these."""
        query = {"devices": {"$elemMatch": {"process": {"$nin": list(processes)}}}}
        return [_row(d) async for d in self._rows.find(query).limit(most)]

    async def bury(self, dead: Sequence[tuple[str, str, datetime]], now: datetime) -> None:
        """Take away the leases of (user, process), which was last heard of at the instant beside it."""
        await self._rows.bulk_write(
            [
                UpdateOne(
                    {"_id": user_id, "devices.process": process},
                    self._mark(now) | _without({"process": process}, seen_at),
                )
                for user_id, process, seen_at in dead
            ],
            ordered=False,
        )

    # ------------------------------------------------------------------------- belongings of accounts (models/auth)

    async def drop_of_sessions(self, session_ids: Collection[str], transaction: Session) -> None:
        """Nothing: a lease goes with its socket, which closes with the sign-in."""

    async def drop_all(self, user_id: str, transaction: Session) -> None:
        """Keep nothing of a person whose account is deleted."""
        await self._rows.delete_one({"_id": user_id}, session=transaction)

    # ------------------------------------------------------------------------------------------------------ the guards

    def _held(self, user_id: str, device_id: str) -> Document:
        """The guard of every change: the lease is ours."""
        return {"_id": user_id, "devices": {"$elemMatch": {"id": device_id, "process": self.process}}}

    def _mark(self, now: datetime, change: Mapping[str, Any] | None = None) -> Document:
        return {"$set": {**(change or {}), "changed_at": now, "by": self.process}, "$inc": {"version": 1}}


_DEVICES = {"$ifNull": ["$devices", []]}


def _without(which: Document, seen_at: datetime) -> Document:
    return {"$pull": {"devices": which}, "$max": {"last_seen_at": seen_at}}


def _document(lease: Lease) -> Document:
    return {
        "id": lease.device_id,
        "process": lease.process,
        "state": lease.state,
        "focus": lease.focus,
        "since": lease.since,
    }


def _row(document: Document) -> Row:
    return Row(
        user_id=document["_id"],
        leases=tuple(
            Lease(
                device_id=one["id"],
                process=one["process"],
                state=one["state"],
                focus=one["focus"],
                since=one["since"],
            )
            for one in document["devices"]
        ),
        last_seen_at=document.get("last_seen_at"),
        version=document["version"],
        changed_at=document["changed_at"],
    )

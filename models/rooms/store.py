"""Rooms in MongoDB: one guarded swap per move, in a transaction where the books of people and sessions take part.

The document of a room holds everybody who is in it, so the last place goes to exactly one. ``room_people`` remembers
for each person the rooms that are theirs to see: owned, invited to, been in. It is written with the move.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pymongo import UpdateOne

from models.calls.call import Price
from models.db import Database, Document, DuplicateKeyError, Session, collection, index, taken
from models.rooms.logs.store import LogStore
from models.rooms.room import (
    Access,
    Closed,
    Fact,
    Participant,
    Room,
    Seat,
)
from models.rooms.room import Session as RoomSession
from models.rooms.rules import Step

ROOMS = collection(
    "rooms",
    # Partial indexes: what the jobs look for is a handful among all the rooms that ever were.
    index("deadline_at", where={"deadline_at": {"$type": "date"}}),
    index("untold_at", where={"untold_at": {"$type": "date"}}),
    index("occupied", where={"occupied": True}),
    index("participants.user_id", where={"occupied": True}),
    index("changed_at"),
    index("owner_id", "closed_at"),
    index("owner_id", "op_id", unique=True, where={"op_id": {"$type": "string"}}),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "version", "type", "access", "owner_id", "capacity", "participants"],
            "properties": {
                "version": {"bsonType": ["int", "long"], "minimum": 1},
                "type": {"enum": ["audio", "video"]},
                "access": {"enum": [access.value for access in Access]},
                "capacity": {"bsonType": ["int", "long"], "minimum": 2, "maximum": 100},
                "participants": {"bsonType": "array", "maxItems": 100},
                "close_reason": {"enum": [None, *(reason.value for reason in Closed)]},
            },
        },
        # Nobody writes one more into a room than it holds, whatever program it is.
        "$expr": {"$lte": [{"$size": "$participants"}, "$capacity"]},
    },
)
PEOPLE = collection("room_people", index("user_id", "-room_id"), index("room_id"))

# Rooms that are looked at in one turn of a job.
TURN_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Membership:
    """What a room is to somebody: ``joined`` who has been in it."""

    room_id: str
    joined: bool


class RoomStore:
    """Loads, guarded swaps and queries of rooms."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._rooms = db[ROOMS]
        self._people = db[PEOPLE]
        self.logs = LogStore(db)

    # ------------------------------------------------------------------------------------------------- one room

    async def load(self, room_id: str) -> Room | None:
        """The room at its present version."""
        found = await self._rooms.find_one({"_id": room_id})
        return room_of(found) if found else None

    async def by_op(self, owner_id: str, op_id: str) -> Room | None:
        """The room that its owner made with this ``opId``."""
        found = await self._rooms.find_one({"owner_id": owner_id, "op_id": op_id})
        return room_of(found) if found else None

    async def create(self, room: Room, *, deadline_at: datetime | None, now: datetime) -> bool:
        """Insert a room with its owner's line; False when its ``opId`` is there already."""

        async def body(session: Session) -> None:
            document = {"_id": room.id, **_document(room, deadline_at, now)}
            await self._rooms.insert_one(document, session=session)
            await self._people.bulk_write([_line(room.id, room.owner_id, {}, now)], session=session)

        try:
            await self._db.transaction(body)
        except DuplicateKeyError as error:
            if taken(error) == "owner_id":
                return False
            raise
        return True

    async def swap(self, before: Room, step: Step, *, deadline_at: datetime | None, now: datetime) -> bool:
        """Replace one version by the next if nobody was quicker, with its facts and what the books have to know."""
        guard = {"_id": before.id, "version": before.version}
        change: Document = {"$set": _document(step.room, deadline_at, now)}
        if step.facts:
            change["$push"] = {"untold": {"$each": [_fact_document(fact) for fact in step.facts]}}
            change["$min"] = {"untold_at": now}
        lines = _lines(step, now)
        begun = step.room.session is not None and before.session is None
        if not lines and step.over is None and not begun:
            return (await self._rooms.update_one(guard, change)).modified_count == 1

        async def body(session: Session) -> bool:
            if (await self._rooms.update_one(guard, change, session=session)).modified_count == 0:
                return False
            if lines:
                await self._people.bulk_write(lines, session=session)
            await self.logs.write(before, step, session)
            return True

        return await self._db.transaction(body)

    async def told(self, room_id: str, versions: Collection[int]) -> None:
        """The facts of these versions have been told, and what followed from them is done."""
        await self._rooms.update_one(
            {"_id": room_id},
            [
                {"$set": {"untold": _all_but(versions)}},
                {"$set": {"untold_at": {"$cond": [{"$eq": ["$untold", []]}, "$$REMOVE", "$untold_at"]}}},
            ],
        )

    # ------------------------------------------------------------------------------------------------------ queries

    async def open_of(self, owner_id: str) -> int:
        """How many open rooms somebody owns."""
        return int(await self._rooms.count_documents({"owner_id": owner_id, "closed_at": None}))

    async def owned_open(self, owner_id: str, most: int) -> list[str]:
        """Open rooms of an owner."""
        cursor = self._rooms.find({"owner_id": owner_id, "closed_at": None}, {"_id": 1}).limit(most)
        return [d["_id"] async for d in cursor]

    async def with_person(self, user_id: str, most: int) -> list[str]:
        """The rooms in which somebody has a place."""
        query = {"occupied": True, "participants.user_id": user_id}
        return [d["_id"] async for d in self._rooms.find(query, {"_id": 1}).limit(most)]

    async def busy_among(self, user_ids: Collection[str]) -> set[str]:
        """Those of the users who are here in a room, at whichever process."""
        wanted = list(user_ids)
        query = {"occupied": True, "participants.user_id": {"$in": wanted}}
        rooms = [room_of(d) async for d in self._rooms.find(query).limit(TURN_MAX)]
        return {one.user_id for room in rooms for one in room.present} & set(wanted)

    async def membership(self, room_id: str, user_id: str) -> Membership | None:
        """What the room is to somebody."""
        found = await self._people.find_one({"_id": f"{room_id}:{user_id}"})
        return Membership(room_id, bool(found.get("joined"))) if found and found["user_id"] else None

    async def people_among(self, room_id: str, user_ids: Collection[str]) -> set[str]:
        """Those of the users to whom the room is something."""
        lines = self._people.find({"_id": {"$in": [f"{room_id}:{one}" for one in user_ids]}}, {"user_id": 1})
        return {d["user_id"] async for d in lines if d["user_id"]}

    async def page(self, user_id: str, *, before: str | None, most: int) -> list[Room]:
        """Somebody's rooms, the newest first, older than the room ``before``."""
        query: Document = {"user_id": user_id}
        if before is not None:
            query["room_id"] = {"$lt": before}
        lines = self._people.find(query, {"room_id": 1}, sort=[("room_id", -1)]).limit(most)
        ids = [d["room_id"] async for d in lines]
        found = {d["_id"]: room_of(d) async for d in self._rooms.find({"_id": {"$in": ids}})}
        return [found[room_id] for room_id in ids if room_id in found]

    # What the jobs look for comes as ids: a room that cannot be read must not keep them from finding the others.

    async def due(self, now: datetime) -> list[str]:
        """Rooms whose deadline has passed, the oldest deadline first."""
        query = {"deadline_at": {"$type": "date", "$lte": now}}
        cursor = self._rooms.find(query, {"_id": 1}, sort=[("deadline_at", 1)]).limit(TURN_MAX)
        return [d["_id"] async for d in cursor]

    async def untold(self, before: datetime) -> list[str]:
        """Rooms with facts that somebody should have told by ``before``."""
        query = {"untold_at": {"$type": "date", "$lte": before}}
        cursor = self._rooms.find(query, {"_id": 1}, sort=[("untold_at", 1)]).limit(TURN_MAX)
        return [d["_id"] async for d in cursor]

    async def with_seats_outside(self, processes: Collection[str]) -> list[str]:
        """Rooms with a seat whose socket was at a process that is not among the given living ones."""
        seat = {"process": {"$nin": [*processes, None]}, "lost_at": None}
        query = {
            "occupied": True,
            "participants": {"$elemMatch": {"seats": {"$elemMatch": seat}}},
        }
        return [d["_id"] async for d in self._rooms.find(query, {"_id": 1}).limit(TURN_MAX)]

    async def occupied(self) -> list[Room]:
        """Rooms with somebody in them."""
        return [room_of(d) async for d in self._rooms.find({"occupied": True}).limit(10 * TURN_MAX)]

    async def changed_since(self, since: datetime) -> list[Room]:
        """Rooms that somebody has changed at or after ``since``, the newest change first."""
        cursor = self._rooms.find({"changed_at": {"$gte": since}}, sort=[("changed_at", -1)]).limit(TURN_MAX)
        return [room_of(d) async for d in cursor]


def _lines(step: Step, now: datetime) -> list[UpdateOne]:
    """What a step writes into the book of people. Somebody kicked has no line: the room is theirs no more."""
    room_id, lines = step.room.id, []
    for fact in step.facts:
        if fact.kind == "joined":
            lines.append(_line(room_id, fact.data["user_id"], {"joined": True}, now))
        elif fact.kind == "invited":
            lines += [_line(room_id, user_id, {}, now) for user_id in fact.data["user_ids"]]
        elif fact.kind == "kicked":
            row = {"_id": f"{room_id}:{fact.data['user_id']}"}
            lines.append(UpdateOne(row, {"$set": {"user_id": None, "joined": False}}))
    return lines


def _line(room_id: str, user_id: str, more: Document, now: datetime) -> UpdateOne:
    fields = {"room_id": room_id, "user_id": user_id, **more}
    change = {"$set": fields, "$setOnInsert": {"at": now}}
    return UpdateOne({"_id": f"{room_id}:{user_id}"}, change, upsert=True)


def _document(room: Room, deadline_at: datetime | None, now: datetime) -> Document:
    price = room.price
    session = room.session
    return {
        "version": room.version,
        "name": room.name,
        "type": room.type,
        "access": room.access.value,
        "owner_id": room.owner_id,
        "capacity": room.capacity,
        "price": None if price is None else asdict(price),
        "created_at": room.created_at,
        "invited_ids": list(room.invited_ids),
        "kicked_ids": list(room.kicked_ids),
        "participants": [_participant_document(one) for one in room.participants],
        "session": None
        if session is None
        else {
            "id": session.id,
            "started_at": session.started_at,
            "started_by": session.started_by,
            "last_gone_at": session.last_gone_at,
        },
        "emptied_at": room.emptied_at,
        "closed_at": room.closed_at,
        "close_reason": room.close_reason.value if room.close_reason else None,
        **({"op_id": room.op_id} if room.op_id is not None else {}),
        "occupied": bool(room.participants),
        "deadline_at": deadline_at,
        "changed_at": now,
    }


def _participant_document(one: Participant) -> Document:
    return {
        "user_id": one.user_id,
        "joined_at": one.joined_at,
        "seats": [
            {"device_id": seat.device_id, "process": seat.process, "lost_at": seat.lost_at}
            for seat in one.seats
        ],
        "arriving_until": one.arriving_until,
        "stay_id": one.stay_id,
        "pending": one.pending,
        "apart": sorted(one.apart),
    }


def room_of(d: Document) -> Room:
    """A room from its document."""
    price, session = d["price"], d["session"]
    return Room(
        id=d["_id"],
        version=d["version"],
        name=d["name"],
        type=d["type"],
        access=Access(d["access"]),
        owner_id=d["owner_id"],
        capacity=d["capacity"],
        price=Price(**price) if price else None,
        created_at=d["created_at"],
        invited_ids=tuple(d["invited_ids"]),
        kicked_ids=tuple(d["kicked_ids"]),
        participants=tuple(_participant_of(one) for one in d["participants"]),
        session=RoomSession(**session) if session else None,
        emptied_at=d["emptied_at"],
        closed_at=d["closed_at"],
        close_reason=Closed(d["close_reason"]) if d["close_reason"] else None,
        op_id=d.get("op_id"),
        untold=tuple(Fact(x["kind"], x["version"], x["data"]) for x in d.get("untold", ())),
    )


def _participant_of(d: Document) -> Participant:
    return Participant(
        user_id=d["user_id"],
        joined_at=d["joined_at"],
        seats=tuple(Seat(**seat) for seat in d["seats"]),
        arriving_until=d["arriving_until"],
        stay_id=d["stay_id"],
        pending=d["pending"],
        apart=frozenset(d["apart"]),
    )


def _fact_document(fact: Fact) -> Document:
    return {"kind": fact.kind, "version": fact.version, "data": dict(fact.data)}


def _all_but(versions: Sequence[int] | Collection[int]) -> dict[str, Any]:
    known = {"$in": ["$$this.version", list(versions)]}
    return {"$filter": {"input": {"$ifNull": ["$untold", []]}, "cond": {"$not": [known]}}}

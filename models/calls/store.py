"""Calls in MongoDB: one guarded swap per transition, one transaction where the busy locks take part.

Being busy is one document in ``call_locks`` whose ``_id`` is the user: two calls cannot both insert it. The locks
come with the call and go with it, in the same transaction, so a lock never outlives its call.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from models.also import Also
from models.calls.call import Call, Fact, Reason, Stage, State
from models.calls.documents import call_of, changed, document_of, fact_document
from models.calls.processes.store import ProcessStore
from models.calls.signals.store import SignalStore
from models.db import Database, Document, DuplicateKeyError, Session, Stale, collection, index, taken

_MINOR = {"bsonType": ["int", "long"], "minimum": 0}
_PURSE = {"bsonType": "object", "properties": {"credits": _MINOR, "primary": _MINOR}}
_STATES = [state.value for state in State]
_LIVE = [state.value for state in State if state is not State.ENDED]

CALLS = collection(
    "calls",
    # Partial indexes: what the jobs look for is a handful among millions.
    index("deadline_at", where={"state": {"$in": _LIVE}}),
    index("renew_at", where={"renew_at": {"$type": "date"}}),
    index("money_due_at", where={"money_due_at": {"$type": "date"}}),
    index("untold_at", where={"untold": {"$exists": True}}),
    # Written when a call ends, and not while anybody waits for it: calls by day.
    index("ended_at", where={"state": State.ENDED.value}),
    index("caller.user_id", "-created_at"),
    index("callee.user_id", "-created_at"),
    index("caller.user_id", "op_id", unique=True, where={"op_id": {"$type": "string"}}),
    index("caller.user_id", "room_id", where={"room_id": {"$type": "string"}, "state": {"$in": _LIVE}}),
    index("caller_leg.process", where={"state": {"$in": _LIVE}}),
    index("callee_leg.process", where={"state": {"$in": _LIVE}}),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": [
                "_id",
                "type",
                "state",
                "version",
                "caller",
                "callee",
                "created_at",
                "price",
                "cost_minor",
            ],
            "properties": {
                "type": {"enum": ["audio", "video"]},
                "state": {"enum": _STATES},
                "version": {"bsonType": ["int", "long"], "minimum": 1},
                "created_at": {"bsonType": "date"},
                "deadline_at": {"bsonType": ["date", "null"]},
                "end_reason": {"enum": [None, *(reason.value for reason in Reason)]},
                "cost_minor": {"bsonType": ["int", "long"], "minimum": 0},
                "charge": {
                    "bsonType": ["object", "null"],
                    "properties": {
                        "stage": {"enum": [stage.value for stage in Stage]},
                        **dict.fromkeys(("held", "captured", "refunded"), _PURSE),
                        **dict.fromkeys(("earned_minor", "commission_minor"), _MINOR),
                    },
                },
            },
        }
    },
)
LOCKS = collection("call_locks")
TOMBSTONES = collection("call_tombstones", index("expires_at", ttl_seconds=0))

# How long an early cancel waits for its start (reference/calls.md §9: tombstones at least 24 h).
TOMBSTONE_HOURS = 24
# In place of a caller's id: the tombstones of stays, which have ids before they begin.
STAY = "stay"
DUPLICATE_KEY = 11000


@dataclass(frozen=True, slots=True)
class Lock:
    """Why a user is busy."""

    user_id: str
    call_id: str


class CallStore:
    """Loads, guarded swaps and queries of calls."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._calls = db[CALLS]
        self._locks = db[LOCKS]
        self._tombstones = db[TOMBSTONES]
        self.signals = SignalStore(db)
        self.processes = ProcessStore(db)

    # ------------------------------------------------------------------------------------------------- one call

    async def load(self, call_id: str) -> Call | None:
        """The call at its present version."""
        found = await self._calls.find_one({"_id": call_id})
        return call_of(found) if found else None

    async def by_op(self, caller_id: str, op_id: str) -> Call | None:
        """The call that the caller began with this ``opId``."""
        found = await self._calls.find_one({"caller.user_id": caller_id, "op_id": op_id})
        return call_of(found) if found else None

    async def begin(
        self, call: Call, facts: Sequence[Fact], now: datetime, also: Also | None = None
    ) -> str | None:
        """Insert a ringing call with the locks of both. None when done, else who is busy already, or ``op_id``.

        ``also`` writes its money in the same transaction: a call that rings has its reservation, and only such a call.
        """

        async def body(session: Session) -> None:
            users = (call.caller.user_id, call.callee.user_id)
            locks = [{"_id": user_id, "call_id": call.id, "at": now} for user_id in users]
            await self._locks.insert_many(locks, session=session)
            await self._calls.insert_one(document_of(call, facts, now), session=session)
            if also is not None:
                await also(session)

        try:
            await self._db.transaction(body)
        except BulkWriteError as error:  # a lock: in a transaction a batch ends at its first error
            first = error.details["writeErrors"][0]
            if first["code"] != DUPLICATE_KEY:
                raise
            return str(first["keyValue"]["_id"])
        except DuplicateKeyError as error:
            if taken(error) != "_id":
                return "op_id"
            raise
        return None

    async def enter(self, stay: Call, now: datetime, also: Also | None) -> bool:
        """Insert a stay that runs, with its money; nobody is busy by it. False: it has begun or ended before.

        The tombstone that comes with it is what ``bury`` of an end before the beginning writes: one of the two is
        first, and the other one sees it.
        """
        tombstone = {"_id": _tombstone(STAY, stay.id), "expires_at": now + timedelta(hours=TOMBSTONE_HOURS)}

        async def body(session: Session) -> None:
            await self._tombstones.insert_one(tombstone, session=session)
            await self._calls.insert_one(document_of(stay, (), now), session=session)
            if also is not None:
                await also(session)

        try:
            await self._db.transaction(body)
        except DuplicateKeyError as error:
            if taken(error) != "_id":
                raise
            return False
        return True

    async def record(self, call: Call, now: datetime) -> bool:
        """Insert a call that was over before it began (busy, cancelled early). False: its ``opId`` is there already."""
        try:
            await self._calls.insert_one(document_of(call, (), now))
        except DuplicateKeyError:
            return False
        return True

    async def swap(
        self, before: Call, after: Call, facts: Sequence[Fact], now: datetime, also: Also | None = None
    ) -> bool:
        """Replace one version by the next if nobody was quicker. The end of a call takes its locks in the same one.

        ``facts`` are kept with the call until ``told``, next to older ones that are still untold. ``also`` writes the
        money that goes with the change, in the same transaction.
        """
        guard, change = _guarded(before, after, facts, now)
        ends = before.live and not after.live and after.room_id is None
        if not ends and also is None:
            return (await self._calls.update_one(guard, change)).modified_count == 1

        async def body(session: Session) -> bool:
            if not await self.swap_within(session, before, after, facts, now):
                return False
            if ends:
                users = [after.caller.user_id, after.callee.user_id]
                await self._locks.delete_many({"_id": {"$in": users}, "call_id": after.id}, session=session)
            if also is not None:
                await also(session)
            return True

        return await self._db.transaction(body)

    async def swap_within(
        self, session: Session, before: Call, after: Call, facts: Sequence[Fact], now: datetime
    ) -> bool:
        """The guarded update of ``swap`` alone, in somebody's transaction."""
        guard, change = _guarded(before, after, facts, now)
        return (await self._calls.update_one(guard, change, session=session)).modified_count == 1

    async def swap_all(self, changes: Sequence[tuple[Call, Call]], now: datetime, also: Also | None) -> None:
        """``swap`` for several that stay live and have nothing to tell, or for none: ``Stale`` if one has moved."""
        if len(changes) == 1:
            if not await self.swap(*changes[0], (), now, also):
                raise Stale(changes[0][0].id)
            return

        async def body(session: Session) -> None:
            # In one order, so that two of these wait for each other only once.
            swaps = [
                UpdateOne(*_guarded(*change, (), now)) for change in sorted(changes, key=lambda c: c[0].id)
            ]
            done = await self._calls.bulk_write(swaps, session=session)
            if done.modified_count != len(swaps):
                raise Stale("one of several calls")
            if also is not None:
                await also(session)

        await self._db.transaction(body)

    async def told(self, versions: Mapping[str, Collection[int]]) -> None:
        """The facts of these versions have been told; one round trip for all calls.

        Exactly these: an older one may belong to another process, which did not live to tell it.
        """
        await self._calls.bulk_write(
            [
                UpdateOne(
                    {"_id": call_id, "untold.version": {"$in": list(told)}},
                    [
                        {"$set": {"untold": _all_but(told)}},
                        {
                            "$set": {
                                "untold_at": {"$cond": [{"$eq": ["$untold", []]}, "$$REMOVE", "$untold_at"]}
                            }
                        },
                        {"$set": {"untold": {"$cond": [{"$eq": ["$untold", []]}, "$$REMOVE", "$untold"]}}},
                    ],
                )
                for call_id, told in versions.items()
            ],
            ordered=False,
        )

    # ---------------------------------------------------------------------------------------------------- being busy

    async def lock_of(self, user_id: str) -> Lock | None:
        """What the user is busy with."""
        found = await self._locks.find_one({"_id": user_id})
        return Lock(user_id, found["call_id"]) if found else None

    async def busy_of(self, caller_id: str, callee_id: str) -> str | None:
        """Which of the two is busy, the caller before the callee; None if neither is."""
        busy = {
            d["_id"] async for d in self._locks.find({"_id": {"$in": [caller_id, callee_id]}}, {"_id": 1})
        }
        return next((user_id for user_id in (caller_id, callee_id) if user_id in busy), None)

    async def busy_among(self, user_ids: Collection[str]) -> set[str]:
        """Those of the users who are busy."""
        found = self._locks.find({"_id": {"$in": list(user_ids)}}, {"_id": 1})
        return {document["_id"] async for document in found}

    async def drop_orphan_lock(self, lock: Lock) -> None:
        """Remove a lock whose call is over or was never there."""
        await self._locks.delete_one({"_id": lock.user_id, "call_id": lock.call_id})

    async def bury(self, caller_id: str, op_id: str, now: datetime) -> None:
        """Remember a cancel that came before its start; for a stay, ``STAY`` and its id."""
        expires = now + timedelta(hours=TOMBSTONE_HOURS)
        await self._tombstones.update_one(
            {"_id": _tombstone(caller_id, op_id)}, {"$set": {"expires_at": expires}}, upsert=True
        )

    async def buried(self, caller_id: str, op_id: str) -> bool:
        """Whether this start was cancelled before it came."""
        return await self._tombstones.find_one({"_id": _tombstone(caller_id, op_id)}) is not None

    # ------------------------------------------------------------------------------------------------------ queries

    # What the jobs look for comes as ids: a call that cannot be read must not keep them from finding the others.

    async def due(self, now: datetime, most: int) -> list[str]:
        """Live calls whose deadline has passed, the oldest deadline first."""
        query = {"state": {"$in": _LIVE}, "deadline_at": {"$lte": now}}
        cursor = self._calls.find(query, {"_id": 1}, sort=[("deadline_at", 1)]).limit(most)
        return [d["_id"] async for d in cursor]

    async def to_renew(self, before: datetime, most: int) -> list[str]:
        """Live calls for which more money should have been reserved by ``before``, the most urgent first."""
        cursor = self._calls.find(
            {"renew_at": {"$type": "date", "$lte": before}}, {"_id": 1}, sort=[("renew_at", 1)]
        )
        return [d["_id"] async for d in cursor.limit(most)]

    async def money_due(self, now: datetime, most: int) -> list[str]:
        """Ended calls whose money is to be settled or cleared, the oldest first."""
        cursor = self._calls.find(
            {"money_due_at": {"$type": "date", "$lte": now}}, {"_id": 1}, sort=[("money_due_at", 1)]
        )
        return [d["_id"] async for d in cursor.limit(most)]

    async def untold(self, before: datetime, most: int) -> list[str]:
        """Calls with facts that somebody should have told by ``before``."""
        query = {"untold": {"$exists": True}, "untold_at": {"$lte": before}}
        cursor = self._calls.find(query, {"_id": 1}, sort=[("untold_at", 1)]).limit(most)
        return [d["_id"] async for d in cursor]

    async def with_legs_outside(self, processes: Collection[str]) -> list[str]:
        """Live calls with a leg whose socket was at a process that is not among the given living ones.

        Not those whose legs are known to be lost: they wait for their deadline and would crowd out the rest.
        """
        gone = {"$nin": [*processes, None]}
        sides = [{f"{side}.process": gone, f"{side}.lost_at": None} for side in ("caller_leg", "callee_leg")]
        cursor = self._calls.find({"state": {"$in": _LIVE}, "$or": sides}, {"_id": 1}).limit(1000)
        return [d["_id"] async for d in cursor]

    async def stays_of(self, user_id: str, *, owner_id: str | None = None) -> list[str]:
        """The running stays that somebody pays, those in rooms of one owner where that is said."""
        query: Document = {
            "caller.user_id": user_id,
            "room_id": {"$type": "string"},
            "state": {"$in": _LIVE},
        }
        if owner_id is not None:
            query["callee.user_id"] = owner_id
        return [d["_id"] async for d in self._calls.find(query, {"_id": 1})]

    async def recent(self, user_id: str, ended_after: datetime) -> list[Call]:
        """The user's live call and those that ended after an instant, newest first, without descriptions."""
        mine = {"$or": [{"caller.user_id": user_id}, {"callee.user_id": user_id}], "room_id": None}
        query = {"$and": [mine, {"$or": [{"state": {"$in": _LIVE}}, {"ended_at": {"$gte": ended_after}}]}]}
        cursor = self._calls.find(query, sort=[("created_at", -1)]).limit(50)
        return [call_of(d) async for d in cursor]

    async def history(
        self,
        user_id: str,
        *,
        direction: str | None,
        reasons: Collection[str] | None,
        missed: Collection[str] | None,
        states: Collection[str] | None,
        other_id: str | None,
        before: tuple[datetime, str] | None,
        most: int,
    ) -> list[Call]:
        """The user's calls, newest first, after the cursor ``before`` (created_at, id)."""
        out: Document = {"caller.user_id": user_id}
        into: Document = {"callee.user_id": user_id}
        if other_id is not None:
            out["callee.user_id"], into["caller.user_id"] = other_id, other_id
        sides = {"outgoing": [out], "incoming": [into]}.get(direction or "", [out, into])
        query: list[Document] = [{"$or": sides, "room_id": None}]
        if missed is not None:
            query.append({"callee.user_id": user_id, "end_reason": {"$in": list(missed)}})
        if reasons is not None:
            query.append({"end_reason": {"$in": list(reasons)}})
        if states is not None:
            query.append({"state": {"$in": list(states)}})
        if before is not None:
            at, last_id = before
            query.append({"$or": [{"created_at": {"$lt": at}}, {"created_at": at, "_id": {"$lt": last_id}}]})
        cursor = self._calls.find({"$and": query}, sort=[("created_at", -1), ("_id", -1)]).limit(most)
        return [call_of(d) async for d in cursor]

    async def forget(self, user_id: str, name: str) -> None:
        """Take a person's name, picture and username out of their calls."""
        for side in ("caller", "callee"):
            blank = {f"{side}.username": name, f"{side}.display_name": name, f"{side}.avatar_url": None}
            await self._calls.update_many({f"{side}.user_id": user_id}, {"$set": blank})


def _tombstone(caller_id: str, op_id: str) -> str:
    return f"{caller_id}:{op_id}"


def _guarded(before: Call, after: Call, facts: Sequence[Fact], now: datetime) -> tuple[Document, Document]:
    guard = {"_id": before.id, "version": before.version, "state": before.state.value}
    change: Document = {"$set": changed(before, after)}
    if facts:
        change["$push"] = {"untold": {"$each": [fact_document(fact) for fact in facts]}}
        change["$min"] = {"untold_at": now}
    return guard, change


def _all_but(versions: Collection[int]) -> Document:
    known = {"$in": ["$$this.version", list(versions)]}
    return {"$filter": {"input": "$untold", "cond": {"$not": [known]}}}

"""Points in MongoDB: a tally for each person, guarded by its version, and the facts that make it up."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from models.calls.call import Call
from models.calls.documents import call_of
from models.calls.store import CALLS
from models.db import Database, Document, DuplicateKeyError, Session, Stale, collection, index
from models.ledger.journal import Kind, Sealed
from models.ledger.store import JOURNAL, sealed_of
from models.rewards.rules import Fact, FactKind, Tally

# Versions of a wallet that one step looks at.
STRETCH = 1_000

_LONG = {"bsonType": ["int", "long"]}
_COUNT = {**_LONG, "minimum": 0}
_TEXT = {"bsonType": "string"}

# _id is the user's id.
TALLIES = collection(
    "rewards",
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "points", "count", "version", "seen", "pending"],
            "properties": {
                "_id": _TEXT,
                "points": _COUNT,
                "count": _COUNT,
                "version": _COUNT,
                "seen": {"bsonType": "object"},
                "pending": {"bsonType": "array", "items": _TEXT},
            },
            "additionalProperties": False,
        }
    },
)
FACTS = collection(
    "reward_facts",
    index("user_id", "number", unique=True),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "id", "user_id", "number", "kind", "points", "at"],
            "properties": {
                "_id": _TEXT,
                "id": _TEXT,
                "user_id": _TEXT,
                "number": {**_LONG, "minimum": 1},
                "kind": {"enum": [kind.value for kind in FactKind]},
                "points": _LONG,
                "at": {"bsonType": "date"},
            },
        }
    },
)
_OPTIONAL = ("call_id", "per_minute", "point_minor", "due", "amount_minor", "currency")


class RewardStore:
    """Tallies, facts, and what they follow from."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._tallies = db[TALLIES]
        self._facts = db[FACTS]
        self._journal = db[JOURNAL]
        self._calls = db[CALLS]

    async def tally(self, user_id: str) -> Tally:
        """Somebody's points as they were kept last; none of somebody new."""
        found = await self._tallies.find_one({"_id": user_id})
        return tally_of(found) if found else Tally(user_id=user_id)

    async def facts(self, user_id: str, *, below: int | None, most: int) -> list[tuple[int, Fact]]:
        """Somebody's facts with their numbers, the newest first, below a number."""
        query: Document = {"user_id": user_id}
        if below is not None:
            query["number"] = {"$lt": below}
        cursor = self._facts.find(query, sort=[("number", -1)]).limit(most)
        return [(d["number"], fact_of(d)) async for d in cursor]

    async def named(self, keys: Collection[str]) -> dict[str, Fact]:
        """Those of the facts that there are, by key."""
        return {d["_id"]: fact_of(d) async for d in self._facts.find({"_id": {"$in": list(keys)}})}

    async def entries(self, wallet: str, above: int, up_to: int) -> list[Sealed]:
        """Captures and refunds among a wallet's versions, in order."""
        link = {"wallet": wallet, "version": {"$gt": above, "$lte": up_to}}
        kinds = [Kind.CAPTURE.value, Kind.REFUND.value]
        cursor = self._journal.find({"seals": {"$elemMatch": link}, "kind": {"$in": kinds}})
        found = [sealed_of(d) async for d in cursor.limit(up_to - above)]
        return sorted(found, key=lambda one: one.version_in(wallet))

    async def calls(self, call_ids: Collection[str]) -> dict[str, Call]:
        """Those of the calls that there are, by id."""
        if not call_ids:
            return {}
        return {d["_id"]: call_of(d) async for d in self._calls.find({"_id": {"$in": list(call_ids)}})}

    async def swap(self, before: Tally, after: Tally, facts: Sequence[Fact]) -> None:
        """The next version of a tally with the facts that make it. Raises ``Stale`` when another has been made."""
        assert after.version == before.version + 1
        assert after.count == before.count + len(facts)

        async def body(session: Session) -> None:
            row = _row(after)
            if before.version == 0:
                await self._tallies.insert_one({"_id": after.user_id, **row}, session=session)
            else:
                guard = {"_id": after.user_id, "version": before.version}
                done = await self._tallies.update_one(guard, {"$set": row}, session=session)
                if done.matched_count != 1:
                    raise Stale(after.user_id)
            if facts:
                rows = [
                    _fact_row(after.user_id, number, fact)
                    for number, fact in enumerate(facts, before.count + 1)
                ]
                await self._facts.insert_many(rows, session=session)

        try:
            await self._db.transaction(body)
        except DuplicateKeyError:
            raise Stale(after.user_id) from None

    async def spend(self, user_id: str, fact: Fact, session: Session) -> bool:
        """Take points away with their fact, within the caller's transaction; False when there are not enough."""
        found = await self._tallies.find_one_and_update(
            {"_id": user_id, "points": {"$gte": -fact.points}},
            {"$inc": {"points": fact.points, "count": 1, "version": 1}},
            return_document=True,
            session=session,
        )
        if found is None:
            return False
        await self._facts.insert_one(_fact_row(user_id, found["count"], fact), session=session)
        return True


def _row(tally: Tally) -> Document:
    return {
        "points": tally.points,
        "count": tally.count,
        "version": tally.version,
        "seen": dict(tally.seen),
        "pending": sorted(tally.pending),
    }


def tally_of(d: Document) -> Tally:
    """A document as a tally."""
    return Tally(
        user_id=d["_id"],
        points=d["points"],
        count=d["count"],
        version=d["version"],
        seen=d["seen"],
        pending=tuple(d["pending"]),
    )


def _fact_row(user_id: str, number: int, fact: Fact) -> Document:
    row = {
        "_id": fact.key,
        "id": fact.id,
        "user_id": user_id,
        "number": number,
        "kind": fact.kind.value,
        "points": fact.points,
        "at": fact.at,
    }
    return row | {name: value for name in _OPTIONAL if (value := getattr(fact, name)) is not None}


def fact_of(d: Document) -> Fact:
    """A document as a fact."""
    return Fact(
        key=d["_id"],
        id=d["id"],
        kind=FactKind(d["kind"]),
        points=d["points"],
        at=d["at"],
        **{name: d.get(name) for name in _OPTIONAL},
    )

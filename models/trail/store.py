"""The trail in MongoDB: rows that are inserted and read, and a head that says which is the last one.

Nothing here changes or removes a row. The head is moved on by a write that is conditional on what it was, in the
transaction of the act itself: of two acts at once one begins anew and is chained behind the other.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime

from models.db import Database, Document, DuplicateKeyError, Session, collection, index
from models.trail import rules
from models.trail.rules import Act, Anchor, Malformed, Row
from models.trail.search import Wanted, matches

_TEXT = {"bsonType": "string"}
_TEXT_OR_NOT = {"bsonType": ["string", "null"]}
_HASH = {"bsonType": "string", "pattern": "^[0-9a-f]{64}$"}
_SEQ = {"bsonType": ["int", "long"], "minimum": 1}
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _object(**properties: Document) -> Document:
    return {
        "bsonType": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }


TRAIL = collection(
    "trail",
    index("at"),
    index("act", "-_id"),
    index("actor.user_id", "-_id", where={"actor.user_id": {"$type": "string"}}),
    index("target.id", "-_id"),
    validator={
        "$jsonSchema": _object(
            _id=_SEQ,
            at={"bsonType": "date"},
            actor=_object(
                kind={"enum": list(rules.ACTOR_KINDS)},
                user_id=_TEXT_OR_NOT,
                name=_TEXT_OR_NOT,
                address=_TEXT_OR_NOT,
            ),
            act={"bsonType": "string", "pattern": "^[a-z_]+[.][a-z_]+$"},
            target=_object(kind=_TEXT, id=_TEXT, name=_TEXT_OR_NOT),
            reason={"bsonType": "string", "minLength": 1, "maxLength": rules.REASON_MAX},
            details={
                "bsonType": "object",
                "maxProperties": rules.DETAILS_MAX,
                "additionalProperties": {"bsonType": ["string", "int", "long", "bool", "null"]},
            },
            previous=_HASH,
            hash=_HASH,
        )
    },
)
# One document: the number and the hash of the last row, and its time.
HEAD = collection(
    "trail_head",
    validator={
        "$jsonSchema": _object(
            _id={"enum": ["head"]},
            seq={"bsonType": ["int", "long"], "minimum": 0},
            hash=_HASH,
            at={"bsonType": ["date", "null"]},
        )
    },
)
_HEAD = "head"
# Rows that one query brings.
BATCH = 500
# Rows that one search looks at: it says where to go on, and a page comes quickly however rare a word is.
SCAN_MAX = 20_000


class HeadMissing(Exception):
    """There are rows and no head: somebody has removed it. Nothing is appended until it is looked into."""


class TrailStore:
    """``TrailStore(db)``."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._rows = db[TRAIL]
        self._heads = db[HEAD]

    async def begin(self) -> None:
        """Make the head of an empty trail; safe to repeat. Raises ``HeadMissing``."""
        if await self._heads.find_one({"_id": _HEAD}, {"_id": 1}) is not None:
            return
        if await self._rows.find_one({}, {"_id": 1}) is not None:
            raise HeadMissing
        try:
            await self._heads.insert_one({"_id": _HEAD, "seq": 0, "hash": rules.GENESIS, "at": None})
        except DuplicateKeyError:
            return  # another process was first

    async def append(self, act: Act, now: datetime, session: Session) -> Row:
        """Chain a row, within a transaction. The driver begins the transaction anew when another row came between.

        Time does not go back along the chain, whatever the clocks of the processes say.
        """
        head = await self._heads.find_one({"_id": _HEAD}, session=session)
        if head is None:
            raise HeadMissing
        at = max(now, head["at"] or now)
        row = rules.row_after(act, seq=head["seq"], previous=head["hash"], at=at)
        moved = await self._heads.update_one(
            {"_id": _HEAD, "seq": head["seq"], "hash": head["hash"]},
            {"$set": {"seq": row.seq, "hash": row.hash, "at": at}},
            session=session,
        )
        assert moved.matched_count == 1, "a snapshot shows what it has shown"
        await self._rows.insert_one(_document(row), session=session)
        return row

    async def append_alone(self, act: Act, now: datetime) -> Row:
        """Chain a row in a transaction of its own."""

        async def body(session: Session) -> Row:
            return await self.append(act, now, session)

        return await self._db.transaction(body)

    async def head(self) -> Anchor | None:
        """The last row's number and hash, as the head says; None: no head."""
        found = await self._heads.find_one({"_id": _HEAD})
        return Anchor(found["seq"], found["hash"]) if found else None

    async def row(self, seq: int) -> Row | None:
        """One row by its number; None also when it can be read no more."""
        found = await self._rows.find_one({"_id": seq})
        row = _row(found) if found else None
        return row if isinstance(row, Row) else None

    async def walk(self, *, after: int = 0, most: int | None = None) -> AsyncIterator[Row | Malformed]:
        """The rows behind a number in order, read in batches; at most ``most``."""
        left = most
        while left is None or left > 0:
            size = BATCH if left is None else min(BATCH, left)
            query = {"_id": {"$gt": after}}
            found = await self._rows.find(query, sort=[("_id", 1)]).limit(size).to_list()
            for document in found:
                yield _row(document)
            if len(found) < size:
                return
            after = found[-1]["_id"]
            left = None if left is None else left - len(found)

    async def search(self, wanted: Wanted, *, before: int | None, limit: int) -> tuple[list[Row], int | None]:
        """Rows below a number, newest first, and the number below which to go on (None: there are no more)."""
        found: list[Row] = []
        place, looked = before, 0
        query = _query(wanted)
        while looked < SCAN_MAX:
            below = {} if place is None else {"_id": {"$lt": place}}
            batch = await self._rows.find({**query, **below}, sort=[("_id", -1)]).limit(BATCH).to_list()
            for document in batch:
                row = _row(document)
                place = document["_id"]
                if isinstance(row, Row) and matches(wanted, row):
                    found.append(row)
                    if len(found) == limit:
                        last = document is batch[-1] and len(batch) < BATCH
                        return found, None if last else place
            looked += len(batch)
            if len(batch) < BATCH:
                return found, None
        return found, place


def _query(wanted: Wanted) -> Document:
    """What of a search the indexes know: ids, times and acts. Names and words are compared by ``matches``."""
    query: Document = {}
    if wanted.since or wanted.until:
        span = {"$gte": wanted.since, "$lt": wanted.until}
        query["at"] = {name: at for name, at in span.items() if at is not None}
    if wanted.act in rules.ACTS:
        query["act"] = {"$eq": wanted.act}
    if wanted.target and _ID.fullmatch(wanted.target):
        query["target.id"] = {"$eq": wanted.target}
    if wanted.actor and _ID.fullmatch(wanted.actor):
        query["actor.user_id"] = {"$eq": wanted.actor, "$type": "string"}
    return query


def _document(row: Row) -> Document:
    said = {**rules.said_of(row), "at": row.at, "hash": row.hash}
    return {"_id": said.pop("seq"), **said}


def _row(document: Document) -> Row | Malformed:
    try:
        found = dict(document)
        return rules.row_of({"seq": found.pop("_id"), **found})
    except Malformed as fault:
        return fault

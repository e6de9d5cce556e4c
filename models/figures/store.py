"""Figures from the journal, the calls and the users: each day by queries of an index, and kept once it is over."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from datetime import UTC, datetime, time, timedelta
from datetime import date as Date
from typing import Any

from models.calls.call import State
from models.calls.store import CALLS
from models.db import Database, Document, DuplicateKeyError, collection, index
from models.figures.figures import Audit, Day, Revenue
from models.ledger.journal import COMMISSION, EXCHANGE_SPREAD, WITHDRAW_FEES
from models.ledger.store import EARNING, JOURNAL
from models.users.store import USERS

# _id is a day, or the name of what is kept once.
FIGURES = collection(
    "figures",
    index("made_at"),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "made_at"],
            "properties": {"_id": {"bsonType": "string"}, "made_at": {"bsonType": "date"}},
        }
    },
)
_AUDIT = "audit"
_FIELD = {COMMISSION: "commission_minor", WITHDRAW_FEES: "fees_minor", EXCHANGE_SPREAD: "spread_minor"}


class FigureStore:
    """``FigureStore(db)``."""

    def __init__(self, db: Database) -> None:
        self._journal = db[JOURNAL]
        self._calls = db[CALLS]
        self._users = db[USERS]
        self._figures = db[FIGURES]

    async def kept(self, days: Collection[Date]) -> dict[str, Day]:
        """Those of the days that are kept."""
        query = {"_id": {"$in": [day.isoformat() for day in days]}}
        return {row["_id"]: _day(row) async for row in self._figures.find(query)}

    async def keep(self, day: Day, now: datetime) -> None:
        """Keep a day that is over."""
        row = {**asdict(day), "_id": day.day, "made_at": now, "revenue": [asdict(one) for one in day.revenue]}
        del row["day"]
        try:
            await self._figures.insert_one(row)
        except DuplicateKeyError:
            return  # another process has

    async def made(self, day: Date) -> Day:
        """A day's figures, counted now."""
        usage = await self._first(self._calls, usage_of(day))
        new = await self._users.count_documents({"created_at": _span(day)})
        revenue: dict[str, dict[str, int]] = {}
        for row in await (await self._journal.aggregate(revenue_of(day))).to_list():
            said = row["_id"]
            revenue.setdefault(said["currency"], {})[_FIELD[said["account"]]] = int(row["sum"])
        return Day(
            day=day.isoformat(),
            calls=usage.get("calls", 0),
            talked=usage.get("talked", 0),
            seconds=int(usage.get("ms", 0)) // 1000,
            callers=usage.get("callers", 0),
            payers=usage.get("payers", 0),
            new_users=new,
            revenue=tuple(Revenue(currency=name, **parts) for name, parts in sorted(revenue.items())),
        )

    @staticmethod
    async def _first(rows: Any, pipeline: list[Document]) -> Document:
        found = await (await rows.aggregate(pipeline)).to_list()
        return dict(found[0]) if found else {}

    async def keep_audit(self, audit: Audit) -> None:
        """Keep what an audit has found, in the place of the one before."""
        row = {"made_at": audit.at, "clean": audit.clean, "broken": audit.broken}
        await self._figures.replace_one({"_id": _AUDIT}, row, upsert=True)

    async def last_audit(self) -> Audit | None:
        """What the last audit has found."""
        row = await self._figures.find_one({"_id": _AUDIT})
        return Audit(row["made_at"], row["clean"], row["broken"]) if row else None


def _span(day: Date) -> Document:
    begins = datetime.combine(day, time(), UTC)
    return {"$gte": begins, "$lt": begins + timedelta(days=1)}


def revenue_of(day: Date) -> list[Document]:
    """The pipeline for what the platform's accounts have got on a day, by currency."""
    accounts = {"$in": list(_FIELD)}
    return [
        {"$match": {"kind": {"$in": [kind.value for kind in EARNING]}, "at": _span(day)}},
        {"$unwind": "$legs"},
        {"$match": {"legs.account": accounts}},
        {
            "$group": {
                "_id": {"account": "$legs.account", "currency": "$legs.currency"},
                "sum": {"$sum": "$legs.amount"},
            }
        },
    ]


def usage_of(day: Date) -> list[Document]:
    """The pipeline for the calls that ended on a day. Stays in rooms are not calls."""
    interval = {"$subtract": ["$$this.end", "$$this.start"]}
    talked = {"$sum": {"$map": {"input": {"$ifNull": ["$intervals", []]}, "in": interval}}}
    return [
        {"$match": {"state": State.ENDED.value, "ended_at": _span(day), "room_id": None}},
        {
            "$group": {
                "_id": "$caller.user_id",
                "calls": {"$sum": 1},
                "talked": {"$sum": {"$cond": [{"$gt": [talked, 0]}, 1, 0]}},
                "ms": {"$sum": talked},
                "paid": {"$max": {"$cond": [{"$gt": ["$cost_minor", 0]}, 1, 0]}},
            }
        },
        {
            "$group": {
                "_id": None,
                **{name: {"$sum": f"${name}"} for name in ("calls", "talked", "ms")},
                "callers": {"$sum": 1},
                "payers": {"$sum": "$paid"},
            }
        },
    ]


def _day(row: Document) -> Day:
    said = {name: row[name] for name in ("calls", "talked", "seconds", "callers", "payers", "new_users")}
    return Day(day=row["_id"], **said, revenue=tuple(Revenue(**one) for one in row["revenue"]))

"""Reads of the journal for papers: the lines of a period, and sums by kind and month.

Lines are booked in the order of a wallet's versions, and their times nearly so: an entry's time is that of its fact,
which may be posted late. A period is a stretch of versions, from the first that has a time in it, so that the lines of
a period are in order, begin where the ones of the period before end, and none is in two periods or in none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from models.db import Database
from models.ledger.journal import Sealed
from models.ledger.store import JOURNAL, sealed_of
from models.papers.rules import Flow

# Entries by time that are looked at for the first version of a period: more than are ever posted late at once.
AHEAD = 500
# Entries by time, back from a period, among which the newest by version is.
LATE = 100
# Versions of a wallet that one query looks at; most of them are holds, which have no lines.
STRETCH = 2_000
# What adding up a wallet's years may take at most.
SUM_MS_MAX = 3_000

_HAS_LINES = {"seals.lines.account": {"$exists": True}}


class PaperStore:
    """Nothing but reads."""

    def __init__(self, db: Database) -> None:
        self._journal = db[JOURNAL]

    async def cut(self, wallet: str, at: datetime) -> int | None:
        """The version with which a wallet's lines from ``at`` on begin; None when there are none yet."""
        cursor = self._journal.find(
            {"seals.wallet": wallet, "at": {"$gte": at}, **_HAS_LINES},
            {"seals.wallet": 1, "seals.version": 1},
            sort=[("at", 1)],
        ).limit(AHEAD)
        versions = [seal["version"] async for d in cursor for seal in d["seals"] if seal["wallet"] == wallet]
        return min(versions, default=None)

    async def between(self, wallet: str, low: int, high: int, most: int) -> list[Sealed]:
        """Entries with lines of a wallet's versions from ``low`` to below ``high``, in order; at most ``most`` and one
        more, which says that there are more.
        """
        found: list[Sealed] = []
        while low < high and len(found) <= most:
            top = min(high, low + STRETCH)
            link = {"wallet": wallet, "version": {"$gte": low, "$lt": top}, "lines.0": {"$exists": True}}
            cursor = self._journal.find({"seals": {"$elemMatch": link}}).limit(STRETCH)
            stretch = [sealed_of(d) async for d in cursor]
            found += sorted(stretch, key=lambda one: one.version_in(wallet))
            low = top
        return found[: most + 1]

    async def before(self, wallet: str, version: int, at: datetime, account: str) -> int:
        """Available plus held in an account before a version, which is the first of the time from ``at`` on."""
        link = {"wallet": wallet, "version": {"$lt": version}, "lines.account": account}
        cursor = self._journal.find(
            {"seals.wallet": wallet, "at": {"$lt": at}, "seals": {"$elemMatch": link}, **_HAS_LINES},
            sort=[("at", -1)],
        ).limit(LATE)
        found = [sealed_of(d) async for d in cursor]
        newest = max(found, key=lambda one: one.version_in(wallet), default=None)
        for seal in newest.seals if newest is not None else ():
            for line in seal.lines:
                if (seal.wallet, line.account) == (wallet, account):
                    return line.after_minor
        return 0

    async def flows(
        self, wallet: str, firsts: Sequence[datetime], end: datetime
    ) -> Mapping[int, Mapping[str, Flow]]:
        """What came in and went out by month (the index of its first instant in ``firsts``) and kind.

        An entry that only moves money between the accounts of the wallet is neither.
        """
        mine = {"$filter": {"input": "$seals", "cond": {"$eq": ["$$this.wallet", wallet]}}}
        begun = {"$filter": {"input": list(firsts), "cond": {"$lte": ["$$this", "$at"]}}}
        cursor = await self._journal.aggregate(
            [
                {"$match": {"seals.wallet": wallet, "at": {"$gte": firsts[0], "$lt": end}, **_HAS_LINES}},
                {"$project": {"kind": 1, "at": 1, "seal": {"$first": mine}}},
                {
                    "$project": {
                        "kind": 1,
                        "month": {"$subtract": [{"$size": begun}, 1]},
                        "net": {"$sum": "$seal.lines.amount"},
                    }
                },
                {"$match": {"net": {"$ne": 0}}},
                {
                    "$group": {
                        "_id": {"month": "$month", "kind": "$kind"},
                        "income": {"$sum": {"$max": ["$net", 0]}},
                        "spending": {"$sum": {"$max": [{"$multiply": ["$net", -1]}, 0]}},
                        "count": {"$sum": 1},
                    }
                },
            ],
            maxTimeMS=SUM_MS_MAX,
        )
        flows: dict[int, dict[str, Flow]] = defaultdict(dict)
        async for d in cursor:
            flow = Flow(d["income"], d["spending"], d["count"])
            flows[d["_id"]["month"]][d["_id"]["kind"]] = flow
        return flows

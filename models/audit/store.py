"""Reading a whole database as it was at one instant, while others go on writing to it.

Every query of a ``Snapshot`` is answered as of the same point in time (a snapshot session: MongoDB 5.0 and newer, on a
replica set). MongoDB keeps such a point for ``minSnapshotHistoryWindowInSeconds``, 300 by default: a reading that
takes longer ends with ``SnapshotTooOld``. What helps is a longer window, set on every member for the time of the
audit: ``db.adminCommand({setParameter: 1, minSnapshotHistoryWindowInSeconds: 3600})``.

Everything is streamed. Two streams that are ordered by the same key are joined by reading them side by side.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pymongo.errors import OperationFailure

from models.audit.payments import KINDS
from models.calls.call import Call
from models.calls.documents import call_of
from models.calls.store import CALLS
from models.db import Database, Document, Session
from models.fx.rules import Quote, entry_id
from models.fx.store import QUOTES, quote_of
from models.ledger.journal import Entry, Kind, Sealed, Wallet
from models.ledger.store import JOURNAL, WALLETS, sealed_of, wallet_of
from models.payments.payment import Payment
from models.payments.store import PAYMENTS, payment_of
from models.payouts import rules as payout_rules
from models.payouts.payout import Payout
from models.payouts.store import PAYOUTS, payout_of
from models.rewards.rules import Fact, FactKind, Tally, refund_of
from models.rewards.store import FACTS, TALLIES, fact_of, tally_of

BATCH = 1000
# The collections that are read.
_READ = (WALLETS, JOURNAL, CALLS, PAYMENTS, PAYOUTS, QUOTES, TALLIES, FACTS)
# Orphans of a kind that are looked for by name; the audit names fewer.
ORPHANS_MAX = 1000

_SNAPSHOT_TOO_OLD = 239
_SNAPSHOT_UNAVAILABLE = 246
# Readings that meet a collection or an index that is just being made begin anew.
TRIES_MAX = 50

# Documents that are not what any version of ours has written.
Unreadable = (KeyError, TypeError, ValueError, AttributeError)


class SnapshotTooOld(Exception):
    """The reading took longer than MongoDB keeps its instant."""


@dataclass(frozen=True, slots=True)
class Torn:
    """A document that cannot be read as what it should be."""

    id: str
    fault: str


@dataclass(frozen=True, slots=True)
class OfCall:
    """A call and the entries that name it. Either side may be missing."""

    call_id: str
    call: Call | Torn | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class OfPoints:
    """A change of somebody's points with its number, and the call or the entry that it follows from."""

    user_id: str
    number: int
    fact: Fact | Torn
    call: Call | None
    entry: Entry | None


class Snapshot:
    """The database at one instant."""

    def __init__(self, db: Database, session: Session) -> None:
        self._db, self._session = db, session

    async def begin(self) -> None:
        """Choose the instant. Raises ``OperationFailure`` while a collection is being made."""
        for name in _READ:
            await self._db[name].find_one({}, {"_id": 1}, session=self._session)

    async def counts(self) -> dict[str, int]:
        """How many documents there are, about, by collection: for a progress bar."""
        return {name: await self._db.db[name].estimated_document_count() for name in _READ}

    async def wallets(self) -> AsyncIterator[Wallet | Torn]:
        """All wallets."""
        async for d in self._find(WALLETS):
            yield _read(wallet_of, d)

    async def journal(self) -> AsyncIterator[Sealed | Torn]:
        """All entries in the order in which they were written."""
        async for d in self._find(JOURNAL, sort="$natural"):
            yield _read(sealed_of, d)

    async def links(self, wallet: str, after: int) -> AsyncIterator[Sealed]:
        """A wallet's entries after a version, in the order of its versions, sorted by MongoDB."""
        mine = {"$filter": {"input": "$seals", "cond": {"$eq": ["$$this.wallet", wallet]}}}
        pipeline: list[Document] = [
            {"$match": {"seals.wallet": wallet}},
            {"$set": {"order": {"$min": {"$map": {"input": mine, "in": "$$this.version"}}}}},
            {"$match": {"order": {"$gt": after}}},
            {"$sort": {"order": 1, "_id": 1}},
        ]
        cursor = await self._db.db[JOURNAL].aggregate(
            pipeline, session=self._session, allowDiskUse=True, batchSize=BATCH
        )
        async for d in cursor:
            found = _read(sealed_of, d)
            if not isinstance(found, Torn):  # it was told when the journal was read
                yield found

    async def calls(self) -> AsyncIterator[OfCall]:
        """All calls with their entries, and entries whose call does not exist: two streams by the call's id."""
        groups = self._by_call()
        group = await anext(groups, None)
        async for d in self._find(CALLS, sort="_id"):
            while group is not None and group[0] < d["_id"]:
                yield OfCall(group[0], None, group[1])
                group = await anext(groups, None)
            entries: tuple[Entry, ...] = ()
            if group is not None and group[0] == d["_id"]:
                entries = group[1]
                group = await anext(groups, None)
            yield OfCall(d["_id"], _read(call_of, d), entries)
        while group is not None:
            yield OfCall(group[0], None, group[1])
            group = await anext(groups, None)

    async def _by_call(self) -> AsyncIterator[tuple[str, tuple[Entry, ...]]]:
        call_id: str | None = None
        entries: list[Entry] = []
        query = {"call_id": {"$type": "string"}}
        async for d in self._find(JOURNAL, query, without="seals", sort="call_id"):
            if d["call_id"] != call_id:
                if call_id is not None:
                    yield call_id, tuple(entries)
                call_id, entries = d["call_id"], []
            found = _read(sealed_of, {**d, "seals": ()})
            if not isinstance(found, Torn):
                entries.append(found.entry)
        if call_id is not None:
            yield call_id, tuple(entries)

    async def payments(self) -> AsyncIterator[tuple[Payment | Torn, tuple[Entry, ...]]]:
        """All payments with the entries that name them."""
        batch: list[Payment] = []
        async for d in self._find(PAYMENTS):
            one = _read(payment_of, d)
            if isinstance(one, Torn):
                yield one, ()
                continue
            batch.append(one)
            if len(batch) == BATCH:
                for pair in await self._moved(batch):
                    yield pair
                batch = []
        for pair in await self._moved(batch):
            yield pair

    async def _moved(self, payments: Sequence[Payment]) -> list[tuple[Payment, tuple[Entry, ...]]]:
        if not payments:
            return []
        entries: dict[str, list[Entry]] = {payment.id: [] for payment in payments}
        query = {"payment_id": {"$in": list(entries), "$type": "string"}}
        async for d in self._find(JOURNAL, query, without="seals"):
            found = _read(sealed_of, {**d, "seals": ()})
            if isinstance(found, Sealed) and found.entry.kind in KINDS:
                entries[d["payment_id"]].append(found.entry)
        return [(payment, tuple(entries[payment.id])) for payment in payments]

    async def unpaid(self) -> list[str]:
        """Entries of the kinds of payments behind which no payment stands, by name; at most ``ORPHANS_MAX``."""
        theirs = {"from": PAYMENTS, "localField": "payment_id", "foreignField": "_id", "as": "payments"}
        pipeline: list[Document] = [
            {"$match": {"kind": {"$in": sorted(kind.value for kind in KINDS)}}},
            {"$lookup": theirs},
            {"$match": {"payments": []}},
            {"$limit": ORPHANS_MAX},
            {"$project": {"_id": 1}},
        ]
        cursor = await self._db.db[JOURNAL].aggregate(pipeline, session=self._session)
        return [d["_id"] async for d in cursor]

    async def used_quotes(self) -> AsyncIterator[tuple[Quote | Torn, Entry | None]]:
        """Used quotes with the entries that converted by them."""
        batch: list[Document] = []
        async for d in self._find(QUOTES, {"used_at": {"$ne": None}}):
            batch.append(d)
            if len(batch) == BATCH:
                for pair in await self._converted(batch):
                    yield pair
                batch = []
        for pair in await self._converted(batch):
            yield pair

    async def _converted(self, quotes: Sequence[Document]) -> list[tuple[Quote | Torn, Entry | None]]:
        entries = await self._entries([entry_id(str(d["_id"])) for d in quotes])
        return [(_read(quote_of, d), entries.get(entry_id(str(d["_id"])))) for d in quotes]

    async def _entries(self, names: Sequence[str]) -> dict[str, Entry]:
        """Those of these entries that are in the journal and can be read."""
        if not names:
            return {}
        found = {}
        async for d in self._find(JOURNAL, {"_id": {"$in": list(names)}}, without="seals"):
            one = _read(sealed_of, {**d, "seals": ()})
            if isinstance(one, Sealed):
                found[one.entry.id] = one.entry
        return found

    async def unquoted(self) -> list[str]:
        """Conversions in the journal that no used quote stands behind, by name; at most ``ORPHANS_MAX``."""
        theirs = {"from": QUOTES, "localField": "quote", "foreignField": "_id", "as": "quotes"}
        pipeline: list[Document] = [
            {"$match": {"kind": Kind.EXCHANGE.value}},
            {"$project": {"quote": {"$substrBytes": ["$_id", len(entry_id("")), -1]}}},
            {"$lookup": theirs},
            {"$match": {"quotes.used_at": {"$not": {"$type": "date"}}}},
            {"$limit": ORPHANS_MAX},
            {"$project": {"_id": 1}},
        ]
        cursor = await self._db.db[JOURNAL].aggregate(pipeline, session=self._session)
        return [d["_id"] async for d in cursor]

    async def payouts(self) -> AsyncIterator[tuple[Payout | Torn, dict[str, Entry]]]:
        """Withdrawals with those of their entries that there are, by name."""
        batch: list[Document] = []
        async for d in self._find(PAYOUTS):
            batch.append(d)
            if len(batch) == BATCH:
                for pair in await self._with_entries(batch):
                    yield pair
                batch = []
        for pair in await self._with_entries(batch):
            yield pair

    async def _with_entries(
        self, payouts: Sequence[Document]
    ) -> list[tuple[Payout | Torn, dict[str, Entry]]]:
        names = {
            d["_id"]: [payout_rules.entry_id(str(d["_id"]), kind) for kind in payout_rules.KINDS]
            for d in payouts
        }
        entries = await self._entries([name for some in names.values() for name in some])
        return [
            (_read(payout_of, d), {name: entries[name] for name in names[d["_id"]] if name in entries})
            for d in payouts
        ]

    async def unasked(self) -> list[str]:
        """Entries of withdrawals that do not exist, by name; at most ``ORPHANS_MAX``."""
        mine = {"$arrayElemAt": [{"$split": ["$_id", ":"]}, 1]}
        theirs = {"from": PAYOUTS, "localField": "payout", "foreignField": "_id", "as": "payouts"}
        pipeline: list[Document] = [
            {"$match": {"kind": {"$in": [kind.value for kind in payout_rules.KINDS]}}},
            {"$project": {"payout": mine}},
            {"$lookup": theirs},
            {"$match": {"payouts": []}},
            {"$limit": ORPHANS_MAX},
            {"$project": {"_id": 1}},
        ]
        cursor = await self._db.db[JOURNAL].aggregate(pipeline, session=self._session)
        return [d["_id"] async for d in cursor]

    async def tallies(self) -> AsyncIterator[Tally | Torn]:
        """Everybody's points, in the order of the people."""
        async for d in self._find(TALLIES, sort="_id"):
            yield _read(tally_of, d)

    async def facts(self) -> AsyncIterator[OfPoints]:
        """What has changed people's points, in the order of the people and of its numbers."""
        batch: list[Document] = []
        async for d in self._find(FACTS).sort([("user_id", 1), ("number", 1)]):
            batch.append(d)
            if len(batch) == BATCH:
                for one in await self._of_points(batch):
                    yield one
                batch = []
        for one in await self._of_points(batch):
            yield one

    async def _of_points(self, rows: Sequence[Document]) -> list[OfPoints]:
        names = {str(d["_id"]): refund_of(str(d["_id"])) for d in rows}
        entries = await self._entries(list(names.values()))
        earned = [d.get("call_id") for d in rows if d.get("kind") == FactKind.EARNED.value]
        calls = {d["_id"]: _read(call_of, d) async for d in self._find(CALLS, {"_id": {"$in": earned}})}
        return [
            OfPoints(
                user_id=str(d.get("user_id")),
                number=d.get("number", 0),
                fact=_read(fact_of, d),
                call=call if isinstance(call := calls.get(d.get("call_id")), Call) else None,
                entry=entries.get(names[str(d["_id"])]),
            )
            for d in rows
        ]

    async def unredeemed(self) -> list[str]:
        """Call credits for points that no fact stands behind, by name; at most ``ORPHANS_MAX``."""
        theirs = {"from": FACTS, "localField": "_id", "foreignField": "_id", "as": "facts"}
        pipeline: list[Document] = [
            {"$match": {"kind": Kind.REWARD.value}},
            {"$lookup": theirs},
            {"$match": {"facts": []}},
            {"$limit": ORPHANS_MAX},
            {"$project": {"_id": 1}},
        ]
        cursor = await self._db.db[JOURNAL].aggregate(pipeline, session=self._session)
        return [d["_id"] async for d in cursor]

    def _find(
        self, name: str, query: Document | None = None, *, sort: str | None = None, without: str | None = None
    ) -> Any:
        fields = {without: 0} if without else None
        cursor = self._db[name].find(query or {}, fields, session=self._session, batch_size=BATCH)
        return cursor.sort([(sort, 1)]) if sort else cursor


def _read(reader: Any, d: Document) -> Any:
    try:
        return reader(d)
    except Unreadable as fault:
        return Torn(str(d["_id"]), f"{type(fault).__name__}: {fault}")


@asynccontextmanager
async def snapshot(db: Database) -> AsyncIterator[Snapshot]:
    """The database as it is now, for as long as MongoDB keeps it. Raises ``SnapshotTooOld``."""
    for attempt in range(1, TRIES_MAX + 1):
        async with db.client.start_session(snapshot=True) as session:
            found = Snapshot(db, session)
            try:
                await found.begin()
            except OperationFailure as fault:
                if fault.code == _SNAPSHOT_UNAVAILABLE and attempt < TRIES_MAX:
                    continue
                raise
            try:
                yield found
            except OperationFailure as fault:
                if fault.code == _SNAPSHOT_TOO_OLD:
                    raise SnapshotTooOld from fault
                raise
            return

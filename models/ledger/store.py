"""The journal and the wallets in MongoDB.

One journal document is one whole entry, inserted once and never changed: its ``_id`` is the idempotency key, and a
validator refuses legs that do not sum to zero. A wallet's balances are guarded by its version, and MongoDB itself
refuses to see any of them negative, whatever a program may have computed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from models.also import Also
from models.db import Database, Document, DuplicateKeyError, Session, Stale, collection, index
from models.ledger.journal import Entry, Kind, Leg, Line, Pocket, Seal, Sealed, Wallet
from models.money import AMOUNT_MAX

# What others keep with entries, and with a wallet that is frozen, in the same transaction.
Beside = Callable[[Sequence[Entry], Session], Awaitable[None]]
BesideFreeze = Callable[[Wallet, Session], Awaitable[None]]

# Versions of a wallet that one query of its statement looks at.
STRETCH = 500

DUPLICATE_KEY = 11000

_LONG = {"bsonType": ["int", "long"]}
_BALANCE = {**_LONG, "minimum": 0, "maximum": AMOUNT_MAX}
_TEXT = {"bsonType": "string"}

WALLETS = collection(
    "wallets",
    index("user_id", "currency", unique=True),
    index("id", unique=True),
    index("credits_id", unique=True),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "id", "credits_id", "user_id", "currency", "balances", "version", "head"],
            "properties": {
                "_id": _TEXT,
                "id": _TEXT,
                "credits_id": _TEXT,
                "user_id": _TEXT,
                "currency": {"bsonType": "string", "pattern": "^[A-Z]{3}$"},
                "balances": {
                    "bsonType": "object",
                    "required": [pocket.value for pocket in Pocket],
                    "properties": {pocket.value: _BALANCE for pocket in Pocket},
                    "additionalProperties": False,
                },
                "version": {**_LONG, "minimum": 0},
                "head": _TEXT,
                "frozen": {"bsonType": "bool"},
            },
        }
    },
)


def _sum_of(currency: str) -> Document:
    mine = {"$filter": {"input": "$legs", "cond": {"$eq": ["$$this.currency", currency]}}}
    return {"$sum": {"$map": {"input": mine, "in": "$$this.amount"}}}


# The kinds of entries by which the platform earns, or gives back what it has earned.
EARNING = (Kind.SETTLE, Kind.REFUND, Kind.WITHDRAWAL, Kind.WITHDRAW_RETURN, Kind.EXCHANGE)

JOURNAL = collection(
    "journal",
    # Each version of a wallet is made by one entry: the chain cannot fork, whatever a program may have computed.
    index("seals.wallet", "seals.version", unique=True, where={"seals.wallet": {"$exists": True}}),
    index("call_id", where={"call_id": {"$type": "string"}}),
    # What a statement shows, by time. Holds and releases, which are most of a payer's entries, are not in it.
    index("seals.wallet", "at", where={"seals.lines.account": {"$exists": True}}),
    index("payment_id", where={"payment_id": {"$type": "string"}}),
    # One entry of each call, and not its holds and captures: what the platform has earned, by day.
    index("at", where={"kind": {"$in": [kind.value for kind in EARNING]}}),
    validator={
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", "kind", "at", "legs", "seals"],
            "properties": {
                "_id": {"bsonType": "string", "minLength": 1},
                "kind": {"enum": [kind.value for kind in Kind]},
                "at": {"bsonType": "date"},
                "legs": {
                    "bsonType": "array",
                    "minItems": 2,
                    "items": {
                        "bsonType": "object",
                        "required": ["account", "amount", "currency"],
                        "properties": {
                            "account": _TEXT,
                            "amount": {**_LONG, "minimum": -AMOUNT_MAX, "maximum": AMOUNT_MAX},
                            "currency": {"bsonType": "string", "pattern": "^[A-Z]{3}$"},
                        },
                        "additionalProperties": False,
                    },
                },
                "seals": {"bsonType": "array"},
            },
        },
        "$expr": {
            "$allElementsTrue": {
                "$map": {
                    "input": {"$setUnion": ["$legs.currency", []]},
                    "as": "currency",
                    "in": {"$eq": [0, _sum_of("$$currency")]},
                }
            }
        },
    },
)


class AlreadyPosted(Exception):
    """An entry with this idempotency key is in the journal."""


class LedgerStore:
    """Reads of wallets and journal, and the one write."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._wallets = db[WALLETS]
        self._journal = db[JOURNAL]
        self.beside: Beside | None = None
        self.beside_freeze: BesideFreeze | None = None

    # ---------------------------------------------------------------------------------------------------- wallets

    async def wallets(self, keys: Collection[str]) -> dict[str, Wallet]:
        """Those of the wallets that exist, by key."""
        return {d["_id"]: wallet_of(d) async for d in self._wallets.find({"_id": {"$in": list(keys)}})}

    async def wallets_of(self, user_id: str) -> list[Wallet]:
        """All wallets of a user, the oldest first."""
        cursor = self._wallets.find({"user_id": user_id}, sort=[("created_at", 1), ("_id", 1)]).limit(
            512
        )  # more than there are currencies
        return [wallet_of(d) async for d in cursor]

    async def newest(self, limit: int) -> list[Wallet]:
        """Wallets, the newest first (ids rise with time), at most ``limit``."""
        return [wallet_of(d) async for d in self._wallets.find({}, sort=[("id", -1)]).limit(limit)]

    async def create(self, wallet: Wallet) -> bool:
        """Insert an empty wallet; False if the user has one in that currency already."""
        assert wallet.version == 0, "a wallet begins empty"
        document = {
            "_id": wallet.key,
            "id": wallet.id,
            "credits_id": wallet.credits_id,
            "user_id": wallet.user_id,
            "currency": wallet.currency,
            **_state(wallet),
            "frozen": wallet.frozen,
            "created_at": wallet.created_at,
        }
        try:
            await self._wallets.insert_one(document)
        except DuplicateKeyError:
            return False
        return True

    async def freeze(self, key: str, frozen: bool) -> Wallet | None:
        """Freeze or thaw; the wallet after it, None if there is none."""
        return next(iter(await self.freeze_all([key], frozen)), None)

    async def freeze_all(self, keys: Collection[str], frozen: bool, also: Also | None = None) -> list[Wallet]:
        """Freeze or thaw these wallets at once; those of them that there are, after it.

        ``also`` joins the transaction when that changes one of them.
        """
        beside = self.beside_freeze if frozen else None

        async def body(session: Session) -> list[Wallet]:
            found, changed = [], False
            for key in sorted(keys):
                row = await self._wallets.find_one({"_id": key}, session=session)
                if row is None:
                    continue
                if row.get("frozen", False) is not frozen:
                    await self._wallets.update_one(
                        {"_id": key}, {"$set": {"frozen": frozen}}, session=session
                    )
                    row["frozen"], changed = frozen, True
                    if beside is not None:
                        await beside(wallet_of(row), session)
                found.append(wallet_of(row))
            if changed and also is not None:
                await also(session)
            return found

        return await self._db.transaction(body)

    # ---------------------------------------------------------------------------------------------------- journal

    async def write(
        self,
        sealed: Sequence[Sealed],
        before: Mapping[str, Wallet],
        after: Mapping[str, Wallet],
        session: Session,
    ) -> None:
        """Insert the entries and move the wallets, within the caller's transaction.

        Raises ``Stale`` when a wallet is not as in ``before`` any more, ``AlreadyPosted`` when an entry is there; both
        abort the transaction. The wallets, for which others wait, come last.
        """
        if sealed:
            try:
                await self._journal.insert_many([_document(one) for one in sealed], session=session)
            except BulkWriteError as error:  # in a transaction a batch ends at its first error
                first = error.details["writeErrors"][0]
                if first["code"] != DUPLICATE_KEY:
                    raise
                if "_id" in first["keyPattern"]:
                    raise AlreadyPosted(first["keyValue"]["_id"]) from None
                raise Stale("the next version of a wallet is taken") from None
            if self.beside is not None:
                await self.beside([one.entry for one in sealed], session)
        moved = [
            UpdateOne(_guard(before[key]), {"$set": _state(wallet)})
            for key, wallet in sorted(after.items())
            if wallet.version != before[key].version
        ]
        if moved:
            done = await self._wallets.bulk_write(moved, session=session)
            if done.matched_count != len(moved):
                raise Stale(*sorted(after))

    async def transact(
        self,
        sealed: Sequence[Sealed],
        before: Mapping[str, Wallet],
        after: Mapping[str, Wallet],
        also: Also | None,
    ) -> None:
        """``also``, then ``write``, in a transaction of their own."""

        async def body(session: Session) -> None:
            if also is not None:
                await also(session)
            await self.write(sealed, before, after, session)

        await self._db.transaction(body)

    async def entry(self, entry_id: str) -> Sealed | None:
        """An entry that was posted, by its idempotency key."""
        found = await self._journal.find_one({"_id": entry_id})
        return sealed_of(found) if found else None

    async def of_call(self, call_id: str) -> list[Sealed]:
        """The entries of a call, in order of time."""
        # The type is said because the index has only those, and MongoDB does not conclude it from the value.
        query = {"call_id": {"$eq": call_id, "$type": "string"}}
        cursor = self._journal.find(query, sort=[("at", 1), ("_id", 1)]).limit(2000)
        return [sealed_of(d) async for d in cursor]

    async def statement(
        self, wallet: str, *, below_version: int, most: int, account: str | None = None
    ) -> list[Sealed]:
        """The newest entries with statement lines for a wallet, newest first, whose version is below the given one.

        Versions are dense, so the index is walked backwards in stretches. (A sort cannot do that: an array sorts by
        its greatest element, and the versions of an entry's other wallets are in the same array.)
        """
        found: list[Sealed] = []
        top = below_version
        while top > 1 and len(found) < most:
            low = max(1, top - STRETCH)
            link: Document = {"wallet": wallet, "version": {"$gte": low, "$lt": top}}
            if account is None:
                link["lines.0"] = {"$exists": True}
            else:
                link["lines.account"] = account
            cursor = self._journal.find({"seals": {"$elemMatch": link}}).limit(STRETCH)
            stretch = [sealed_of(d) async for d in cursor]
            found += sorted(stretch, key=lambda one: -one.version_in(wallet))
            top = low
        return found[:most]


def _guard(wallet: Wallet) -> Document:
    """The wallet exactly as it was planned with. Its head too: the same version of a database that was put back to an
    earlier time meanwhile, under a server that runs, is another one.
    """
    return {"_id": wallet.key, "version": wallet.version, "head": wallet.head, "frozen": wallet.frozen}


def _state(wallet: Wallet) -> Document:
    return {
        "balances": {pocket.value: wallet.balance(pocket) for pocket in Pocket},
        "version": wallet.version,
        "head": wallet.head,
    }


def wallet_of(d: Document) -> Wallet:
    """A document as a wallet."""
    return Wallet(
        key=d["_id"],
        id=d["id"],
        credits_id=d["credits_id"],
        user_id=d["user_id"],
        currency=d["currency"],
        version=d["version"],
        head=d["head"],
        frozen=d.get("frozen", False),
        created_at=d["created_at"],
        **{pocket.value: d["balances"][pocket.value] for pocket in Pocket},
    )


def _document(sealed: Sealed) -> Document:
    entry = sealed.entry
    document: Document = {
        "_id": entry.id,
        "kind": entry.kind.value,
        "at": entry.at,
        "legs": [
            {"account": leg.account, "amount": leg.amount_minor, "currency": leg.currency}
            for leg in entry.legs
        ],
        "seals": [
            {
                "wallet": seal.wallet,
                "version": seal.version,
                "previous": seal.previous,
                "hash": seal.hash,
                "lines": [
                    {"account": line.account, "amount": line.amount_minor, "after": line.after_minor}
                    for line in seal.lines
                ],
                "counterparty": seal.counterparty,
            }
            for seal in sealed.seals
        ],
    }
    for name in ("call_id", "payment_id", "note"):
        if getattr(entry, name) is not None:
            document[name] = getattr(entry, name)
    return document


def sealed_of(d: Mapping[str, Any]) -> Sealed:
    """A journal document as an entry with its links."""
    seals = tuple(
        Seal(
            wallet=s["wallet"],
            version=s["version"],
            previous=s["previous"],
            hash=s["hash"],
            lines=tuple(Line(line["account"], line["amount"], line["after"]) for line in s["lines"]),
            counterparty=s["counterparty"],
        )
        for s in d["seals"]
    )
    at: datetime = d["at"]
    entry = Entry(
        id=d["_id"],
        kind=Kind(d["kind"]),
        at=at,
        legs=tuple(Leg(leg["account"], leg["amount"], leg["currency"]) for leg in d["legs"]),
        call_id=d.get("call_id"),
        payment_id=d.get("payment_id"),
        counterparties={s.wallet: s.counterparty for s in seals if s.counterparty is not None},
        note=d.get("note"),
    )
    return Sealed(entry, seals)

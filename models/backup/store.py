"""The database's side of backup and restore: all collections at one instant, and filling an empty database.

Reading goes by a snapshot session as the audit's does (``models/audit/store.py`` says for how long MongoDB keeps an
instant). What is read and written is BSON that nobody takes apart: no type, no number and no order of fields is lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, cast

from bson import json_util
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from models.audit.store import SnapshotTooOld
from models.backup.archive import lengths
from models.db import RESTORING, Database, Document, DuplicateKeyError, Session

# Documents of a batch: GridFS chunks of 255 KiB make about 12 MB of it.
BATCH = 50
BATCH_SMALL = 2000
CHUNKS_END = ".chunks"
# One insert, well under what the server takes at once.
INSERT_BYTES = 8 << 20
TRIES_MAX = 50
_SNAPSHOT_TOO_OLD = 239
_SNAPSHOT_UNAVAILABLE = 246
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)


class NotEmpty(Exception):
    """The database to restore into has something in it; the text says what, as the end of a sentence."""


class Unfinished(Exception):
    """An earlier restore into this database has not come to its end."""


class Instant:
    """All collections as they were at one point in time."""

    def __init__(self, db: Database, session: Session, found: list[Document]) -> None:
        self._db, self._session = db, session
        self._found = {one["name"]: one for one in found}

    @property
    def names(self) -> list[str]:
        """The collections, by name."""
        return sorted(self._found)

    async def about(self, name: str) -> int:
        """How many documents a collection has, about: for a progress bar."""
        return int(await self._db.db[name].estimated_document_count())

    async def metadata(self, name: str) -> str:
        """Its options and indexes, as ``mongodump`` writes them."""
        indexes = [dict(one) async for one in await self._db.db[name].list_indexes()]
        told = {
            "options": self._found[name].get("options", {}),
            "indexes": indexes,
            "collectionName": name,
            "type": "collection",
        }
        return json_util.dumps(told, json_options=json_util.CANONICAL_JSON_OPTIONS)

    async def batches(self, name: str) -> AsyncIterator[bytes]:
        """Its documents in the order in which they were written."""
        cursor = self._db.db[name].find_raw_batches(
            {},
            session=self._session,
            hint=[("$natural", 1)],
            batch_size=BATCH if name.endswith(CHUNKS_END) else BATCH_SMALL,
        )
        async for batch in cursor:
            yield bytes(cast(bytes, batch))


@asynccontextmanager
async def instant(db: Database) -> AsyncIterator[Instant]:
    """The whole database as it is now, while others go on. Raises ``SnapshotTooOld`` when it takes too long."""
    for attempt in range(1, TRIES_MAX + 1):
        before = await _collections(db)
        async with db.client.start_session(snapshot=True) as session:
            try:
                # The first reading chooses the instant; each collection has to be there by then.
                for one in before:
                    await db.db[one["name"]].find_one({}, {"_id": 1}, session=session)
            except OperationFailure as fault:
                if fault.code == _SNAPSHOT_UNAVAILABLE and attempt < TRIES_MAX:
                    continue
                raise
            after = await _collections(db)
            if [one["name"] for one in after] != [one["name"] for one in before] and attempt < TRIES_MAX:
                continue  # one was made meanwhile, and might hold what the others speak of
            try:
                yield Instant(db, session, before)
            except OperationFailure as fault:
                if fault.code == _SNAPSHOT_TOO_OLD:
                    raise SnapshotTooOld from fault
                raise
            return


async def _collections(db: Database) -> list[Document]:
    cursor = await db.db.list_collections(filter={"type": "collection"})
    found = [dict(one) async for one in cursor if not one["name"].startswith("system.")]
    return sorted(found, key=lambda one: str(one["name"]))


class Filling:
    """A database that is being filled. No server starts on it before ``end``."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def begin(self, now: datetime, *, again: bool) -> None:
        """See that it is empty, and mark it. Raises ``NotEmpty``, ``Unfinished``.

        ``again``: what an earlier restore has left is thrown away. Never anything else is.
        """
        found = [one["name"] for one in await _collections(self._db)]
        marked = RESTORING in found and await self._db.db[RESTORING].find_one({"_id": RESTORING}) is not None
        if marked and not again:
            raise Unfinished
        for name in found:
            if not marked and await self._db.db[name].find_one({}, {"_id": 1}) is not None:
                raise NotEmpty(f"has documents in {name}")
        if not marked:
            try:
                await self._db.db[RESTORING].insert_one({"_id": RESTORING, "since": now})
            except DuplicateKeyError:
                raise Unfinished from None
        for name in found:
            if name != RESTORING:
                await self._db.db[name].drop()

    async def create(self, name: str, metadata: str) -> None:
        """Make a collection with the options that it had."""
        told = json_util.loads(metadata, json_options=json_util.CANONICAL_JSON_OPTIONS)
        await self._db.db.command({"create": name, **told.get("options", {})})

    async def insert(self, name: str, batch: bytes) -> int:
        """Add documents, in their order; how many."""
        rows, number = self._db.db[name].with_options(codec_options=_RAW), 0
        for share in _shares(batch):
            number += len(share)
            # They were taken by the rules of their time, which may have become stricter since.
            await rows.insert_many(share, ordered=True, bypass_document_validation=True)
        return number

    async def index(self, name: str, metadata: str) -> None:
        """Make the indexes that it had."""
        told: Any = json_util.loads(metadata, json_options=json_util.CANONICAL_JSON_OPTIONS)
        indexes = [
            {key: value for key, value in one.items() if key != "ns"}
            for one in told.get("indexes", [])
            if one["name"] != "_id_"
        ]
        if indexes:
            await self._db.db.command({"createIndexes": name, "indexes": indexes, "commitQuorum": "majority"})

    async def count(self, name: str) -> int:
        """How many documents there are."""
        return int(await self._db.db[name].count_documents({}))

    async def end(self) -> None:
        """It is whole."""
        await self._db.db[RESTORING].drop()


def _shares(batch: bytes) -> Iterator[list[RawBSONDocument]]:
    share: list[RawBSONDocument] = []
    at = size = 0
    for length in lengths(batch):
        if share and size + length > INSERT_BYTES:
            yield share
            share, size = [], 0
        share.append(RawBSONDocument(batch[at : at + length]))
        at, size = at + length, size + length
    if share:
        yield share

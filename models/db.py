"""MongoDB: the collections with their validators and indexes, the transaction, and what counts as "away".

Nothing outside this module and the ``store.py`` files knows the driver. Writes are majority and journaled (set on
the client), so that what has been acknowledged survives a crash. Reads come from the primary.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from bson.codec_options import CodecOptions
from pymongo import ASCENDING, DESCENDING, AsyncMongoClient, IndexModel, timeout
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    CollectionInvalid,
    ConnectionFailure,
    DuplicateKeyError,
    ExecutionTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

T = TypeVar("T")
Document = dict[str, Any]
Session = AsyncClientSession

# In flight at once. The driver's pool starves some waiters once more tasks than connections compete (seconds of
# delay at p99), so we queue in order in front of it, a little below its size.
POOL_SIZE_MAX = 100
IN_FLIGHT_MAX = 90
# How long a request may wait for a primary before it is refused with DATABASE_AWAY; short, since a phone retries.
SELECTION_MS = 1500
# A database that says nothing (a cut cable, a frozen machine) is noticed by the monitor after this and SELECTION_MS,
# which then also cuts off the operations that wait for it; their own bound is for when the monitor sees no fault.
# Not PyMongo's timeoutMS: under it a request looks for a primary as long as the whole operation may take.
HEARTBEAT_MS = 2000
SOCKET_MS = 5000
# The bound of one transaction, its retries included.
TRANSACTION_SECONDS = 5.0
# What is acknowledged is on the disk of a majority.
JOURNALED = True
_NAMESPACE_EXISTS, _WRITE_CONFLICT = 48, 112


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection's definition: its name, indexes and the schema that MongoDB itself enforces."""

    name: str
    indexes: Sequence[IndexModel] = ()
    validator: Mapping[str, Any] = field(default_factory=dict)


REGISTERED: dict[str, Collection] = {}
# There while a restore fills the database: see ``models/backup``.
RESTORING = "restoring"


def collection(name: str, *indexes: IndexModel, validator: Mapping[str, Any] | None = None) -> str:
    """Declare a collection next to the store that owns it; ``Database.prepare`` makes it. Returns the name."""
    if name in REGISTERED:
        raise ValueError(f"collection {name} is declared twice")
    REGISTERED[name] = Collection(name, indexes, validator or {})
    return name


def index(
    *keys: str, unique: bool = False, where: Mapping[str, Any] | None = None, ttl_seconds: int | None = None
) -> IndexModel:
    """An index over ``keys`` (``-name`` for descending), partial ``where`` given, expiring if ``ttl_seconds`` is."""
    pairs = [(key.lstrip("-"), DESCENDING if key.startswith("-") else ASCENDING) for key in keys]
    options: dict[str, Any] = {}
    if unique:
        options["unique"] = True
    if where is not None:
        options["partialFilterExpression"] = dict(where)
    if ttl_seconds is not None:
        options["expireAfterSeconds"] = ttl_seconds
    return IndexModel(pairs, **options)


class _Queue:
    """The places before the driver's pool, given in order of arrival."""

    def __init__(self, client: AsyncMongoClient[Document]) -> None:
        self._client = client
        self._places = asyncio.Semaphore(IN_FLIGHT_MAX)
        # For the metrics: how many have a place, and how many wait for one.
        self.taken = 0
        self.waiting = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place, and give it back at the end.

        While the database is away nobody needs one: all learn it after ``SELECTION_MS``, and not one after another.
        """
        if self._away():
            yield
            return
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.taken += 1
        given_back = False
        try:
            if self._away():  # since this one began to wait
                self._give_back()
                given_back = True
            yield
        finally:
            if not given_back:
                self._give_back()

    def _give_back(self) -> None:
        self.taken -= 1
        self._places.release()

    def _away(self) -> bool:
        return not self._client.topology_description.has_writable_server()


# The verbs of a collection that are one exchange with the server.
_VERBS = frozenset(
    "bulk_write count_documents distinct find_one insert_many insert_one replace_one "
    "delete_many delete_one find_one_and_delete find_one_and_update update_many update_one".split()
)


class _Queued:
    """A collection each of whose exchanges takes a place in the queue; see ``IN_FLIGHT_MAX``.

    Not those with a ``session``: a transaction has one place for all that it does, and would wait for itself.
    """

    def __init__(self, inner: AsyncCollection[Document], queue: _Queue) -> None:
        self._inner, self._queue = inner, queue

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._inner, name)
        if name not in _VERBS:
            return verb

        async def queued(*args: Any, session: Session | None = None, **more: Any) -> Any:
            if session is not None:
                return await verb(*args, session=session, **more)
            async with self._queue.place():
                return await verb(*args, **more)

        setattr(self, name, queued)  # made once
        return queued

    def find(self, *args: Any, session: Session | None = None, **more: Any) -> Any:
        cursor = self._inner.find(*args, session=session, **more)
        return cursor if session is not None else _QueuedCursor(cursor, self._queue)


class _QueuedCursor:
    """What a query of bounded size finds, fetched in one go so that no place is held while others work on it."""

    def __init__(self, cursor: AsyncCursor[Document], queue: _Queue) -> None:
        self._cursor, self._queue = cursor, queue

    def sort(self, *order: Any) -> _QueuedCursor:
        self._cursor.sort(*order)
        return self

    def skip(self, number: int) -> _QueuedCursor:
        self._cursor.skip(number)
        return self

    def limit(self, most: int) -> _QueuedCursor:
        self._cursor.limit(most)
        return self

    async def explain(self) -> Document:
        async with self._queue.place():
            return dict(await self._cursor.explain())

    async def to_list(self) -> list[Document]:
        async with self._queue.place():
            return await self._cursor.to_list()

    async def __aiter__(self) -> AsyncIterator[Document]:
        for document in await self.to_list():
            yield document


class Database:
    """A connection to one database of a replica set. ``listeners`` are told of its commands, as the driver does."""

    def __init__(self, uri: str, name: str, *, listeners: Sequence[Any] = ()) -> None:
        self.client: AsyncMongoClient[Document] = AsyncMongoClient(
            uri,
            maxPoolSize=POOL_SIZE_MAX,
            serverSelectionTimeoutMS=SELECTION_MS,
            connectTimeoutMS=SELECTION_MS,
            socketTimeoutMS=SOCKET_MS,
            heartbeatFrequencyMS=HEARTBEAT_MS,
            retryWrites=True,
            w="majority",
            journal=JOURNALED,
            appname="ringmeter",
            event_listeners=list(listeners),
        )
        options: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC)
        self.db: AsyncDatabase[Document] = self.client.get_database(name, codec_options=options)
        self._queue = _Queue(self.client)
        self._commit = WriteConcern("majority", j=JOURNALED)
        # For the metrics: transactions begun, and how often one had to be run again.
        self.transactions = 0
        self.transaction_retries = 0

    def __getitem__(self, name: str) -> AsyncCollection[Document]:
        return cast(AsyncCollection[Document], _Queued(self.db[name], self._queue))

    @property
    def in_flight(self) -> int:
        """Exchanges and transactions that have a place before the pool just now, of ``IN_FLIGHT_MAX``."""
        return self._queue.taken

    @property
    def waiting(self) -> int:
        """Those that wait for one."""
        return self._queue.waiting

    async def prepare(self) -> None:
        """Make the declared collections, validators and indexes; safe to repeat and to run in several processes."""
        await self.refuse_standalone()
        await self.refuse_half_restored()
        present = {
            one["name"]: one["options"].get("validator") async for one in await self.db.list_collections()
        }
        for definition in REGISTERED.values():
            if definition.name not in present:
                await self._create(definition)
            # Only what is another one: the change waits for every open transaction, and one whose process was killed
            # is open until the database gives it up, a minute later.
            elif definition.validator and definition.validator != present[definition.name]:
                await self.db.command("collMod", definition.name, validator=dict(definition.validator))
        await asyncio.gather(
            *(self.db[d.name].create_indexes(list(d.indexes)) for d in REGISTERED.values() if d.indexes)
        )

    async def _create(self, definition: Collection) -> None:
        """Make a collection, unless another process makes it first: the driver looks, and the server knows."""
        with suppress(CollectionInvalid):
            try:
                await self.db.create_collection(definition.name, validator=definition.validator or None)
            except OperationFailure as fault:
                if fault.code != _NAMESPACE_EXISTS:
                    raise

    async def refuse_half_restored(self) -> None:
        """Raise ``HalfRestored`` while a restore of a backup fills this database."""
        if await self.db[RESTORING].find_one({"_id": RESTORING}) is not None:
            raise HalfRestored("A restore into this database has not come to its end: see restore --again")

    async def refuse_standalone(self) -> None:
        """Raise ``StandaloneServer`` unless this is a replica set (or a router of one)."""
        hello = await self.client.admin.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise StandaloneServer("MONGO_URI names a standalone MongoDB; transactions need a replica set")

    async def transaction(self, body: Callable[[Session], Awaitable[T]]) -> T:
        """Run ``body(session)`` so that all of its writes happen or none do.

        ``body`` may run several times (write conflicts), so it must change nothing but the database and must not
        swallow the driver's errors. Snapshot reads, majority and journaled commit. Raises ``HeldUp`` when others were
        at the same documents all the time.
        """
        async with self._queue.place(), self.client.start_session() as session:
            if not self.client.topology_description.has_writable_server():
                await self.ping()  # refuses after SELECTION_MS; the transaction would go on trying
            self.transactions += 1
            tries, conflict = 0, False

            async def counted(session: Session) -> T:
                nonlocal tries, conflict
                tries += 1
                self.transaction_retries += tries > 1
                try:
                    return await body(session)
                except OperationFailure as fault:
                    conflict = conflict or fault.code == _WRITE_CONFLICT
                    raise

            try:
                with timeout(TRANSACTION_SECONDS):
                    return await session.with_transaction(
                        counted,
                        read_concern=ReadConcern("snapshot"),
                        write_concern=self._commit,
                    )
            except PyMongoError as fault:
                if conflict and fault.timeout:
                    raise HeldUp(str(fault)) from fault
                raise

    async def ping(self) -> None:
        """Raise unless a primary answers now."""
        await self.client.admin.command("ping")

    async def version(self) -> str:
        """The version of the server, as text."""
        return str((await self.client.server_info())["version"])

    async def close(self) -> None:
        """Close all connections."""
        await self.client.close()


class Stale(Exception):
    """A guarded write met another version than the one it was computed from: read again, compute again."""


class HalfRestored(Exception):
    """A restore of a backup runs, or was interrupted: what is there is not whole."""


class HeldUp(ExecutionTimeout):
    """A transaction came to nothing because another one, perhaps of a dead process, holds what it is about."""


class StandaloneServer(Exception):
    """The server is not a member of a replica set, so it has no transactions."""


def out_of_reach(error: BaseException) -> bool:
    """``database_away``, and not for this one transaction alone: whatever else is asked for now would fail as well."""
    return database_away(error) and not isinstance(error, HeldUp)


def database_away(error: BaseException) -> bool:
    """Whether an exception says that the database cannot be reached just now (and the same request may work later)."""
    if isinstance(
        error, (ServerSelectionTimeoutError, ConnectionFailure, NotPrimaryError, WaitQueueTimeoutError)
    ):
        return True
    if isinstance(error, ExecutionTimeout) or (isinstance(error, PyMongoError) and error.timeout):
        return True
    # An operation killed by a server that is shutting down or stepping down (codes of MongoDB's error_codes.yml).
    return isinstance(error, OperationFailure) and error.code in {
        91,
        189,
        11600,
        11602,
        10107,
        13435,
        13436,
        133,
    }


def taken(error: DuplicateKeyError) -> str:
    """The name of the first field of the unique index that a write ran into."""
    pattern = (error.details or {}).get("keyPattern") or {}
    return next(iter(pattern), "_id")


def instant(value: datetime) -> datetime:
    """``value`` in UTC, cut to whole milliseconds: what MongoDB can keep and the wire can say."""
    value = value.astimezone(UTC)
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


__all__ = [
    "REGISTERED",
    "RESTORING",
    "Database",
    "Document",
    "DuplicateKeyError",
    "HalfRestored",
    "Session",
    "Stale",
    "StandaloneServer",
    "collection",
    "database_away",
    "index",
    "instant",
    "taken",
]

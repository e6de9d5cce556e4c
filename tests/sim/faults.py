"""What goes wrong between a process and its database, and in which order things happen at once.

A ``Driver`` stands where the services expect the database. Every exchange with MongoDB is one numbered place, also
each one within a transaction, and its begin and its commit; at each place the dice of a history may say

    crash      the process is gone, before the exchange or after it took effect
    conflict   WriteConflict with TransientTransactionError in the body of a transaction, once or several times
    lost       the server did it and the answer is lost: for a commit, the unknown result
    aborted    the commit never reached the server, and nobody knows
    away       no primary can be found, for some exchanges

What runs at once runs in the order of the dice, too: one exchange at a time (``Interleave``).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pymongo.errors import AutoReconnect, OperationFailure, ServerSelectionTimeoutError

from models.db import Database, Session
from models.errors import Refusal
from tests.services.callkit import Killed, collection_of

WRITE_CONFLICT = 112
# How often in a row the body of one transaction is made to meet a conflict.
CONFLICTS_MAX = 3
# Exchanges for which a database is away.
AWAY_MAX = 6


class AbortedCommit(Exception):
    """The connection broke before the commit reached the server."""


@dataclass
class Faults:
    """The misfortunes of one history. ``at`` names one exchange after which its process dies (an enumerated crash).

    ``odds`` are chances per exchange by the fault's name; ``left`` bounds how many there are, so that a history ends.
    """

    dice: Random
    odds: dict[str, float] = field(default_factory=dict)
    left: int = 0
    at: int | None = None
    armed: bool = False
    exchanges: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    # For each exchange what there is of the history when its process dies after it, where somebody asks (``scene``).
    left_after: list[Hashable] = field(default_factory=list)
    scene: Callable[[], Hashable] | None = None
    durable: int = 0
    _away: int = 0

    def here(self, *kinds: str, who: object = None, writes: bool = False) -> str | None:
        """Which of the ``kinds`` that can happen at this place does. ``writes``: what it does is done for good."""
        if not self.armed:
            return None
        self.exchanges += 1
        self.durable += writes
        if self.scene is not None:
            # A commit is counted before what it commits, which is not there until then: it is like nothing else.
            alone = self.exchanges if "aborted" in kinds else 0
            self.left_after.append((id(who), alone, self.durable, self.scene()))
        if self.at is not None:
            if self.exchanges != self.at:
                return None
            self.counts["crash"] += 1
            return "crash after"
        if self._away:
            self._away -= 1
            return "away"
        if self.left <= 0:
            return None
        for kind in kinds:
            if self.dice.random() < self.odds.get(kind, 0.0):
                return self._strike(kind)
        return None

    def _strike(self, kind: str) -> str:
        self.left -= 1
        self.counts[kind] += 1
        if kind == "crash":
            return self.dice.choice(("crash before", "crash after"))
        if kind == "away":
            self._away = self.dice.randrange(AWAY_MAX)
        return kind

    @property
    def alike(self) -> tuple[int, ...]:
        """For each exchange the first one after which a death leaves the same: reads between them change nothing."""
        first: dict[Hashable, int] = {}
        return tuple(first.setdefault(left, number) for number, left in enumerate(self.left_after, 1))

    @property
    def harmless(self) -> bool:
        """Nothing has gone wrong so far."""
        return not any(
            count for kind, count in self.counts.items() if kind not in ("conflict", "real conflict")
        )


class Driver:
    """One process's database."""

    def __init__(self, db: Database, faults: Faults, touched: set[str]) -> None:
        self._db, self._faults, self._touched = db, faults, touched
        self.dead = False
        # Whether something may have been written since somebody asked.
        self.wrote = True

    def __getitem__(self, name: str) -> _Collection:
        self._touched.add(name)
        return _Collection(self, collection_of(self._db, name))

    def die(self) -> None:
        """The process is gone, right here."""
        self.dead = True
        raise Killed

    async def exchange(
        self, run: Callable[[], Awaitable[Any]], *, session: Session | None = None, writes: bool = False
    ) -> Any:
        """One exchange, with what happens to it."""
        if session is not None:
            return await self._within(run)
        race = _RACE.get()
        await gate()
        if self.dead:
            raise Killed
        fault = self._faults.here("crash", "lost", "away", who=self, writes=writes)
        self._fail_before(fault)
        if race is None:
            done = await run()
        else:
            with race.busy():
                done = await run()
        self._fail_after(fault)
        return done

    async def _within(self, run: Callable[[], Awaitable[Any]]) -> Any:
        if self.dead:
            raise Killed
        fault = self._faults.here("crash", "conflict", "away", who=self)
        self._fail_before(fault)
        if fault == "conflict":
            raise _conflict()
        done = await run()
        self._fail_after(fault)
        return done

    def _fail_before(self, fault: str | None) -> None:
        if fault == "crash before":
            self.die()
        if fault == "away":
            raise ServerSelectionTimeoutError("no primary (injected)")

    def _fail_after(self, fault: str | None) -> None:
        if fault == "crash after":
            self.die()
        if fault == "lost":
            raise AutoReconnect("the answer is lost (injected)")

    async def transaction(self, body: Callable[[Session], Awaitable[Any]]) -> Any:
        """A real transaction, with what happens to it."""
        race = _RACE.get()
        await gate()
        if self.dead:
            raise Killed
        self.wrote = True
        fault = self._faults.here("crash", "away", who=self)
        self._fail_before(fault)
        self._fail_after(fault)
        end = self._faults.here("crash", "lost", "aborted", "conflict", who=self)
        tries = 0
        conflicts = self._faults.dice.randint(1, CONFLICTS_MAX) if end == "conflict" else 0

        async def troubled(session: Session) -> Any:
            nonlocal tries
            tries += 1
            if race is not None and tries == 1 and race.dice.random() < 0.5:
                # It has its snapshot, and the others go first: what they write is a real conflict for it.
                await collection_of(self._db, "wallets").find_one({"_id": "-"}, session=session)
                with race.idle():
                    await gate()
                if self.dead:
                    raise Killed
            done = await body(session)
            if end == "crash before":
                self.die()
            if end == "aborted":
                raise AbortedCommit
            if tries <= conflicts:
                raise _conflict()
            return done

        try:
            if race is None:
                done = await self._db.transaction(troubled)
            else:
                with race.busy():
                    done = await self._db.transaction(troubled)
        except AbortedCommit:
            raise AutoReconnect("the commit is lost (injected)") from None
        if race is not None and tries > 1:
            self._faults.counts["real conflict"] += tries - 1 - conflicts
        self._faults.durable += 1
        self._fail_after(end)
        return done


def _conflict() -> OperationFailure:
    details = {
        "code": WRITE_CONFLICT,
        "codeName": "WriteConflict",
        "errorLabels": ["TransientTransactionError"],
    }
    return OperationFailure("WriteConflict (injected)", WRITE_CONFLICT, details)


_READS = frozenset(("find_one", "aggregate", "count_documents", "distinct"))


class _Collection:
    """A collection whose exchanges go through the driver."""

    def __init__(self, driver: Driver, inner: Any) -> None:
        self._driver, self._inner = driver, inner

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._inner, name)
        reads = name in _READS

        async def troubled(*args: Any, session: Session | None = None, **more: Any) -> Any:
            if session is not None:
                more["session"] = session
            self._driver.wrote |= not reads
            return await self._driver.exchange(lambda: verb(*args, **more), session=session, writes=not reads)

        return troubled

    def find(self, *args: Any, session: Session | None = None, **more: Any) -> _Cursor:
        return _Cursor(self._driver, self._inner.find(*args, session=session, **more), session)


class _Cursor:
    """What a query finds, fetched in one exchange."""

    def __init__(self, driver: Driver, inner: Any, session: Session | None) -> None:
        self._driver, self._inner, self._session = driver, inner, session

    def __getattr__(self, name: str) -> Any:
        assert name in ("sort", "skip", "limit"), name

        def refined(*args: Any) -> _Cursor:
            getattr(self._inner, name)(*args)
            return self

        return refined

    async def to_list(self) -> list[Any]:
        found: list[Any] = await self._driver.exchange(self._inner.to_list, session=self._session)
        return found

    async def __aiter__(self) -> AsyncIterator[Any]:
        for document in await self.to_list():
            yield document


# ------------------------------------------------------------------------------------------------------- at once

_RACE: ContextVar[Interleave | None] = ContextVar("interleave", default=None)
# Turns of the loop after which whoever is not at a gate must be waiting for another task.
QUIET_TURNS = 40


async def gate() -> None:
    """Wait for the dice, in a race; otherwise go on."""
    race = _RACE.get()
    if race is not None:
        await race.gate()


async def ordered(work: Callable[[], Coroutine[Any, Any, Any]], dice: Random) -> Any:
    """Work that does several things at once by itself, in an order of the dice, so that it is the same each time."""
    if _RACE.get() is not None:
        return await work()
    done = (await Interleave(dice).run(work=work()))["work"]
    if isinstance(done, BaseException):
        raise done
    return done


async def aside(look: Awaitable[Any]) -> Any:
    """Something that goes on beside the drivers, such as a look by the side door; in a race the others wait for it."""
    race = _RACE.get()
    if race is None:
        return await look
    with race.busy():
        return await look


class _Span:
    """Raises or lowers the number of exchanges that are under way."""

    def __init__(self, race: Interleave, step: int) -> None:
        self._race, self._step = race, step

    def __enter__(self) -> None:
        self._race.count(self._step)

    def __exit__(self, *exc: object) -> None:
        self._race.count(-self._step)


class Interleave:
    """Several tasks of any number of processes, one exchange at a time, in an order that the dice say.

    Unlike ``callkit.Race`` the tasks may wait for each other's locks.
    """

    def __init__(self, dice: Random) -> None:
        self.dice = dice
        self._waiting: list[asyncio.Future[None]] = []
        self._under_way = 0
        self._still = asyncio.Event()
        self._still.set()
        self.turns = 0

    def busy(self) -> _Span:
        """While an exchange is under way."""
        return _Span(self, 1)

    def idle(self) -> _Span:
        """While it waits at a gate in the midst of one."""
        return _Span(self, -1)

    def count(self, step: int) -> None:
        """Take note of an exchange that begins or ends."""
        self._under_way += step
        if self._under_way:
            self._still.clear()
        else:
            self._still.set()

    async def gate(self) -> None:
        """Wait until it is this one's turn."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        await place

    async def run(self, **verbs: Coroutine[Any, Any, Any]) -> dict[str, Any]:
        """Run the verbs against one another: what each gave, or its exception."""
        token = _RACE.set(self)
        tasks = {name: asyncio.create_task(_outcome(verb)) for name, verb in verbs.items()}
        _RACE.reset(token)
        while True:
            await self._settle()
            if all(task.done() for task in tasks.values()):
                break
            assert self._waiting, "all wait for each other"
            self.turns += 1
            self._waiting.pop(self.dice.randrange(len(self._waiting))).set_result(None)
        return {name: task.result() for name, task in tasks.items()}

    async def _settle(self) -> None:
        quiet = 0
        while quiet < QUIET_TURNS:
            await asyncio.sleep(0)
            quiet += 1
            if self._under_way:
                await self._still.wait()
                quiet = 0


async def _outcome(verb: Coroutine[Any, Any, Any]) -> Any:
    """What a verb gives, or how it failed, as a value."""
    await gate()
    try:
        return await verb
    except (Killed, Refusal, Exception) as fault:
        return fault

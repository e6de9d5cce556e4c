"""The services of one process as the server wires them, without sockets, on a database of their own.

What money costs is measured here without the wire: every verb is the real one, every commit is journaled, and letters
are kept and then told to doors that only count them. Time is the machine's, shifted where a minute would have to be
waited for; a task may have a time of its own, so that many calls can be renewed one after the other without a pause.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from models.db import Database
from models.ledger.journal import Entry, Kind, Leg, Pocket, Wallet, account_of, clearing, wallet_key
from models.ports import Device, Letter, Window
from models.users.store import USERS
from server.app import GC_THRESHOLDS
from server.clock import LoopAlarms, SystemClock, SystemIds, Tasks
from server.config import load_config
from server.wiring import Edges, wire
from tests.bench.machine import busy_seconds, cpu_seconds, stolen_seconds
from tests.bench.stats import spread

CURRENCY = "NGN"
BY_THE_SECOND = {
    "CALL_FIRST_BLOCK_SECONDS": "1",
    "CALL_BLOCK_SECONDS": "1",
    "CALL_MINIMUM_MINOR": "0",
}
# More than the calls of a measurement cost one payer; the most that can be paid in at once.
PLENTY_MINOR = 10**10
# Commands that do something, as `serverStatus` counts them; not those that keep the connections alive.
COMMANDS = (
    *("find", "insert", "update", "delete", "findAndModify", "aggregate", "getMore", "bulkWrite", "count"),
    *("commitTransaction", "abortTransaction"),
)
STALL_SECONDS = 0.002
AT_ONCE = 64

_LANE: ContextVar[list[datetime] | None] = ContextVar("lane", default=None)


class Clock:
    """The machine's time, shifted by ``shift``; within ``lane`` a time that only the task itself moves."""

    def __init__(self) -> None:
        self._real = SystemClock()
        self._shift = timedelta()

    def now(self) -> datetime:
        lane = _LANE.get()
        return lane[0] if lane is not None else self._real.now() + self._shift

    def set(self, at: datetime) -> None:
        """From now on it is ``at`` and counting."""
        self._shift = at - self._real.now()

    @staticmethod
    def lane(at: datetime) -> None:
        """For this task it is ``at`` from now on, standing still."""
        _LANE.set([at])


class Ears:
    """Doors at which everybody is connected; letters are counted by event, and shown to ``listeners``."""

    def __init__(self) -> None:
        self.heard: Counter[str] = Counter()
        self.listeners: list[Callable[[Sequence[Letter]], None]] = []

    async def deliver(self, letters: Sequence[Letter]) -> None:
        self.heard.update(letter.event for letter in letters)
        for listener in self.listeners:
            listener(letters)

    def online(self, user_id: str) -> bool:
        return True

    def connected(self, user_id: str, device_id: str) -> bool:
        return True

    def renew(self, user_id: str, device_id: str, expires_at: datetime) -> None: ...

    async def close(self, user_id: str, *, session_ids: Collection[str] | None = None, code: str) -> None: ...


class NoLimit:
    """As many rings of a pair as are wanted."""

    async def take(self, *windows: Window, now: float) -> int:
        return 0


class Inside:
    """A process. ``db`` counts its transactions; ``posted`` counts the entries of its ledger by kind."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.db = db
        self.clock, self.ids, self.ears, self.tasks = Clock(), SystemIds(), Ears(), Tasks()
        self.process = self.ids.new()
        self.alarms = LoopAlarms(self.clock, self.tasks)
        settings = {
            "JWT_SECRET": "x" * 32,
            "DATA_DIR": str(folder),
            "STUN_URLS": "none",
            "CURRENCY": CURRENCY,
            "BCRYPT_ROUNDS": "4",
            **BY_THE_SECOND,
        }
        self._wired = wire(
            load_config(settings),
            db,
            Edges(
                clock=self.clock,
                ids=self.ids,
                alarms=self.alarms,
                doors=self.ears,
                process=self.process,
                give_way=self.tasks.give_way,
            ),
        )
        self._wired.windows.take = NoLimit().take  # type: ignore[method-assign]
        self.services = self._wired.services
        self.calls, self.ledger = self.services.calls, self.services.ledger
        self.alarms.ring = self.calls.alarm
        self.posted: Counter[Kind] = Counter()
        self.ledger.listeners.append(self.count)

    async def count(self, wallets: Sequence[Wallet], entries: Sequence[Entry]) -> None:
        """A listener of a ledger."""
        self.posted.update(entry.kind for entry in entries)

    def device(self, user_id: str) -> Device:
        """The phone of a person, connected here."""
        return Device(user_id=user_id, device_id=f"{user_id}-phone", session_id="s", process=self.process)

    async def people(self, prefix: str, count: int, *, rate: int | None = None, money: int = 0) -> list[str]:
        """Active users, each with a rate of their own and money in their wallet."""
        now, names = self.clock.now(), [f"{prefix}{number:05d}" for number in range(count)]
        rows = [_person(name, rate, now) for name in names]
        await self.db[USERS].insert_many(rows)
        if money:
            gate = asyncio.Semaphore(AT_ONCE)

            async def one(name: str) -> None:
                async with gate:
                    await self.pay_in(name, money)

            await asyncio.gather(*(one(name) for name in names))
        return names

    async def pay_in(self, user_id: str, amount_minor: int) -> None:
        """Money from outside."""
        await self.ledger.ensure(user_id, CURRENCY)
        key = wallet_key(user_id, CURRENCY)
        legs = (
            Leg(clearing("bench"), -amount_minor, CURRENCY),
            Leg(account_of(key, Pocket.PRIMARY), amount_minor, CURRENCY),
        )
        entry = Entry(id=f"pay:bench:{self.ids.new()}", kind=Kind.DEPOSIT, at=self.clock.now(), legs=legs)
        await self.ledger.post([key], lambda wallets: [entry])

    async def commands(self) -> Counter[str]:
        """What the database has been asked so far, by command."""
        status = await self.db.client.admin.command("serverStatus")
        counted = status["metrics"]["commands"]
        return Counter({name: int(counted.get(name, {}).get("total", 0)) for name in COMMANDS})

    async def close(self) -> None:
        self.alarms.stop()
        await self.tasks.drain(5)
        await self._wired.close()


@asynccontextmanager
async def inside(uri: str, name: str, folder: Path) -> AsyncIterator[Inside]:
    """A process on an empty database, its collector of garbage set as the server's."""
    db = Database(uri, name)
    await db.prepare()
    one = Inside(db, folder)
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        yield one
    finally:
        gc.set_threshold(*before)
        await one.close()
        await db.client.drop_database(name)
        await db.close()


def _person(name: str, rate: int | None, now: datetime) -> dict[str, Any]:
    return {
        "_id": name,
        "username": name,
        "username_key": name,
        "display_name": name.title(),
        "display_key": name,
        "email": f"{name}@example.com",
        "email_key": f"{name}@example.com",
        "password_hash": "-",
        "avatar_url": None,
        "rate_per_minute_minor": rate,
        "currency": CURRENCY,
        "role": "user",
        "status": "active",
        "created_at": now,
        "updated_at": now,
    }


@dataclass(frozen=True, slots=True)
class Spent:
    """Of a stretch of time: its seconds, CPU seconds, what was posted, and the database's transactions.

    What the host has kept from this machine (``stolen``) is a part of what others took.
    """

    seconds: float
    cpu: float
    database: float
    others: float
    stolen: float
    posted: Counter[Kind]
    transactions: int
    retries: int

    def figures(self) -> dict[str, float]:
        """Those that every measure has."""
        return {
            "transactions_per_s": self.transactions / self.seconds,
            "retries_per_transaction": self.retries / self.transactions if self.transactions else 0.0,
            "server_cpu_share": self.cpu / self.seconds,
            "database_cpu_share": self.database / self.seconds,
            "others_cpu_share": self.others / self.seconds,
            "stolen_cpu_share": self.stolen / self.seconds,
        }


class Meter:
    """Begins to count when it is made."""

    def __init__(self, here: Inside, database: int) -> None:
        self._here, self._database = here, database
        self._begun, self._posted = self._all(), Counter(here.posted)

    def read(self) -> Spent:
        """What has been spent since."""
        seconds, cpu, database, busy, stolen, begun, retries = (
            now - then for now, then in zip(self._all(), self._begun, strict=True)
        )
        posted = self._here.posted - self._posted
        others = max(0.0, busy - cpu - database)
        return Spent(seconds, cpu, database, others, stolen, posted, int(begun), int(retries))

    def _all(self) -> tuple[float, ...]:
        db = self._here.db
        return (
            time.perf_counter(),
            time.process_time(),
            cpu_seconds(self._database),
            busy_seconds(),
            stolen_seconds(),
            db.transactions,
            db.transaction_retries,
        )


class Stall:
    """For the time of a ``with``: how long the loop let a timer of ``STALL_SECONDS`` wait each time, in ms."""

    def __init__(self) -> None:
        self.lags_ms: list[float] = []

    def figures(self) -> dict[str, float]:
        """The lag of the loop, and the longest."""
        return {**spread("lag_ms", self.lags_ms), "stall_ms": max(self.lags_ms, default=0.0)}

    def __enter__(self) -> Stall:
        self._task = asyncio.create_task(self._watch())
        return self

    def __exit__(self, *_: object) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            due = time.perf_counter() + STALL_SECONDS
            await asyncio.sleep(STALL_SECONDS)
            self.lags_ms.append((time.perf_counter() - due) * 1000)

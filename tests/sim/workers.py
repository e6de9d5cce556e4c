"""The processes that play histories, each with a mongod and a database of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import server.wiring  # noqa: F401 - declares every collection
from models.billing.meter import WalletMeter
from models.db import Database
from server.cli_run import event_loop_factory
from server.mongod import EmbeddedMongod
from tests.sim.history import setup
from tests.sim.walk import Failed, play

# Memory of the machine that is a file system (Linux), when it is there and has room for a small database.
MEMORY, MEMORY_BYTES_MIN = Path("/dev/shm"), 2**31
# A history with more exchanges than this is not swept: the next one is shorter and shows as much.
SWEPT_EXCHANGES_MAX = 250
# Lines of a broken history's trace that are shown.
TRACE_MAX = 40


@dataclass(frozen=True)
class Task:
    """A history to be played; ``sweep``: first whole, then with a crash after each of its exchanges in turn."""

    seed: int
    crash_at: int | None = None
    sweep: bool = False


@dataclass(frozen=True)
class Played:
    """What came of one history."""

    seed: int
    kind: str
    crash_at: int | None = None
    digest: str = ""
    exchanges: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    failure: str = ""
    # For each exchange of a whole one the first after which a death leaves the same.
    alike: tuple[int, ...] = ()

    @property
    def replay(self) -> str:
        """What to say to ``make sim``."""
        return f"SEED={self.seed} RUNS=1" + (f" CRASH={self.crash_at}" if self.crash_at is not None else "")


def work(tasks: Any, results: Any, stop: Any) -> None:
    """A worker process: plays what it is given until it is given None, or ``stop`` is set."""
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        try:
            runner.run(_work(tasks, results, stop))
        except KeyboardInterrupt:
            sys.exit(130)


async def _work(tasks: Any, results: Any, stop: Any) -> None:
    async with database() as db:
        while (task := await asyncio.to_thread(tasks.get)) is not None:
            if stop.is_set():
                break
            if task.sweep:
                await sweep(db, task.seed, results.put, stop.is_set)
                results.put(None)
            else:
                results.put(await one(db, task.seed, crash_at=task.crash_at))


async def one(
    db: Database, seed: int, *, crash_at: int | None = None, meter: type[WalletMeter] | None = None
) -> Played:
    """Play one history."""
    kind = "calm" if crash_at is not None else None
    told = "swept" if crash_at is not None else setup(seed).kind
    try:
        done = await play(db, seed, kind=kind, crash_at=crash_at, meter=meter)
    except Failed as failed:
        trace = "\n  ".join(failed.trace[-TRACE_MAX:])
        said = f"{type(failed.fault).__name__}: {failed.fault}\n  {trace}"
        return Played(seed, told, crash_at, failure=said)
    return Played(
        seed, told, crash_at, done.digest, done.exchanges, done.counts, done.faults, alike=done.alike
    )


async def sweep(
    db: Database, seed: int, tell: Callable[[Played], Any], stopped: Callable[[], bool] = lambda: False
) -> int:
    """A calm history whole, then its process dying after each exchange in turn; how many were played.

    Only one in which somebody has paid for a call, and short enough.
    """
    whole = await one(db, seed, crash_at=0)
    tell(whole)
    if whole.failure or not whole.counts["paid calls"] or whole.exchanges > SWEPT_EXCHANGES_MAX:
        return 1
    digests: dict[int, str] = {}
    for exchange, alike in enumerate(whole.alike, 1):
        if stopped():
            continue
        played = await one(db, seed, crash_at=exchange)
        digests[exchange] = played.digest
        if not played.failure and digests[alike] not in ("", played.digest):
            played = replace(played, failure=f"is not as with a crash after exchange {alike}")
        tell(played)
    return 1 + whole.exchanges


@asynccontextmanager
async def database() -> AsyncIterator[Database]:
    """An empty database on a mongod of its own, in memory where there is some."""
    with tempfile.TemporaryDirectory(dir=_folder(), ignore_cleanup_errors=True) as folder:
        mongod = EmbeddedMongod(Path(folder) / "mongod", fast=True)
        uri = await mongod.start()
        try:
            db = Database(uri, "sim")
            await db.prepare()
            yield db
            await db.close()
        finally:
            await mongod.stop()


def _folder() -> Path | None:
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_BYTES_MIN:
        return MEMORY
    return None

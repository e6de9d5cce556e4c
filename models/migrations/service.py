"""Migrating: whoever starts first does what is to be done, the others wait for it, and take over from one that dies.

await Migrations(db, clock, by=process, pause=pause).run()
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from models.db import Database, database_away
from models.migrations.steps import MIGRATIONS, Migration
from models.migrations.store import LEASE_SECONDS, MigrationStore, Record
from models.ports import Clock

log = structlog.get_logger(__name__)

# How often the others look whether it is done.
LOOK_SECONDS = 0.2
RENEW_SECONDS = LEASE_SECONDS / 5


class MigrationFailed(Exception):
    """A migration has raised. What it had done stays; it is run again at the next start."""


class LeaseLost(Exception):
    """This process stood still for so long that another has taken over."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A migration and what is known of it: nothing before it was begun."""

    migration: Migration
    record: Record | None

    @property
    def done(self) -> bool:
        """Whether it is done."""
        return self.record is not None and self.record.done_at is not None


class Migrations:
    """Of one process, which calls itself ``by``. ``pause(seconds)`` waits."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        *,
        by: str,
        pause: Callable[[float], Awaitable[None]],
        steps: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        self._db, self._store = db, MigrationStore(db)
        self._clock, self._by, self._pause, self._steps = clock, by, pause, steps

    async def standings(self) -> list[Standing]:
        """All migrations that this version knows, in their order."""
        records = await self._store.records()
        return [Standing(one, records.get(one.name)) for one in self._steps]

    async def unknown(self) -> list[str]:
        """Migrations that a newer version has done: this one may not understand what they have made."""
        return sorted(set(await self._store.records()) - {one.name for one in self._steps})

    async def holder(self) -> str | None:
        """Who migrates just now."""
        return await self._store.holder(self._clock.now())

    async def run(self) -> list[str]:
        """Come back when all are done; the names of those that this process has done.

        Raises ``MigrationFailed``, and what says that the database is away.
        """
        mine: list[str] = []
        while any(not one.done for one in await self.standings()):
            if not await self._store.take(self._by, self._clock.now()):
                await self._pause(LOOK_SECONDS)
                continue
            try:
                # Read again: who had the lease before may have done some more.
                for one in await self.standings():
                    if not one.done:
                        await self._do(one.migration)
                        mine.append(one.migration.name)
            except LeaseLost:
                log.warning("another process has taken the migrations over")
                continue
            finally:
                await self._let_go()
        return mine

    async def _do(self, migration: Migration) -> None:
        if not await self._store.renew(self._by, self._clock.now()):
            raise LeaseLost
        await self._store.begin(migration.name, self._by, self._clock.now())
        log.info("migrating", name=migration.name)
        work = asyncio.ensure_future(migration.run(self._db))
        try:
            while not (await asyncio.wait({work}, timeout=RENEW_SECONDS))[0]:
                if not await self._store.renew(self._by, self._clock.now()):
                    raise LeaseLost
        except BaseException:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise
        try:
            work.result()
        except Exception as fault:
            if database_away(fault):
                raise
            raise MigrationFailed(f"The migration {migration.name} has failed: {fault!r}") from fault
        await self._store.done(migration.name, self._clock.now())
        log.info("migrated", name=migration.name)

    async def _let_go(self) -> None:
        try:
            await self._store.give_back(self._by)
        except Exception as fault:  # it ends by itself
            log.info("the lease of the migrations was not given back", error=repr(fault))

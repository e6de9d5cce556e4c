"""A database made ready for this version, before anybody is served: migrations, then validators and indexes."""

from __future__ import annotations

import structlog

from models.db import Database
from models.migrations.service import Migrations
from models.ports import Clock
from server.clock import pause

log = structlog.get_logger(__name__)


async def prepare(db: Database, clock: Clock, process: str) -> None:
    """Make it ready, or wait until another process has. Raises as ``Database.prepare`` and ``Migrations.run`` do."""
    await db.refuse_standalone()
    await db.refuse_half_restored()
    migrations = Migrations(db, clock, by=process, pause=pause)
    await migrations.run()
    unknown = await migrations.unknown()
    if unknown:
        log.warning("a newer version has changed this database; it may not be understood", migrations=unknown)
    await db.prepare()

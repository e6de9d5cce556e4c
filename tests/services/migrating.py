"""A process of the tests of migrations: ``python -m tests.services.migrating URI DATABASE NAME``.

It migrates with the steps below on a lease of its own, and prints what it has done.
"""

from __future__ import annotations

import asyncio
import sys

from models.db import Database
from models.migrations.service import Migrations
from models.migrations.steps import Migration
from server.clock import SystemClock, pause

PEOPLE = 50


async def name_everybody(db: Database) -> None:
    """Everybody gets a name; each change is counted where it is made, so that a second one would be seen."""
    async for one in db["push_quiet"].find({"name": {"$exists": False}}):
        change = {"$set": {"name": f"n{one['_id']}"}, "$inc": {"changes": 1}}
        await db["push_quiet"].update_one({"_id": one["_id"], "name": {"$exists": False}}, change)


async def shout(db: Database) -> None:
    """Names become loud, which needs that they are there."""
    assert await db["push_quiet"].count_documents({"name": {"$exists": False}}) == 0
    loud = [{"$set": {"loud": {"$toUpper": "$name"}}}]
    await db["push_quiet"].update_many({"loud": {"$exists": False}}, loud)


STEPS = (
    Migration("0001_names", "Everybody gets a name.", name_everybody),
    Migration("0002_loud", "Names become loud.", shout),
)


async def main(uri: str, database: str, name: str) -> None:
    db = Database(uri, database)
    done = await Migrations(db, SystemClock(), by=name, pause=pause, steps=STEPS).run()
    await db.close()
    print(" ".join(done))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

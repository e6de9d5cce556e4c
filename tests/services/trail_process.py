"""A process that appends to the trail: ``python -m tests.services.trail_process URI DATABASE NAME ROWS``."""

from __future__ import annotations

import asyncio
import sys

from models.db import Database
from models.trail.rules import Act, Actor, Target
from models.trail.service import Trail
from models.trail.store import TrailStore
from server.clock import SystemClock


async def main(uri: str, name: str, who: str, rows: str) -> None:
    db = Database(uri, name)
    trail = Trail(store=TrailStore(db), clock=SystemClock())
    for number in range(int(rows)):
        act = Act(
            actor=Actor.operator(who),
            act="user.ban",
            target=Target("user", f"{who}-{number}"),
            reason="many at once",
        )
        async with trail.keeping(act) as note:
            await db.transaction(note.also)
    await db.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

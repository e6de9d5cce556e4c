"""Which processes live, in MongoDB: each says so now and then, and whoever has not for a while is dead."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from models.db import Database, collection, index

PROCESSES = collection("processes", index("beat_at", ttl_seconds=86_400))


class ProcessStore:
    """The leases of the processes on all that is theirs: legs, seats, presence."""

    def __init__(self, db: Database) -> None:
        self._processes = db[PROCESSES]

    async def beat(self, process: str, now: datetime, *, works: bool = True) -> None:
        """This process lives, and does the jobs that are anybody's, or does not."""
        beat = {"beat_at": now, "works": works}
        await self._processes.update_one({"_id": process}, {"$set": beat}, upsert=True)

    async def living_and_working(self, since: datetime) -> tuple[list[str], list[str]]:
        """The processes that beat at or after ``since``, and those of them that do the jobs that are anybody's."""
        rows = [d async for d in self._processes.find({"beat_at": {"$gte": since}})]
        return [d["_id"] for d in rows], [d["_id"] for d in rows if d.get("works") is not False]

    async def living(self, since: datetime) -> dict[str, datetime]:
        """The processes that beat at or after ``since``, with their last beat."""
        return {d["_id"]: d["beat_at"] async for d in self._processes.find({"beat_at": {"$gte": since}})}

    async def last_beats(self, processes: Collection[str]) -> dict[str, datetime]:
        """When these processes beat last."""
        return {d["_id"]: d["beat_at"] async for d in self._processes.find({"_id": {"$in": list(processes)}})}

"""What the desk reads of calls beside their own store."""

from __future__ import annotations

from datetime import datetime

from models.calls.call import Call, State
from models.calls.documents import call_of
from models.calls.store import CALLS, CallStore
from models.db import Database

_LIVE = {"state": {"$in": [state.value for state in State if state is not State.ENDED]}}


class DeskStore:
    """``DeskStore(db)``."""

    def __init__(self, db: Database) -> None:
        self._calls = db[CALLS]
        self._store = CallStore(db)

    async def live(self, most: int) -> list[Call]:
        """Live calls and stays of all processes, the newest first: all are looked at, and ``most`` are kept."""
        return [call_of(d) async for d in self._calls.find(_LIVE, sort=[("created_at", -1)]).limit(most)]

    async def live_number(self) -> int:
        """How many there are."""
        return int(await self._calls.count_documents(_LIVE))

    async def living(self, since: datetime) -> dict[str, datetime]:
        """The processes that have beaten since then, and when they last did."""
        return await self._store.processes.living(since)

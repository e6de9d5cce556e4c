"""Acting upon revocations: the sockets of people who may no longer be here are closed, in every process."""

from __future__ import annotations

from datetime import datetime, timedelta

from models.auth.session import Revocation
from models.auth.sessions.store import SessionStore
from models.ports import Clock, Courier, Doors, LiveCalls

# Notes are read for a minute, so that the clocks of two machines may differ by that much; and each is acted upon for
# two seconds after it is first seen, because a socket that was just being let in appears a moment after the change.
READ_FOR = timedelta(seconds=60)
ACTED_UPON_FOR = timedelta(seconds=2)
KEPT_FOR = timedelta(hours=1)


class Bouncer:
    """Closes this process's sockets as the notes of all processes say."""

    def __init__(
        self, *, store: SessionStore, clock: Clock, doors: Doors, calls: LiveCalls, courier: Courier
    ) -> None:
        self._store = store
        self._courier = courier
        self._clock = clock
        self._doors = doors
        self._calls = calls
        self._first_seen: dict[str, datetime] = {}

    async def enforce(self, note: Revocation) -> None:
        """Act upon one note, now; other processes close their sockets as soon as they hear of it. Safe to repeat."""
        self._courier.close(note.user_id, session_ids=note.session_ids, code=note.code)
        await self._enforce_here(note)

    async def _enforce_here(self, note: Revocation) -> None:
        """Whoever may no longer be here may not go on talking either."""
        try:
            if note.code in ("ACCOUNT_BANNED", "ACCOUNT_DELETED"):
                await self._calls.end_all(note.user_id)
        finally:
            await self._doors.close(note.user_id, session_ids=note.session_ids, code=note.code)

    async def watch(self) -> None:
        """One look at the notes; run it twice a second."""
        now = self._clock.now()
        notes = await self._store.notes_after(now - READ_FOR)
        self._first_seen = {note.id: self._first_seen.get(note.id, now) for note in notes}
        for note in notes:
            if now - self._first_seen[note.id] <= ACTED_UPON_FOR:
                await self._enforce_here(note)

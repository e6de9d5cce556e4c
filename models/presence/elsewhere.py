"""What a process knows of people who are connected to others: heard by looking at what was changed lately.

This is what several processes have without a broker. It holds while there are others, and costs one indexed query a
turn; a change is heard at the latest with the next turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from models.ports import Clock
from models.presence.rules import DeviceState
from models.presence.store import PresenceStore, Row

# How far each turn looks back behind the one before: the difference of the processes' clocks, and writes under way.
OVERLAP = timedelta(seconds=5)
# People of whom is known where else they are; beyond it those who came first count as offline in views.
PEOPLE_MAX = 50_000
# What one turn hears at most; the next goes on there.
HEARD_MAX = 5_000


@dataclass(frozen=True, slots=True)
class Known:
    """Somebody's devices at other processes, and whether they are in a call or room."""

    devices: tuple[DeviceState, ...] = ()
    busy: bool = False


NOTHING = Known()


class Elsewhere:
    """``Elsewhere(store, busy_among, clock)``."""

    def __init__(
        self,
        store: PresenceStore,
        busy_among: Callable[[Collection[str]], Awaitable[set[str]]],
        clock: Clock,
    ) -> None:
        self._store = store
        self._busy_among = busy_among
        self._clock = clock
        self._known: dict[str, Known] = {}
        self._heard: dict[str, int] = {}
        self._heard_until: datetime | None = None

    def get(self, user_id: str) -> Known:
        """What is known of somebody."""
        return self._known.get(user_id, NOTHING)

    def forget(self) -> None:
        """There are no others."""
        self._known.clear()
        self._heard.clear()
        self._heard_until = None

    def doubt(self, user_ids: Collection[str]) -> None:
        """A call or room of these people has changed here, so what was heard of it is old."""
        for user_id in user_ids:
            if (known := self._known.get(user_id)) is not None and known.busy:
                self._known[user_id] = replace(known, busy=False)

    async def check(self, user_ids: Collection[str]) -> None:
        """Whether these people, of whom something has changed here, are in a call or room."""
        busy = await self._busy_among(user_ids)
        for user_id in user_ids:
            if (known := self._known.get(user_id)) is not None:
                self._known[user_id] = replace(known, busy=user_id in busy)

    async def hear(self) -> list[Row]:
        """What others have changed since the last turn; the first time also everybody who is connected to them."""
        now, first = self._clock.now(), self._heard_until is None
        since = (self._heard_until or now) - OVERLAP
        rows = await self._store.changed_since(since, HEARD_MAX)
        self._heard_until = rows[-1].changed_at + OVERLAP if len(rows) == HEARD_MAX else now
        fresh = [row for row in rows if self._heard.get(row.user_id) != row.version]
        self._heard = {row.user_id: row.version for row in rows}
        if first:
            fresh += await self._store.elsewhere(PEOPLE_MAX)
        await self.learn(fresh)
        return fresh

    async def learn(self, rows: list[Row]) -> None:
        """Keep what these rows say."""
        busy = set[str]()
        for start in range(0, len(rows), HEARD_MAX):
            busy |= await self._busy_among([row.user_id for row in rows[start : start + HEARD_MAX]])
        for row in rows:
            others = [lease for lease in row.leases if lease.process != self._store.process]
            known = Known(
                devices=tuple(lease.state for lease in others),
                busy=row.user_id in busy,
            )
            self._known.pop(row.user_id, None)
            if known != NOTHING:
                self._known[row.user_id] = known
        while len(self._known) > PEOPLE_MAX:
            del self._known[next(iter(self._known))]

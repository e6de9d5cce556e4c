"""Verbs of figures.

    figures = Figures(store=FigureStore(db), clock=clock)

A day is counted from an index, and kept when it has been over for long enough that nothing is posted to it any more:
a page about ninety days counts two or three of them.
"""

from __future__ import annotations

from datetime import UTC, timedelta

from models.figures.figures import Audit, Day
from models.figures.store import FigureStore
from models.ports import Clock

SPANS = (7, 30, 90)
# A call that a crash has left is settled with the time of its end, at the latest some hours after it.
OPEN_DAYS = 2


class Figures:
    """One per process."""

    def __init__(self, *, store: FigureStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def days(self, number: int) -> list[Day]:
        """The last so many days with today, the oldest first."""
        now = self._clock.now()
        today = now.astimezone(UTC).date()
        wanted = [today - timedelta(days=back) for back in range(number - 1, -1, -1)]
        kept = await self._store.kept(wanted)
        days = []
        for date in wanted:
            day = kept.get(date.isoformat())
            if day is None:
                day = await self._store.made(date)
                if (today - date).days > OPEN_DAYS:
                    await self._store.keep(day, now)
            days.append(day)
        return days

    async def keep_audit(self, *, clean: bool, broken: int) -> None:
        """Keep what an audit has found."""
        await self._store.keep_audit(Audit(self._clock.now(), clean, broken))

    async def last_audit(self) -> Audit | None:
        """What the last audit has found; None: there was none."""
        return await self._store.last_audit()

"""Reserving ahead for the calls that go on, one after the other and evenly, whatever many of them there are.

The board says which call is due when, so a turn of the job costs what is due and not what there is. Where very many
come together, as they do a minute after a time without a database, some go early: each by no more than a share of its
period, so that none is late and the next time they come apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from models.calls import commands as c
from models.calls import rules
from models.calls.call import Role
from models.calls.deadlines import EARLY_PART
from models.calls.engine import DUE_MAX, TRIES_MAX, Engine, Tools
from models.db import Stale, database_away
from models.errors import Refusal

# A renewal is well ahead of the end of the money; if its process has not done it by then, another one does.
RENEWED_BY_OTHERS_AFTER_SECONDS = 2
# So often a renewal that came to nothing is tried again.
AGAIN_SECONDS = 1
# Renewals at the same time: most of one is waiting for the database, which has other things to do as well. What a
# second brings is done by few, each the quicker for it; where very many have come together, as after a time without a
# database, more get on faster.
RENEWED_AT_ONCE = 2
RENEWED_AT_ONCE_OF_MANY = 8
MANY_RENEWALS = 200
# So far ahead it is looked whether a crowd comes: as early as a renewal may be, of the shortest period.
EARLY_SECONDS = 10
# Fewer than this in a second need no evening out: they cost nobody anything.
CROWD_PER_SECOND = 50
# What is looked at to find the pace: more would not be done in that time.
PACED_MAX = 10_000
_AGAIN = timedelta(seconds=AGAIN_SECONDS)


class Renewals(Engine):
    """The renewals of one process."""

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._turned_at: datetime | None = None

    async def renew(self, call_id: str, *, early: bool = False) -> bool:
        """Reserve more for a live call, or see that there is less to reserve; whether anything has changed.

        ``early``: also when its time comes only soon.
        """
        turn = self._turns.setdefault(call_id, asyncio.Lock())
        async with turn:
            for attempt in range(TRIES_MAX):
                known = self.board.call(call_id) if attempt == 0 else None
                call = known or await self._loaded(call_id)
                if known is None:
                    await self._learn(call)
                now = self._clock.now()
                if not call.live or call.charge is None or rules.out_of_money(call, now):
                    return False
                try:
                    async with self._meter.renewing(call, now, early=early) as cover:
                        if cover is None:
                            return False
                        assert cover.charge is not None
                        done = rules.step(
                            call, c.Grant(cover.charge), role=Role.SERVER, now=now, timers=self._timers
                        )
                        cover.written = await self._store.swap(call, done.call, (), now, cover.post)
                except Stale:
                    continue
                except Refusal:
                    if known is not None:
                        continue  # the money of a call that is over or renewed elsewhere is not where it was
                    raise
                if cover.written:
                    await self._tell(done.call, ())
                    return True
        return False

    async def renew_for(self, user_id: str) -> None:
        """What the user can spend has changed: what they pay for may go on longer, or less long."""
        # The lock, and not what this process remembers: the call it knows may have ended elsewhere, and another begun.
        lock = await self._store.lock_of(user_id)
        call = self.board.call(lock.call_id) or await self._store.load(lock.call_id) if lock else None
        if call is not None and call.caller.user_id == user_id:
            await self.renew(call.id)
        for stay_id in await self._store.stays_of(user_id):
            await self.renew(stay_id)

    async def run_renewals(self) -> int:
        """Renew what is due here; how many there were.

        The most urgent first: after a time without a database many are due together, and some of them end soon.
        """
        now, agenda = self._clock.now(), self.board.renewals
        passed = now - (self._turned_at or now)
        self._turned_at = now
        most = int(pace(agenda.until(now + timedelta(seconds=EARLY_SECONDS), PACED_MAX), now, passed))
        return await self._renew_each(self._due_renewals(most), many=len(agenda.until(now, MANY_RENEWALS)))

    async def run_late_renewals(self) -> int:
        """Renew what another process should have renewed, the most urgent first; how many there were."""
        late = self._clock.now() - timedelta(seconds=RENEWED_BY_OTHERS_AFTER_SECONDS)
        found = await self._store.to_renew(late, DUE_MAX)
        return await self._renew_each(self._still_due(found), many=len(found))

    async def _renew_each(self, call_ids: Iterator[str], *, many: int) -> int:
        done = 0

        async def renew(call_id: str) -> None:
            nonlocal done
            done += 1
            await self._renew_due(call_id)

        at_once = RENEWED_AT_ONCE_OF_MANY if many >= MANY_RENEWALS else RENEWED_AT_ONCE
        await self._each(call_ids, renew, at_once=at_once)
        return done

    def _still_due(self, call_ids: Iterable[str]) -> Iterator[str]:
        """Those that this process has not renewed itself meanwhile, taken off its agenda."""
        for call_id in call_ids:
            known = self.board.call(call_id)
            if known is None or known.renew_at is None or known.renew_at <= self._clock.now():
                self.board.renewals.drop(call_id)
                yield call_id

    def _due_renewals(self, most: int) -> Iterator[str]:
        """Those of this process as they come due while the turn lasts, and early ones up to ``most`` in all."""
        agenda, count = self.board.renewals, 0
        while count < DUE_MAX and (due := agenda.take(self._clock.now())) is not None:
            count += 1
            yield due
        while count < most and (soon := self._early()) is not None:
            count += 1
            yield soon

    def _early(self) -> str | None:
        """The call whose renewal comes next, if it may be made now."""
        first = self.board.renewals.first()
        call = self.board.call(first[1]) if first is not None else None
        if first is None or call is None or call.charge is None:
            return None
        if first[0] - self._clock.now() > timedelta(milliseconds=call.charge.lead_ms // EARLY_PART):
            return None
        self.board.renewals.drop(call.id)
        return call.id

    async def _renew_due(self, call_id: str) -> None:
        """Renew a call that was taken off the agenda, and put it there again unless what came of it has done so."""
        now, away = self._clock.now(), False
        known = self.board.call(call_id)
        try:
            if known is not None and known.renew_at is not None and known.renew_at > now:
                await self.renew(call_id, early=True)
            else:
                await self.renew(call_id)
        except Exception as error:
            away = database_away(error)
            raise
        finally:
            known = self.board.call(call_id)
            if known is not None and known.renew_at is not None and call_id not in self.board.renewals:
                # Without a database each keeps its place; what came to nothing is not tried again at once.
                nothing = known.renew_at <= now and not away
                self.board.renewals.set(call_id, now + _AGAIN if nothing else known.renew_at)


def pace(due: Iterable[datetime], now: datetime, passed: timedelta) -> float:
    """How many renewals a turn takes up so that those that are to come go evenly and none is late.

    ``due`` are the instants of those that come soon, ``passed`` is the time since the turn before. 0 without a crowd.
    """
    rate = 0.0
    for count, at in enumerate(sorted(due), 1):
        rate = max(rate, count / max(1.0, (at - now).total_seconds()))
    return rate * min(1.0, passed.total_seconds()) if rate >= CROWD_PER_SECOND else 0.0

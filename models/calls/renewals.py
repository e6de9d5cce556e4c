"""Reserving ahead for the calls that go on, evenly, and together where many are due.

The board says which call is due when, so a turn of the job costs what is due and not what there is. Where very many
come together, as they do a minute after a time without a database, some go early: each by no more than a share of its
period, so that none is late and the next time they come apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from itertools import islice

import structlog

from models.calls import commands as c
from models.calls import rules
from models.calls.call import Call, Charge, Role
from models.calls.deadlines import EARLY_PART, money_runs_out
from models.calls.engine import DUE_MAX, TRIES_MAX, Engine, Tools
from models.db import Stale, out_of_reach
from models.errors import Refusal

# A renewal is well ahead of the end of the money; if its process has not done it by then, another one does.
RENEWED_BY_OTHERS_AFTER_SECONDS = 2
# So often a renewal that came to nothing is tried again.
AGAIN_SECONDS = 1
# Transactions of a turn of renewals, up to the size that one may have. While few are due each call has its own, the
# quickest for each. The more have come together, as they do after a time without a database, the more go in one, since
# most of what one costs is its exchanges with the database, and there are as many for one call as for several.
TRANSACTIONS_OF_A_TURN = 4
RENEWED_TOGETHER_MAX = 16
MANY_RENEWALS = TRANSACTIONS_OF_A_TURN * RENEWED_TOGETHER_MAX
# Transactions at the same time, where several go together: while one waits for the database there is another.
LINES_OF_MANY = 2
# At the same time of each line, where very many have to go by themselves: calls of a process that has died.
ALONE_AT_ONCE = 4
# Whose money ends so soon goes by itself: no neighbour's fault may be in its way.
URGENT_SECONDS = 1
# So far ahead it is looked whether a crowd comes: as early as a renewal may be, of the shortest period.
EARLY_SECONDS = 10
# Fewer than this in a second need no evening out: they cost nobody anything.
CROWD_PER_SECOND = 50
# What is looked at to find the pace: more would not be done in that time.
PACED_MAX = 10_000
_AGAIN = timedelta(seconds=AGAIN_SECONDS)
_SEEN_AHEAD = timedelta(seconds=EARLY_SECONDS)

log = structlog.get_logger(__name__)


class Renewals(Engine):
    """The renewals of one process."""

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._turned_at: datetime | None = None
        self.board.renewals.looked_ahead = _SEEN_AHEAD

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
                    return bool(await self._reserve([call], now, early=early))
                except Stale:
                    continue
                except Refusal:
                    if known is not None:
                        continue  # the money of a call that is over or renewed elsewhere is not where it was
                    raise
        return False

    async def renew_together(self, call_ids: Sequence[str]) -> set[str]:
        """Renew those that are known here and that nobody else is at, in one transaction; which of them changed.

        What stands in the way of one keeps all of them as they are: ``renew`` each of those that are not named.
        """
        async with AsyncExitStack() as turns:
            calls: dict[str, Call] = {}
            for call_id in call_ids:
                turn = self._turns.setdefault(call_id, asyncio.Lock())
                if turn.locked():
                    continue
                await turns.enter_async_context(turn)
                call = self.board.call(call_id)
                if call is not None and call.live and call.charge is not None and not self._meter.busy(call):
                    calls.setdefault(call.charge.wallet, call)  # one of each payer
            now = self._clock.now()
            going = [call for call in calls.values() if not _urgent(call, now)]
            if not going:
                return set()
            try:
                return {call.id for call in await self._reserve(going, now, early=True)}
            except (Stale, Refusal):
                return set()

    async def _reserve(self, calls: Sequence[Call], now: datetime, *, early: bool) -> list[Call]:
        """Reserve for calls whose turns are held; those that changed, as they are now. Raises ``Stale``."""
        async with self._meter.renewing(calls, now, early=early) as covers:
            changes = [
                (call, self._granted(call, charge, now))
                for call in calls
                if (charge := covers.charges.get(call.id)) is not None
            ]
            if not changes:
                return []
            await self._store.swap_all(changes, now, covers.post)
            covers.written = True
        for _, after in changes:
            await self._tell(after, ())
        return [after for _, after in changes]

    def _granted(self, call: Call, charge: Charge, now: datetime) -> Call:
        done = rules.step(call, c.Grant(charge), role=Role.SERVER, now=now, timers=self._timers)
        if not done.changed:
            raise Stale(call.id)  # it is over: what was drafted for it must not be posted
        return done.call

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
        soon = agenda.until(now + _SEEN_AHEAD, PACED_MAX)
        if not soon:
            self._turned_at = None  # a crowd that comes next is taken up at its pace from then on
            return 0
        most = int(pace(soon, now, passed))

        def due() -> int:
            return max(most, len(agenda.until(self._clock.now(), MANY_RENEWALS)))

        return await self._renew_each(self._due_renewals(most), due)

    async def run_late_renewals(self) -> int:
        """Renew what another process should have renewed, the most urgent first; how many there were."""
        late = self._clock.now() - timedelta(seconds=RENEWED_BY_OTHERS_AFTER_SECONDS)
        found = await self._store.to_renew(late, DUE_MAX)
        return await self._renew_each(self._still_due(found), lambda: len(found))

    async def _renew_each(self, call_ids: Iterator[str], due: Callable[[], int]) -> int:
        done, together = 0, 1

        async def renew(some: Sequence[str]) -> None:
            nonlocal done
            done += len(some)
            await self._renew_some(some)

        def some() -> list[str]:
            nonlocal together  # as many as at the start of the turn, and more if more have come together since
            together = max(together, min(RENEWED_TOGETHER_MAX, due() // TRANSACTIONS_OF_A_TURN))
            return list(islice(call_ids, together))

        lines = LINES_OF_MANY if due() >= 2 * TRANSACTIONS_OF_A_TURN else 1
        await self._each(iter(some, []), renew, at_once=lines)
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

    async def _renew_some(self, call_ids: Sequence[str]) -> None:
        """Renew calls that were taken off the agenda: together, and by itself what could not be."""
        try:
            urgent = [call_id for call_id in call_ids if self._is_urgent(call_id)]
            await self._alone(urgent)
            rest = [call_id for call_id in call_ids if call_id not in urgent]
            done = await self._together(rest) if len(rest) > 1 else set()
            await self._alone([call_id for call_id in rest if call_id not in done])
        finally:
            for call_id in call_ids:  # those that were not come to keep their places
                self._put_back(call_id)

    async def _alone(self, call_ids: Sequence[str]) -> None:
        few = len(call_ids) < ALONE_AT_ONCE
        await self._each(call_ids, self._renew_due, at_once=1 if few else ALONE_AT_ONCE)

    def _is_urgent(self, call_id: str) -> bool:
        call = self.board.call(call_id)
        return call is not None and _urgent(call, self._clock.now())

    def _put_back(self, call_id: str, at: datetime | None = None) -> None:
        """On the agenda again unless it is there: for ``at``, or when it is due."""
        call = self.board.call(call_id)
        due = self.board.renewal(call) if call is not None else None
        if due is not None and call_id not in self.board.renewals:
            self.board.renewals.set(call_id, at or due)

    async def _together(self, call_ids: Sequence[str]) -> set[str]:
        try:
            return await self.renew_together(call_ids)
        except Exception as error:
            if out_of_reach(error):
                raise
            log.warning("renewals go one by one", call_ids=call_ids, error=repr(error))
            return set()

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
            away = out_of_reach(error)
            raise
        finally:
            known = self.board.call(call_id)
            # Without a database each keeps its place; what came to nothing is not tried again at once.
            nothing = not away and known is not None and known.renew_at is not None and known.renew_at <= now
            self._put_back(call_id, now + _AGAIN if nothing else None)


def _urgent(call: Call, now: datetime) -> bool:
    end = money_runs_out(call)
    return end is not None and end <= now + timedelta(seconds=URGENT_SECONDS)


def pace(due: Iterable[datetime], now: datetime, passed: timedelta) -> float:
    """How many renewals a turn takes up so that those that are to come go evenly and none is late.

    ``due`` are the instants of those that come soon, ``passed`` is the time since the turn before. 0 without a crowd.
    """
    rate = 0.0
    for count, at in enumerate(sorted(due), 1):
        rate = max(rate, count / max(1.0, (at - now).total_seconds()))
    return rate * min(1.0, passed.total_seconds()) if rate >= CROWD_PER_SECOND else 0.0

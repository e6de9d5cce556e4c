"""Many live paid calls in one process, with all the jobs of calls and money running as in the server.

Calls are charged by the second and have money for less than twenty minutes, so each is renewed every minute, the most
often that there is. They begin evenly over a minute, so their renewals come evenly too; for a burst the minute that
they wait for is skipped, when all of them wait for the same one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from math import nan
from typing import Any

from handlers.billing import BILLING_TICK
from models.calls.call import Call
from models.ledger.journal import Entry, Kind, Wallet
from models.ports import Letter
from server.rests import AgendaRest
from server.wiring import catalogue
from tests.bench.inside import Inside, Meter, Stall
from tests.bench.phone import now
from tests.bench.plan import Plan, Told
from tests.bench.stats import Round, spread

JOBS = (
    *("renewals", "renewals_late", "extensions", "ticks", "money"),
    *("deadlines", "leases", "orphaned", "untold", "told"),
)
# 100 minor units a second.
RATE_MINOR = 6_000
MINUTES = 18
# What a call holds ahead, in periods of a minute; it is renewed when one is left.
PERIOD = timedelta(minutes=1)
AT_ONCE = 32
# For what a burst may take before the bench says that it did not come through.
BURST_SECONDS_MAX = 60.0


class Live:
    """``count`` live calls. ``late_ms`` and ``took_ms`` fill with every renewal, ``tick_gaps_ms`` with every tick of a
    call but the first.
    """

    def __init__(self, here: Inside) -> None:
        self.here = here
        self.count = 0
        self.late_ms: list[float] = []
        self.took_ms: list[float] = []
        self.turns: dict[str, list[float]] = {}
        self.tick_gaps_ms: list[float] = []
        self._ticked: dict[str, float] = {}
        self._begun: dict[str, float] = {}
        here.ledger.listeners.append(self._moved)
        here.ears.listeners.append(self._heard)
        here.calls.renew = self._timed(here.calls.renew)  # type: ignore[method-assign]
        here.calls.renew_together = self._timed_together(here.calls.renew_together)  # type: ignore[method-assign]

    async def build(self, count: int, told: Told) -> None:
        """The calls, accepted evenly over the last minute; the first renewal is due now."""
        here, calls, self.count = self.here, self.here.calls, count
        await calls.beat()
        callers = await here.people("payer", count, money=RATE_MINOR * MINUTES)
        callees = await here.people("payee", count, rate=RATE_MINOR)
        begun, numbers = here.clock.now(), iter(range(count))

        async def line() -> None:
            for number in numbers:
                here.clock.lane(begun + PERIOD * (number / count))
                caller, callee = here.device(callers[number]), here.device(callees[number])
                call = await calls.request(caller, to=callee.user_id, type="audio")
                await calls.accept(callee, call.id)
                told(number / count)

        await asyncio.gather(*(line() for _ in range(AT_ONCE)))
        await calls.flush_told()
        await here.services.billing.run_wanted()  # all that was paid in
        here.clock.set(min(self._renewals()))

    async def line_up(self) -> None:
        """Renew all at two instants, so that from now on their renewals come together."""
        first = min(self._renewals())
        # None of them has run out of money at the first one, and those that it has not renewed not at the second.
        for at in (first + PERIOD * 0.8, first + PERIOD * 1.2):
            due = iter([call.id for call in self.here.calls.board.calls() if _due(call, at)])

            async def line(due: Iterator[str] = due, at: datetime = at) -> None:
                self.here.clock.lane(at)
                for call_id in due:
                    await self.here.calls.renew(call_id)

            await asyncio.gather(*(line() for _ in range(AT_ONCE)))

    def skip(self) -> None:
        """Let it be the time when the last of the renewals is due."""
        self.here.clock.set(max(self._renewals()))

    def _renewals(self) -> list[datetime]:
        calls = self.here.calls.board.calls()
        return [call.renew_at for call in calls if call.renew_at is not None]

    @asynccontextmanager
    async def jobs(self) -> AsyncIterator[None]:
        """The timed jobs of the server, for the time of a ``with``."""
        tasks = self.here.tasks
        running = [
            asyncio.create_task(
                tasks.every(
                    job.every_seconds,
                    self._turn(job.name, job.handler),
                    job.name,
                    first=job.first,
                    rest=None
                    if job.agenda is None
                    else AgendaRest(job.agenda(self.here.services), self.here.clock),
                )
            )
            for job in catalogue.jobs.values()
            if job.name in JOBS
        ]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def begin(self) -> None:
        """Forget what was counted."""
        self.late_ms, self.took_ms, self.turns = [], [], {}
        self.tick_gaps_ms, self._ticked = [], {}

    def due(self) -> int:
        """Calls whose renewal is due."""
        at = self.here.clock.now()
        return sum(_due(call, at) for call in self.here.calls.board.calls())

    async def _moved(self, wallets: Sequence[Wallet], entries: Sequence[Entry]) -> None:
        """After the commit of a renewal, while the board still has the call as it was before it."""
        for entry in entries:
            call = self.here.calls.board.call(entry.call_id or "") if entry.kind is Kind.HOLD else None
            if call is not None and call.renew_at is not None:
                self.late_ms.append((self.here.clock.now() - call.renew_at).total_seconds() * 1000)

    def _heard(self, letters: Sequence[Letter]) -> None:
        at = now()
        for letter in letters:
            if letter.event == BILLING_TICK and "availableMinor" in letter.payload:  # the payer's
                call_id = letter.payload["callId"]
                if call_id in self._ticked:
                    self.tick_gaps_ms.append((at - self._ticked[call_id]) * 1000)
                self._ticked[call_id] = at

    def _timed(self, renew: Callable[..., Awaitable[bool]]) -> Callable[..., Awaitable[bool]]:
        async def timed(call_id: str, **more: bool) -> bool:
            begun = self._begun.pop(call_id, None) or now()
            done = await renew(call_id, **more)
            if done:
                self.took_ms.append((now() - begun) * 1000)
            return done

        return timed

    def _timed_together(
        self, renew: Callable[[Sequence[str]], Awaitable[set[str]]]
    ) -> Callable[[Sequence[str]], Awaitable[set[str]]]:
        async def timed(call_ids: Sequence[str]) -> set[str]:
            begun = now()
            done = await renew(call_ids)
            self.took_ms += [(now() - begun) * 1000] * len(done)
            # The others go by themselves next, and it has taken them this time as well.
            self._begun.update({call_id: begun for call_id in call_ids if call_id not in done})
            return done

        return timed

    def _turn(self, name: str, handler: Callable[..., Awaitable[Any]]) -> Callable[[], Awaitable[None]]:
        async def turn() -> None:
            begun = now()
            await handler(self.here.services)
            self.turns.setdefault(name, []).append((now() - begun) * 1000)

        return turn


def _due(call: Call, at: datetime) -> bool:
    return call.renew_at is not None and call.renew_at <= at


async def at_the_real_rate(live: Live, database: int, plan: Plan, told: Told) -> Round:
    """One round of ordinary life, once what came together since the jobs last ran is done."""
    begun, whole = now(), plan.live_settling_seconds + plan.renewal_seconds

    async def until(passed: float) -> None:
        while now() - begun < passed:
            told((now() - begun) / whole)
            await asyncio.sleep(0.1)

    async with live.jobs():
        await until(plan.live_settling_seconds)
        live.begin()
        meter = Meter(live.here, database)
        with Stall() as stall:
            await until(whole)
            spent = meter.read()
    figures = {
        "renewals_per_s": len(live.took_ms) / spent.seconds,
        **spread("late_ms", live.late_ms),
        **spread("tick_turn_ms", live.turns["ticks"]),
    }
    return _round(live, figures, spent.figures(), stall)


async def all_at_once(live: Live, database: int, plan: Plan, told: Told) -> Round:
    """What is left of the minute is skipped: one round of all renewals together."""
    live.begin()
    live.skip()
    due = live.due()
    meter, start = Meter(live.here, database), now()
    with Stall() as stall:
        async with live.jobs():
            while len(live.took_ms) < due and now() - start < BURST_SECONDS_MAX:
                told(len(live.took_ms) / due)
                await asyncio.sleep(0.01)
            spent = meter.read()
    figures = {
        "renewals_per_s": len(live.took_ms) / spent.seconds,
        "burst_s": spent.seconds,
        "burst_renewals": float(due),
    }
    return _round(live, figures, spent.figures(), stall)


def _round(live: Live, figures: dict[str, float], shares: dict[str, float], stall: Stall) -> Round:
    gap = {"tick_gap_ms_most": max(live.tick_gaps_ms, default=nan)}
    one = Round({**figures, **spread("renewal_ms", live.took_ms), **gap, **stall.figures(), **shares})
    if ended := live.count - len(live.here.calls.board):
        one.faults["ended"] = ended
    return one

"""What paid calls cost: whole ones beside free ones, and the postings alone with one callee and with many.

*Whole calls* are as the server has them: request → accept → end, letters kept and told, the money captured, released
and settled before the next call of the same lane.

*Postings alone* leaves everything but the calls and their money away: reserve, renew, end, and nobody is told. A
person has one call at a time, so a callee who is paid by many at once is not found in real life; here the callee may
be in any number of calls, which is the worst that can happen to one wallet.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from models.also import Also
from models.billing.meter import WalletMeter
from models.billing.tariffs import Tariffs
from models.calls.call import Call, Fact, Timers
from models.calls.documents import document_of
from models.calls.rings.service import RingLimits, Rings
from models.calls.rings.store import PastStore
from models.calls.service import Calls
from models.calls.store import CALLS, LOCKS, CallStore
from models.calls.switchboard import Forward
from models.db import Database, Session
from models.errors import Refusal
from models.ledger.journal import Kind
from models.ledger.service import Ledger
from models.ledger.store import LedgerStore
from tests.bench.calls import ANSWER_AUDIO, OFFER_AUDIO
from tests.bench.inside import CURRENCY, PLENTY_MINOR, Inside, Meter, NoLimit
from tests.bench.phone import now
from tests.bench.plan import Plan, Told
from tests.bench.stats import Round, spread

T = TypeVar("T")
RATE_MINOR = 6_000
RENEWALS_PER_CALL = 3
# The share of every price that goes to the platform, in hundredths of a percent.
SHARE_BPS = 2_000
DAY_SECONDS = 86_400


@dataclass(slots=True)
class Times:
    """Milliseconds by step, and refusals by code."""

    steps: dict[str, list[float]] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)

    async def of(self, step: str, work: Awaitable[T]) -> T:
        """Wait for ``work`` and keep how long it took."""
        begun = now()
        done = await work
        self.steps.setdefault(step, []).append((now() - begun) * 1000)
        return done

    def figures(self) -> dict[str, float]:
        """p50 and p99 of each step."""
        return {
            name: value
            for step, took in self.steps.items()
            for name, value in spread(f"{step}_ms", took).items()
        }


# ------------------------------------------------------------------------------------------------------- whole calls


@dataclass(frozen=True, slots=True)
class Town:
    """Callers with plenty of money, and those they call: for nothing, and for money."""

    here: Inside
    callers: Sequence[str]
    callees: dict[str, Sequence[str]]

    @classmethod
    async def build(cls, here: Inside, lanes: int) -> Town:
        callers = await here.people("caller", lanes, money=PLENTY_MINOR)
        free = await here.people("free", lanes, rate=0)
        paid = await here.people("paid", lanes, rate=RATE_MINOR)
        return cls(here, callers, {"free": free, "paid": paid})

    async def call(self, kind: str, lane: int, times: Times) -> None:
        """One whole call."""
        here, calls = self.here, self.here.calls
        caller, callee = here.device(self.callers[lane]), here.device(self.callees[kind][lane])
        ask = calls.request(caller, to=callee.user_id, type="audio", offer=OFFER_AUDIO)
        call = await times.of("request", ask)
        await times.of("accept", calls.accept(callee, call.id, answer=ANSWER_AUDIO))
        await times.of("end", calls.end(caller, call_id=call.id))

    async def commands(self, kind: str, count: int) -> dict[str, Any]:
        """What one call asks of the database, by step and by command, with nothing else going on."""
        here, calls = self.here, self.here.calls
        caller, callee = here.device(self.callers[0]), here.device(self.callees[kind][0])
        await self.call(kind, 0, Times())
        asked: dict[str, Counter[str]] = {step: Counter() for step in ("request", "accept", "end")}
        for _ in range(count):
            before = await here.commands()
            call = await calls.request(caller, to=callee.user_id, type="audio", offer=OFFER_AUDIO)
            rung = await here.commands()
            await calls.accept(callee, call.id, answer=ANSWER_AUDIO)
            accepted = await here.commands()
            await calls.end(caller, call_id=call.id)
            ended = await here.commands()
            asked["request"] += rung - before
            asked["accept"] += accepted - rung
            asked["end"] += ended - accepted
        each = {
            step: {name: total / count for name, total in sorted(by.items())} for step, by in asked.items()
        }
        return {"steps": each, "total": sum(sum(by.values()) for by in each.values())}


async def whole_calls(town: Town, kind: str, database: int, plan: Plan, told: Told) -> Round:
    """One round of as many calls at a time as there are callers."""
    times, made = Times(), 0
    meter, start = Meter(town.here, database), now()

    async def line(lane: int) -> None:
        nonlocal made
        while (passed := now() - start) < plan.money_seconds:
            told(passed / plan.money_seconds)
            try:
                await town.call(kind, lane, times)
                made += 1
            except Refusal as no:
                times.faults[no.code] += 1

    await asyncio.gather(*(line(lane) for lane in range(len(town.callers))))
    await town.here.calls.flush_told()
    spent = meter.read()
    figures = {
        "calls_per_s": made / spent.seconds,
        "server_cpu_ms_per_call": spent.cpu / made * 1000 if made else float("nan"),
        "postings_per_s": spent.posted.total() / spent.seconds,
        **times.figures(),
        **spent.figures(),
    }
    return Round(figures, times.faults)


# ---------------------------------------------------------------------------------------------------- postings alone


class Crowd(CallStore):
    """Calls whose callee may be in several at once: the same commands, but the callee's lock is one for each call."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self._all = db

    async def busy_of(self, caller_id: str, callee_id: str) -> str | None:
        await super().busy_of(caller_id, callee_id)
        return None

    async def begin(
        self, call: Call, facts: Sequence[Fact], now: datetime, also: Also | None = None
    ) -> str | None:
        async def body(session: Session) -> None:
            users = (call.caller.user_id, f"{call.callee.user_id}:{call.id}")
            locks = [{"_id": user_id, "call_id": call.id, "at": now} for user_id in users]
            await self._all[LOCKS].insert_many(locks, session=session)
            await self._all[CALLS].insert_one(document_of(call, facts, now), session=session)
            if also is not None:
                await also(session)

        await self._all.transaction(body)
        return None


class Mute:
    """An announcer that says nothing."""

    async def announce(self, call: Call, facts: Sequence[Fact], *, again: bool) -> None: ...

    async def cut(self, call: Call) -> None: ...

    async def forward(self, call: Call, forwards: Sequence[Forward]) -> None: ...


class Deaf:
    """Alarms that never ring: here a renewal comes when its lane says so."""

    def set(self, key: str, at: datetime) -> None: ...

    def clear(self, key: str) -> None: ...


class Till:
    """Calls and their money on the database of ``here``, and nothing else."""

    def __init__(self, here: Inside) -> None:
        self.here = here
        ledger = Ledger(LedgerStore(here.db), here.clock, here.ids)
        ledger.listeners.append(here.count)
        store = Crowd(here.db)
        meter = WalletMeter(
            ledger=ledger,
            calls=store,
            tariffs=Tariffs(currency=CURRENCY),
            share_bps=SHARE_BPS,
            dispute_seconds=DAY_SECONDS,
            clock=here.clock,
        )
        self.calls = Calls(
            store=store,
            users=here.services.users,
            meter=meter,
            clock=here.clock,
            ids=here.ids,
            alarms=Deaf(),
            doors=here.ears,
            rings=Rings(
                windows=NoLimit(),
                past=PastStore(here.db),
                clock=here.clock,
                limits=RingLimits(cool_off=timedelta(0)),
            ),
            timers=Timers(),
            process=here.process,
        )
        self.calls.announcer = Mute()

    async def open(self, caller: str, callee: str, times: Times) -> str:
        """A call that has just been accepted; its id."""
        here, calls = self.here, self.calls
        call = await times.of("open", calls.request(here.device(caller), to=callee, type="audio"))
        await calls.accept(here.device(callee), call.id)
        return call.id

    async def renew(self, call_id: str, times: Times) -> None:
        """Let it be the time at which more money should be reserved, and reserve it."""
        call = self.calls.board.call(call_id)
        assert call is not None
        assert call.renew_at is not None
        self.here.clock.lane(call.renew_at)
        if not await times.of("renew", self.calls.renew(call_id)):
            times.faults["not renewed"] += 1

    async def call(self, caller: str, callee: str, times: Times) -> None:
        """A call with some renewals, from the first hold to the settlement."""
        call_id = await self.open(caller, callee, times)
        for _ in range(RENEWALS_PER_CALL):
            await self.renew(call_id, times)
        self.here.clock.lane(self.here.clock.now() + timedelta(seconds=20))
        await times.of("close", self.calls.end(self.here.device(caller), call_id=call_id))


async def postings(
    till: Till, callers: Sequence[str], callees: Sequence[str], database: int, plan: Plan, told: Told
) -> Round:
    """One round of ``len(callers)`` calls at a time with the given callees."""
    times = Times()
    meter, start = Meter(till.here, database), now()

    async def line(lane: int) -> None:
        while (passed := now() - start) < plan.money_seconds:
            told(passed / plan.money_seconds)
            till.here.clock.lane(till.here.clock.now())
            try:
                await till.call(callers[lane], callees[lane % len(callees)], times)
            except Refusal as no:
                times.faults[no.code] += 1

    await asyncio.gather(*(line(lane) for lane in range(len(callers))))
    return _round(meter, times)


async def renewals_alone(
    till: Till, callers: Sequence[str], callees: Sequence[str], database: int, plan: Plan, told: Told
) -> Round:
    """Nothing but renewals (a capture and a hold in one transaction), one live call for each lane."""
    times = Times()
    ids = [await till.open(caller, callee, Times()) for caller, callee in zip(callers, callees, strict=True)]
    meter, start = Meter(till.here, database), now()

    async def line(call_id: str) -> None:
        while (passed := now() - start) < plan.money_seconds:
            told(passed / plan.money_seconds)
            await till.renew(call_id, times)

    await asyncio.gather(*(line(call_id) for call_id in ids))
    figures = _round(meter, times)
    for caller, call_id in zip(callers, ids, strict=True):
        await till.calls.end(till.here.device(caller), call_id=call_id)
    return figures


def _round(meter: Meter, times: Times) -> Round:
    spent = meter.read()
    total = spent.posted.total()
    figures = {
        "holds_and_captures_per_s": (spent.posted[Kind.HOLD] + spent.posted[Kind.CAPTURE]) / spent.seconds,
        "postings_per_s": total / spent.seconds,
        "server_cpu_us_per_posting": spent.cpu / total * 1e6 if total else float("nan"),
        **times.figures(),
        **spent.figures(),
    }
    return Round(figures, times.faults)

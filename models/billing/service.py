"""What people see of the meter while they talk: ticks and warnings, made in memory from the calls of this process.

A tick says what the call has cost so far and how long the money lasts; a warning comes once when 60 and once when
15 seconds are left. Neither writes anything: the reservations of ``meter.py`` already cover the time in between. A
change of what a caller can spend (a payment, a transfer) is taken up at once by ``run_wanted``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zlib import crc32

import structlog

from models.agenda import Agenda
from models.calls import tariff
from models.calls.call import Call, Price, State
from models.calls.service import Calls
from models.db import database_away, out_of_reach
from models.ledger.journal import Entry, Kind, Wallet
from models.ledger.service import Ledger
from models.ports import Clock, Doors

log = structlog.get_logger(__name__)

# CONTRACT §2.1: at least every 5 s, and what is due is seen within a tenth of a second.
TICK_SECONDS = 4.5
# Ticks that have waited for longer than this give way to nobody.
GIVE_WAY_SECONDS = 0.2
# The second tick comes up to this much earlier, by the call, so that calls that were first seen together (after a
# restart) do not all tick in the same turn from then on.
SPREAD_SECONDS = 4
SPREAD_STEPS = 64
# Calls that are looked at before others get a turn: their letters are some hundred writes to sockets.
TICKS_AT_ONCE = 25
# A call none of whose people is connected here is looked at again so soon.
NOBODY_SECONDS = 0.5
WARN_AT_SECONDS = (60, 15)
# What the meter itself moves for a call that lives or ends changes nothing in how long the money lasts.
_BY_CALLS = frozenset({Kind.HOLD, Kind.CAPTURE, Kind.RELEASE, Kind.SETTLE})


@dataclass(frozen=True, slots=True)
class Tick:
    """A running call's money at an instant. ``warning``: the payer has just come to one of ``WARN_AT_SECONDS``."""

    call: Call
    charged_minor: int
    remaining_ms: int | None
    available_minor: int
    warning: bool


@dataclass(slots=True)
class _Told:
    """What was last said about a call."""

    wallet: str
    at: datetime | None = None
    warned: int = 0
    until_ms: int | None = None
    running: datetime | None = None


class _Memory:
    """What was said of the calls that tick here, and what their payers had when it was looked last."""

    def __init__(self) -> None:
        self.told: dict[str, _Told] = {}
        self.available: dict[str, int] = {}
        self._calls_of: dict[str, set[str]] = {}

    def of(self, call: Call) -> _Told:
        """What was said about a call: nothing, for a new one."""
        told = self.told.get(call.id)
        if told is None:
            assert call.charge is not None
            told = self.told[call.id] = _Told(call.charge.wallet)
            self._calls_of.setdefault(told.wallet, set()).add(call.id)
        return told

    def forget(self, call_id: str) -> None:
        """A call ticks here no longer; its wallet is forgotten with the last of those that it pays."""
        told = self.told.pop(call_id, None)
        if told is not None:
            self._calls_of[told.wallet].discard(call_id)
            if not self._calls_of[told.wallet]:
                del self._calls_of[told.wallet]
                self.available.pop(told.wallet, None)


@dataclass(frozen=True, slots=True)
class Enquiry:
    """A tariff, and how far the asker's money goes with it."""

    price: Price
    available_minor: int
    affordable_seconds: int | None


class Billing:
    """One per process. ``nudge`` is called when there is something for ``run_wanted`` to do at once; ``give_way`` is
    awaited where others may go first.
    """

    def __init__(
        self,
        *,
        calls: Calls,
        ledger: Ledger,
        doors: Doors,
        clock: Clock,
        nudge: Callable[[], None],
        give_way: Callable[[], Awaitable[None]],
    ) -> None:
        self._calls = calls
        self._ledger = ledger
        self._doors = doors
        self._clock = clock
        self._nudge = nudge
        self._give_way = give_way
        self._memory = _Memory()
        self._wanted: set[str] = set()
        # When it is to be seen next what there is to say about a call.
        self.agenda = Agenda()
        ledger.listeners.append(self._moved)
        calls.board.listeners.append(self._changed)
        for call in calls.board.calls():
            self._changed(call)

    async def enquire(self, user_id: str, *, to: str, type: str) -> Enquiry:
        """What a call would cost; nothing is reserved (RFC 8506 §6: PRICE_ENQUIRY and CHECK_BALANCE).

        Refuses as a request for that call would, but for being busy: ``SELF_NOT_ALLOWED``, ``USER_UNKNOWN``,
        ``USER_BLOCKED``, ``USER_UNAVAILABLE``.
        """
        price = await self._calls.price(user_id, to=to, type=type)
        wallet = None if price.free else await self._ledger.wallet(user_id, price.currency)
        available = wallet.spendable if wallet is not None and not wallet.frozen else 0
        return Enquiry(price, available, tariff.affordable_seconds(price, available))

    async def _moved(self, wallets: Sequence[Wallet], entries: Sequence[Entry]) -> None:
        """A listener of the ledger: whoever can spend more or less now may be paying for a call."""
        for wallet in wallets:
            if wallet.key in self._memory.available:
                self._memory.available[wallet.key] = wallet.spendable
        if entries and all(entry.kind in _BY_CALLS for entry in entries):
            return  # without entries something else has changed: the wallet was frozen or thawed
        self.want([wallet.user_id for wallet in wallets])

    def want(self, user_ids: Sequence[str]) -> None:
        """Look at the calls that these users pay for, soon."""
        self._wanted.update(user_ids)
        self._nudge()

    def moved_elsewhere(self, user_ids: Collection[str]) -> None:
        """Another process has moved the wallets of these users: whoever pays for a call here may have more or less."""
        payers = self._calls.board.paying(user_ids)
        if payers:
            self.want(sorted(payers))

    async def run_wanted(self) -> None:
        """Extend (or shorten) the calls of those whose money has changed.

        What could not be reached, or was held up by another transaction, is tried again by the job's next turn.
        """
        again = set[str]()
        try:
            while self._wanted:
                user_id = self._wanted.pop()
                try:
                    await self._calls.renew_for(user_id)
                except Exception as error:
                    if database_away(error):
                        again.add(user_id)
                    if out_of_reach(error):
                        raise
                    log.error("a call was not extended", user_id=user_id, exc_info=error)
        finally:
            self._wanted |= again

    async def run_ticks(self) -> list[Tick]:
        """The ticks that are due for people connected to this process."""
        return [tick async for some in self.ticks() for tick in some]

    async def ticks(self) -> AsyncIterator[list[Tick]]:
        """The same in slices, so that others get a turn between them however many there are."""
        away = False
        while (now := self._clock.now()) and (first := self.agenda.first()) and first[0] <= now:
            due = self._due_now(now)
            if due and not away:  # else each slice would wait for the database in its turn
                away = not await self._look(
                    sorted({call.charge.wallet for call, _ in due if call.charge is not None})
                )
            yield [self._tick(call, now, warning) for call, warning in due]
            late = now - first[0] > timedelta(seconds=GIVE_WAY_SECONDS)
            await (asyncio.sleep(0) if late else self._give_way())

    def _changed(self, call: Call) -> None:
        """A listener of the board: a call has begun to run, or has stopped, or its money lasts until another time."""
        if call.charge is not None and call.state in (State.ACTIVE, State.RECONNECTING):
            self.agenda.set(call.id, self._clock.now())
        else:
            self.agenda.drop(call.id)
            self._memory.forget(call.id)

    def _due_now(self, now: datetime) -> list[tuple[Call, bool]]:
        """Of the next calls to look at, those of which there is something to say, and whether it is a warning."""
        due = []
        for _ in range(TICKS_AT_ONCE):
            call_id = self.agenda.take(now)
            call = self._calls.board.call(call_id) if call_id is not None else None
            if call_id is None:
                break
            if call is None or call.charge is None or not call.live:
                continue
            if not (self._doors.online(call.caller.user_id) or self._doors.online(call.callee.user_id)):
                self._memory.forget(call.id)
                self.agenda.set(call.id, now + timedelta(seconds=NOBODY_SECONDS))
                continue
            warning = self._due(call, now)
            self.agenda.set(call.id, self._next(call, now))
            if warning is not None:
                due.append((call, warning))
        return due

    def _next(self, call: Call, now: datetime) -> datetime:
        """When there is something to say again as long as nothing changes: the next tick, or a warning before it."""
        told = self._memory.of(call)
        assert told.at is not None
        at, remaining = told.at + timedelta(seconds=TICK_SECONDS), remaining_ms(call, now)
        if remaining is None or told.running is None:
            return at
        ahead = [remaining - 1000 * mark for mark in WARN_AT_SECONDS if remaining > 1000 * mark]
        return min([at, *(now + timedelta(milliseconds=ms) for ms in ahead)])

    def _due(self, call: Call, now: datetime) -> bool | None:
        """None: nothing to say now. Otherwise whether it is a warning."""
        assert call.charge is not None
        told = self._memory.of(call)
        remaining = remaining_ms(call, now)
        level = 0 if remaining is None else sum(remaining <= 1000 * at for at in WARN_AT_SECONDS)
        warning = level > told.warned
        changed = told.until_ms != call.charge.reach_ms or told.running != _running(call)
        late = told.at is None or now - told.at >= timedelta(seconds=TICK_SECONDS)
        told.warned = level
        if not (warning or changed or late):
            return None
        early = timedelta() if told.at else _phase(call)
        told.at, told.until_ms, told.running = now - early, call.charge.reach_ms, _running(call)
        return warning

    async def _look(self, keys: Sequence[str]) -> bool:
        """What is available in the wallets of these payers; False, and as last seen, while the database is away."""
        try:
            found = await self._ledger.store.wallets(keys)
        except Exception as error:
            if not database_away(error):
                raise
            return False
        self._ledger.seen.moved(found.values())
        for key, wallet in found.items():
            self._memory.available[key] = wallet.spendable
        return True

    def _tick(self, call: Call, now: datetime, warning: bool) -> Tick:
        assert call.charge is not None
        remaining = remaining_ms(call, now)
        return Tick(
            call=call,
            charged_minor=tariff.cost(call, now),
            remaining_ms=remaining,
            available_minor=self._memory.available.get(call.charge.wallet, 0),
            warning=warning,
        )


def remaining_ms(call: Call, now: datetime) -> int | None:
    """How much longer the money lasts if the two go on talking; None without end."""
    if call.charge is None or call.charge.reach_ms is None:
        return None
    return max(0, call.charge.reach_ms - call.talk_ms(now))


def _phase(call: Call) -> timedelta:
    """How much earlier a call ticks for the second time than it would: its own share of ``SPREAD_SECONDS``."""
    return timedelta(seconds=SPREAD_SECONDS) * (crc32(call.id.encode()) % SPREAD_STEPS / SPREAD_STEPS)


def _running(call: Call) -> datetime | None:
    return call.intervals[-1].start if call.intervals and call.intervals[-1].end is None else None

"""The end of the money: how long after it both phones hear of it, from a whole server over its sockets.

The payers are given money for just some seconds, so the instant at which each call ends is known with its accept; the
server's own timers have to keep it. Once with nothing else to do, once while other calls are set up, and once while
the database says nothing at all, as when a cable is cut: its process is stopped for the time of the cut-offs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import aiohttp

from tests.bench import calls
from tests.bench.calls import ANSWER_AUDIO, OFFER_AUDIO
from tests.bench.machine import POLL_SECONDS, Watched
from tests.bench.people import pay_in
from tests.bench.phone import Phone, now
from tests.bench.plan import Plan, Told
from tests.bench.stats import Round, arrivals, percentile, spread

RATE_MINOR = 6_000
A_SECOND_MINOR = RATE_MINOR // 60
# Between the last accept and the first cut-off.
SLACK_SECONDS = 2
# After the last one; then whoever has heard nothing counts as lost.
PATIENCE_SECONDS = 5.0
AWAY_BEFORE_SECONDS = 0.4
RECOVERY_SECONDS_MAX = 30.0
REASON = "insufficient_funds"
# CONTRACT §2.1: cut off within 100 ms of the end of the money.
PROMISED_MS = 100.0


class Poor:
    """Pairs of phones of which the caller's money is soon over."""

    def __init__(self, url: str, callers: list[Phone], callees: list[Phone]) -> None:
        self._url, self._callers, self._callees = url, callers, callees
        self._talks = 0
        self._wanted = 0
        self._heard: dict[tuple[str, str], float] = {}
        self._all_heard = asyncio.Event()
        self.faults: Counter[str] = Counter()
        for phone in callers + callees:
            phone.on_event = self._hears

    async def talk(self, count: int, rate: float) -> float:
        """Pay in, and begin ``count`` calls, ``rate`` a second; when the first one's money will be over, at least."""
        seconds = round(count / rate) + SLACK_SECONDS
        payers = [phone.person for phone in self._callers[:count]]
        await pay_in(self._url, payers, seconds * A_SECOND_MINOR, lambda share: None)
        self._heard.clear()
        self._all_heard.clear()
        self.faults.clear()
        self._wanted = 2 * count
        self._talks += 1  # everybody calls somebody else, since one may ring another only six times a minute
        start = now() + 0.01
        for number, offset in enumerate(arrivals(rate, count / rate)):
            await asyncio.sleep(max(0.0, start + offset - now()))
            callee = self._callees[(number + self._talks) % len(self._callees)]
            ask = {"to": callee.user_id, "type": "audio", "offer": OFFER_AUDIO}
            self._callers[number].emit("CALL_REQUEST", ask, self._acked)
        return start + seconds

    async def all_told(self, seconds: float) -> list[float]:
        """Wait until all have heard of the end; how late each was, in ms."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._all_heard.wait()
        if missing := self._wanted - len(self._heard):
            self.faults["not told"] += missing
        return list(self._heard.values())

    async def recovered(self) -> None:
        """Wait until the server has its database again."""
        async with asyncio.timeout(RECOVERY_SECONDS_MAX), aiohttp.ClientSession() as http:
            while True:
                async with http.get(f"{self._url}/health") as answer:
                    if answer.status == 200:
                        return
                await asyncio.sleep(POLL_SECONDS)

    def _acked(self, ack: dict[str, Any], at: float) -> None:
        if not ack["ok"]:
            self.faults[ack["error"]["code"]] += 1

    def _hears(self, phone: Phone, name: str, payload: dict[str, Any], at: float) -> None:
        if name == "CALL_REQUEST":
            accept = {"callId": payload["callId"], "answer": ANSWER_AUDIO}
            phone.emit("CALL_ACCEPT", accept, self._acked)
        elif name == "CALL_ENDED":
            place = (payload["callId"], phone.user_id)
            if place in self._heard:
                return  # the letter that follows a word in advance
            if payload["reason"] != REASON:
                self.faults[payload["reason"]] += 1
            due = datetime.fromisoformat(payload["call"]["endedAt"]).timestamp()
            wall = time.time() - (now() - at)
            self._heard[place] = (wall - due) * 1000
            if len(self._heard) >= self._wanted:
                self._all_heard.set()


@contextmanager
def silent(pid: int) -> Iterator[None]:
    """A process that neither works nor answers, for the time of a ``with``."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def alone(poor: Poor, watched: Watched, plan: Plan, told: Told) -> Round:
    """One round with nothing else to do."""
    meter = watched.meter()
    await poor.talk(plan.cut_offs, plan.cut_off_rate)
    told(0.5)
    late = await poor.all_told(_longest(plan.cut_offs, plan))
    return _round(poor, late, meter.read().shares())


async def busy(poor: Poor, exchange: calls.Exchange, watched: Watched, plan: Plan, told: Told) -> Round:
    """One round while other calls are set up at ``call_rate``."""
    first = await poor.talk(plan.cut_offs, plan.cut_off_rate)
    await asyncio.sleep(max(0.0, first - now() - 1))
    meter = watched.meter()
    lasts = replace(plan, call_seconds=plan.cut_offs / plan.cut_off_rate + SLACK_SECONDS)
    load, late = await asyncio.gather(
        calls.steady(exchange, lasts, watched, told), poor.all_told(_longest(plan.cut_offs, plan))
    )
    poor.faults += load.faults
    figures = _round(poor, late, meter.read().shares())
    figures.figures["set_up_ms_p99"] = load.figures["set_up_ms_p99"]
    return figures


async def away(poor: Poor, watched: Watched, plan: Plan, told: Told) -> Round:
    """One round while the database says nothing."""
    first = await poor.talk(plan.cut_offs_away, plan.cut_off_rate)
    await asyncio.sleep(max(0.0, first - now() - AWAY_BEFORE_SECONDS))
    meter = watched.meter()
    with silent(watched.database):
        told(0.5)
        late = await poor.all_told(_longest(plan.cut_offs_away, plan))
        shares = meter.read().shares()
    await poor.recovered()
    await asyncio.sleep(SLACK_SECONDS)  # what could not be written is written now
    return _round(poor, late, shares)


def _longest(count: int, plan: Plan) -> float:
    return count / plan.cut_off_rate + SLACK_SECONDS + PATIENCE_SECONDS


def _round(poor: Poor, late: list[float], shares: dict[str, float]) -> Round:
    figures = {
        **spread("late_ms", late),
        "late_ms_most": percentile(late, 1.0),
        "kept_share": sum(ms <= PROMISED_MS for ms in late) / len(late) if late else 0.0,
        **shares,
    }
    return Round(figures, Counter(poor.faults))

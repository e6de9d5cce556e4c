"""Call set-up: request → the callee's ring → accept → the caller is told; then the hang-up.

Open loop: calls begin on schedule whether or not earlier ones have come through, and every time is counted from the
scheduled moment, so that waiting in a queue shows. Flat out: a number of calls at the same time, each followed by the
next.

The callee's phone does what an app does: it says that it rings and, its user being quick, accepts at once. Caller
and callee are paired anew in each pass, since one person may ring another only six times a minute.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.bench.machine import Watched
from tests.bench.phone import Phone, now
from tests.bench.plan import Plan, Told
from tests.bench.stats import Round, arrivals, spread

STRAGGLERS_SECONDS = 10.0


def description(kind: str, ufrag: str) -> dict[str, str]:
    """A description of the size that browsers make for audio and video (some 4 KB)."""
    head = f"v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-ufrag:{ufrag}\r\n"
    audio = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtpmap:111 opus/48000/2\r\n"
    video = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\n"
    codecs = "".join(
        f"a=rtpmap:{number} VP8/90000\r\na=rtcp-fb:{number} nack pli\r\na=rtcp-fb:{number} goog-remb\r\n"
        f"a=fmtp:{number} max-fr=30;max-fs=3600;x=0123456789abcdef\r\n"
        for number in range(96, 121)
    )
    return {"type": kind, "sdp": head + audio + video + codecs}


OFFER = description("offer", "callerfrag")
ANSWER = description("answer", "calleefrag")


def without_video(description: dict[str, str]) -> dict[str, str]:
    """The same with its video section switched off, as a call for audio has it; of the same size."""
    return {**description, "sdp": description["sdp"].replace("m=video 9 ", "m=video 0 ")}


OFFER_AUDIO, ANSWER_AUDIO = without_video(OFFER), without_video(ANSWER)


@dataclass(slots=True, eq=False)
class Attempt:
    """One call from its scheduled moment; instants as ``perf_counter`` has them."""

    caller: Phone
    callee: Phone
    due: float
    done: asyncio.Future[None]
    call_id: str | None = None
    rung: float = 0.0
    told: float = 0.0
    hung_up: float = 0.0
    ended: float = 0.0
    fault: str | None = None
    open_ends: set[str] = field(default_factory=lambda: {"request", "accept", "caller", "callee", "end"})

    def settle(self, part: str) -> None:
        """A part is through; the last one finishes the attempt."""
        self.open_ends.discard(part)
        if not self.open_ends and not self.done.done():
            self.done.set_result(None)

    def fail(self, code: str) -> None:
        """It does not come about."""
        self.fault = self.fault or code
        if not self.done.done():
            self.done.set_result(None)


class Exchange:
    """Places calls between phones and keeps their times. With ``hang_up`` False they go on running."""

    def __init__(self, callers: list[Phone], callees: list[Phone]) -> None:
        self._callers, self._callees = callers, callees
        self._placed = 0
        self._by_caller: dict[str, Attempt] = {}
        self._by_callee: dict[str, Attempt] = {}
        self.hang_up = True
        # Video is free on the server of the measurement, audio is paid for.
        self.paid = False
        for phone in callers:
            phone.on_event = self._caller_hears
        for phone in callees:
            phone.on_event = self._callee_hears

    def begin_pass(self) -> None:
        """From here on everybody is called once before anybody is called again."""
        self._placed = -(-self._placed // len(self._callers)) * len(self._callers)

    def place(self, due: float) -> Attempt:
        """Begin the next call: the callers take turns, and with each pass the callees move on by one."""
        turn, number = divmod(self._placed, len(self._callers))
        self._placed += 1
        caller, callee = self._callers[number], self._callees[(number + turn) % len(self._callees)]
        attempt = Attempt(caller, callee, due, asyncio.get_running_loop().create_future())
        for book, phone in ((self._by_caller, caller), (self._by_callee, callee)):
            before = book.get(phone.user_id)
            if before is not None and not before.done.done():
                attempt.fail("still in the call before")
                return attempt
            book[phone.user_id] = attempt
        kind, offer = ("audio", OFFER_AUDIO) if self.paid else ("video", OFFER)
        ask = {"to": callee.user_id, "type": kind, "offer": offer}
        caller.emit("CALL_REQUEST", ask, lambda ack, at: self._acked(attempt, "request", ack))
        return attempt

    @staticmethod
    def _acked(attempt: Attempt, part: str, ack: dict[str, Any]) -> None:
        if ack["ok"]:
            attempt.settle(part)
        else:
            attempt.fail(ack["error"]["code"])

    def _callee_hears(self, phone: Phone, name: str, payload: dict[str, Any], at: float) -> None:
        if name == "CALL_REQUEST":
            attempt = self._by_caller[payload["from"]["id"]]
            attempt.rung, attempt.call_id = at, payload["callId"]
            about = {"callId": payload["callId"]}
            phone.emit("CALL_RINGING", about)
            answer = {**about, "answer": ANSWER_AUDIO if self.paid else ANSWER}
            phone.emit("CALL_ACCEPT", answer, lambda ack, _: self._acked(attempt, "accept", ack))
        elif name == "CALL_ENDED":
            self._end_heard(self._by_callee[phone.user_id], "callee", payload, at)

    def _caller_hears(self, phone: Phone, name: str, payload: dict[str, Any], at: float) -> None:
        if name == "CALL_ACCEPT":
            attempt = self._by_caller[phone.user_id]
            attempt.told = at
            if not self.hang_up:
                attempt.open_ends.clear()
                attempt.settle("told")
                return
            attempt.hung_up = now()
            about = {"callId": payload["callId"]}
            phone.emit("CALL_ENDED", about, lambda ack, _: self._acked(attempt, "end", ack))
        elif name == "CALL_ENDED":
            self._end_heard(self._by_caller[phone.user_id], "caller", payload, at)

    @staticmethod
    def _end_heard(attempt: Attempt, side: str, payload: dict[str, Any], at: float) -> None:
        if payload["callId"] == attempt.call_id:
            attempt.ended = max(attempt.ended, at)
            attempt.settle(side)


async def steady(exchange: Exchange, plan: Plan, watched: Watched, told: Told) -> Round:
    """One round at ``call_rate``."""
    attempts: list[Attempt] = []
    meter, start = watched.meter(), now() + 0.01
    for offset in arrivals(plan.call_rate, plan.call_seconds):
        due = start + offset
        if due > now():
            await asyncio.sleep(due - now())
        attempts.append(exchange.place(due))
        told(offset / plan.call_seconds)
    spent = meter.read()
    await _stragglers(attempts)
    figures = {
        "asked_per_s": plan.call_rate,
        "ended_calls": float(sum(1 for one in attempts if one.ended and not one.fault)),
        **_times(attempts),
        **spent.shares(),
    }
    return Round(figures, _faults(attempts))


async def flat_out(exchange: Exchange, plan: Plan, watched: Watched, told: Told) -> Round:
    """One round of ``flat_out_calls`` at a time."""
    attempts: list[Attempt] = []
    meter, start = watched.meter(), now()

    async def line() -> None:
        while (passed := now() - start) < plan.flat_out_seconds:
            attempt = exchange.place(now())
            attempts.append(attempt)
            told(passed / plan.flat_out_seconds)
            await asyncio.wait([attempt.done], timeout=STRAGGLERS_SECONDS)

    await asyncio.gather(*(line() for _ in range(plan.flat_out_calls)))
    spent = meter.read()
    good = sum(1 for one in attempts if one.ended and not one.fault)
    figures = {
        "calls_per_s": good / spent.seconds,
        "server_cpu_ms_per_call": spent.server / good * 1000 if good else float("nan"),
        **_times(attempts),
        **spent.shares(),
    }
    return Round(figures, _faults(attempts))


async def keep_running(exchange: Exchange, pairs: int) -> list[Attempt]:
    """A call for each pair, accepted and left running; without those that an earlier fault stands in the way of."""
    exchange.hang_up = False
    exchange.begin_pass()
    attempts = []
    for _ in range(pairs):
        attempt = exchange.place(now())
        await asyncio.wait([attempt.done], timeout=STRAGGLERS_SECONDS)
        if attempt.told and not attempt.fault:
            attempts.append(attempt)
    if len(attempts) < pairs / 2:
        raise RuntimeError(f"of {pairs} calls to measure on only {len(attempts)} came about")
    return attempts


async def transactions(url: str) -> Round:
    """The server's transactions so far, and how many of them had to be run again, as it says itself."""
    async with aiohttp.ClientSession() as http, http.get(f"{url}/metrics") as answer:
        text = await answer.text()
    begun, again = (
        sum(
            float(line.split()[1])
            for line in text.splitlines()
            if line.startswith(f"ringmeter_{name}_total ")
        )
        for name in ("transactions", "transaction_retries")
    )
    return Round({"transactions": begun, "retries_per_transaction": again / begun if begun else 0.0})


async def _stragglers(attempts: list[Attempt]) -> None:
    await asyncio.wait([one.done for one in attempts], timeout=STRAGGLERS_SECONDS)


def _times(attempts: list[Attempt]) -> dict[str, float]:
    good = [one for one in attempts if not one.fault]
    return {
        **spread("set_up_ms", [(one.told - one.due) * 1000 for one in good if one.told]),
        **spread("ring_ms", [(one.rung - one.due) * 1000 for one in good if one.rung]),
        **spread("accept_ms", [(one.told - one.rung) * 1000 for one in good if one.told]),
        **spread("end_ms", [(one.ended - one.hung_up) * 1000 for one in good if one.ended]),
    }


def _faults(attempts: list[Attempt]) -> Counter[str]:
    late = Counter("no answer" for one in attempts if not one.done.done())
    return Counter(one.fault for one in attempts if one.fault) + late

"""Relayed ICE candidates: some 250 bytes from one phone to the other of its call.

Each message is made once and only its number is changed: the frame is built by hand, and what arrives is recognised
by that number without being parsed. Flat out every device keeps a few on their way. At a fixed rate the times are
counted from the scheduled moment; the generator then turns without sleeping, so that it is never late by a timer's
coarseness.

One device may send 200 candidates at once and 50 a second after that: flat out it takes many devices, and pauses
between the rounds.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.bench.calls import Attempt
from tests.bench.frames import client_frame, event_packet
from tests.bench.machine import Counted
from tests.bench.phone import Phone, now
from tests.bench.plan import Plan, Told
from tests.bench.stats import Round, percentile, spread

MARK = b"candidate:"
DIGITS = 9
# CONTRACT §1: what a device's allowance gains.
ALLOWED_PER_SECOND = 50
BURST = 200
STRAGGLERS_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class Sender:
    """A device with its message, ready but for the number, and the other device."""

    phone: Phone
    head: bytes
    tail: bytes
    other: Phone | None = None

    def send(self, number: int) -> None:
        """Send candidate ``number``."""
        self.phone.write(b"%s%09d%s" % (self.head, number, self.tail))


def candidate(call_id: str, ufrag: str, ack_id: int | None = None) -> tuple[bytes, bytes]:
    """The frame of a candidate: what goes before its number and what comes after it."""
    line = (
        f"{MARK.decode()}{'#' * DIGITS} 1 udp 2113937151 192.0.2.17 54321 typ host generation 0 ufrag {ufrag} "
        "network-id 1 network-cost 10"
    )
    payload = {
        "callId": call_id,
        "candidate": {"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": ufrag},
    }
    head, _, tail = client_frame(event_packet("ICE_CANDIDATE", payload, ack_id)).partition(b"#" * DIGITS)
    return head, tail


def sender(phone: Phone, call_id: str, ufrag: str) -> Sender:
    """The message of one device of a call."""
    return Sender(phone, *candidate(call_id, ufrag))


@dataclass(slots=True)
class Relay:
    """All senders, and what has arrived."""

    senders: list[Sender]
    due: list[float] = field(default_factory=list)
    came: int = 0
    taken_ms: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    replies: bool = False

    def __post_init__(self) -> None:
        by_phone = {one.phone: one for one in self.senders}
        for one in self.senders:
            one.phone.on_event = self._told
            one.phone.on_relayed = lambda phone, text, at: self._came(by_phone[phone], text, at)

    def send(self, one: Sender, due: float) -> None:
        """Send the next number from ``one``, due at a moment."""
        self.due.append(due)
        one.send(len(self.due) - 1)

    async def begin(self) -> None:
        """Forget the round before; wait until every device's allowance is full again."""
        spent = min(BURST, len(self.due) / len(self.senders) + 1)
        await asyncio.sleep(spent / ALLOWED_PER_SECOND)
        self.due.clear()
        self.taken_ms.clear()
        self.refused.clear()
        self.came = 0

    def _came(self, here: Sender, text: bytes, at: float) -> None:
        # The receiver of one is itself a sender: flat out it answers, which keeps the number on their way constant.
        start = text.find(MARK) + len(MARK)
        number = int(text[start : start + DIGITS])
        self.came += 1
        if number < len(self.due):
            self.taken_ms.append((at - self.due[number]) * 1000)
        if self.replies:
            self.send(here, now())

    def _told(self, phone: Phone, name: str, payload: dict[str, Any], at: float) -> None:
        if name == "error":
            self.refused[payload["error"]["code"]] += 1


def relay_over(attempts: list[Attempt]) -> Relay:
    """The relay over running calls, both ways."""
    senders = []
    for one in attempts:
        assert one.call_id is not None
        senders.append(sender(one.caller, one.call_id, "callerfrag"))
        senders.append(sender(one.callee, one.call_id, "calleefrag"))
    return Relay(senders)


async def flat_out(relay: Relay, plan: Plan, watched: Counted, told: Told) -> Round:
    """As many as go through in ``relay_seconds``."""
    await relay.begin()
    relay.replies = True
    meter, start = watched.meter(), now()
    for one in relay.senders:
        for _ in range(plan.in_flight):
            relay.send(one, start)
    while (passed := now() - start) < plan.relay_seconds:
        told(passed / plan.relay_seconds)
        await asyncio.sleep(0.05)
    spent = meter.read()
    came = relay.came
    relay.replies = False
    await _settle(relay)
    figures = {
        "messages_per_s": came / spent.seconds,
        "server_cpu_us_per_message": spent.server / came * 1e6 if came else float("nan"),
        **spent.shares(),
    }
    return Round(figures, _faults(relay))


async def steady(relay: Relay, plan: Plan, watched: Counted, told: Told) -> Round:
    """One round at ``relay_rate``, the devices taking turns."""
    await relay.begin()
    count, lates = round(plan.relay_rate * plan.relay_seconds), []
    meter, start = watched.meter(), now() + 0.01
    for number in range(count):
        due = start + number / plan.relay_rate
        while now() < due:  # noqa: ASYNC110 - turning is meant
            await asyncio.sleep(0)
        lates.append((now() - due) * 1000)
        relay.send(relay.senders[number % len(relay.senders)], due)
        if number % 200 == 0:
            told(number / count)
    spent = meter.read()
    await _settle(relay)
    figures = {
        "asked_per_s": plan.relay_rate,
        **spread("taken_ms", relay.taken_ms),
        "server_cpu_us_per_message": spent.server / count * 1e6,
        **spent.shares(),
        "generator_late_ms_p99": percentile(lates, 0.99),
    }
    return Round(figures, _faults(relay))


async def _settle(relay: Relay) -> None:
    """Wait until all that was sent has come or been refused."""
    until = now() + STRAGGLERS_SECONDS
    while relay.came + relay.refused.total() < len(relay.due) and now() < until:  # noqa: ASYNC110 - not timed
        await asyncio.sleep(0.01)


def _faults(relay: Relay) -> Counter[str]:
    lost = len(relay.due) - relay.came - relay.refused.total()
    return relay.refused + Counter({"lost": lost} if lost > 0 else {})

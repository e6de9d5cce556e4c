"""What two people do all the time: paid calls with candidates and messages, whatever happens to the server."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.phone import TALKS, ChaosPhone, Denied, Stuck
from tests.doors.phones import PhoneFault
from tests.doors.talk import answer, candidate, offer


@dataclass(slots=True)
class Plan:
    """How much of it."""

    phones: int = 40
    seed: int = 1
    # Which of the processes it is that suffers.
    victim: int = 1
    # Seconds of a talk are chosen between the two; None: until the fault is over.
    talk: tuple[float, float] | None = (8.0, 14.0)
    # How many calls of each pair, in the mean, have begun when the fault comes.
    calls_before: float = 1.8
    # So many of the pairs are in the middle of a call then.
    talking: float = 0.6
    candidate_every: float = 0.5
    message_every: float = 1.0
    # Each so-many-th pair loses its network in the fault and does not come back before the call is over.
    leaves_every: int = 4
    # How long a process is frozen; None: until all who were there have come back elsewhere.
    frozen: float | None = 20.0
    # How long a killed process or Redis is away.
    away: float = 5.0
    # Whether the audit is the command beside the servers, or the same within this process.
    audit_beside: bool = True


@dataclass(slots=True)
class Stage:
    """Where the whole load is: what the pairs look at to know what to do next."""

    # Waits for the end of a call in the database: whether it comes by its deadlines.
    ends: Callable[[str], Awaitable[bool]]
    healed: asyncio.Event = field(default_factory=asyncio.Event)


class Pair:
    """Two people; the caller pays. ``violations`` is what nothing that was done to the server excuses."""

    def __init__(self, number: int, caller: ChaosPhone, callee: ChaosPhone, plan: Plan, stage: Stage) -> None:
        self.number, self.caller, self.callee = number, caller, callee
        self._plan, self._stage = plan, stage
        self._chance = random.Random(plan.seed * 10_007 + number)
        self.leaves = plan.leaves_every > 0 and number % plan.leaves_every == plan.leaves_every - 1
        self.calls: list[str] = []
        self.now: str | None = None
        self.live_at_strike: str | None = None
        self.talked_at_strike = False
        self.gone_at: float | None = None
        self.left: str | None = None
        self._doing: asyncio.Task[None]
        self.proven = False
        self.violations: list[str] = []
        self._written = self._asked = 0

    @property
    def both(self) -> tuple[ChaosPhone, ChaosPhone]:
        return self.caller, self.callee

    @property
    def talking(self) -> bool:
        """Both know that they talk."""
        return self.now is not None and all(phone.state(self.now) == "active" for phone in self.both)

    def strike(self) -> None:
        """The fault begins: remember which call it hits."""
        call = self.now
        if call is not None and not any(phone.over(call) for phone in self.both):
            self.live_at_strike = call
            self.talked_at_strike = self.talking

    async def run(self) -> None:
        """Call after call, until one has been made from beginning to end after the fault."""
        try:
            while not self.proven:
                fresh = self._stage.healed.is_set()
                self._doing = asyncio.create_task(self._call(proof=fresh))
                try:
                    await self._doing
                except asyncio.CancelledError:
                    if self.gone_at is None:
                        raise
                    await self._return()
                else:
                    self.proven = fresh
        except (Stuck, Denied, PhoneFault) as fault:
            self.violations.append(f"pair {self.number}: {fault}")
        except ExceptionGroup as several:
            self.violations.append(f"pair {self.number}: {several.exceptions}")

    async def leave(self) -> None:
        """Both are gone without a word."""
        self.gone_at = time.time()
        self.left = self.live_at_strike
        self._doing.cancel()
        await asyncio.gather(*(phone.away() for phone in self.both))
        self.gone_at = time.time()

    async def _return(self) -> None:
        """Once the call has ended without them, in its time."""
        await self._stage.healed.wait()
        left = self.left
        if left is not None and not await self._stage.ends(left):
            raise Stuck(f"the call {left} that both have left lives on")
        await asyncio.gather(*(phone.back() for phone in self.both))

    async def _call(self, *, proof: bool) -> None:
        caller, callee = self.both
        # Of its own for each call: one that was asked for by somebody who then left is not asked for again.
        self._asked += 1
        op_id = f"chaos-{self.number}-{self._asked}"
        call = await caller.insist(
            "CALL_REQUEST", to=callee.id, type="audio", offer=offer("aaaa"), opId=op_id, reportsMedia=True
        )
        caller.learn(call)
        call_id = self.now = str(call["id"])
        self.calls.append(call_id)
        await callee.wait(
            lambda: callee.state(call_id) is not None or caller.over(call_id), f"the ring of {call_id}"
        )
        await callee.try_("CALL_RINGING", callId=call_id)
        await callee.try_("CALL_ACCEPT", callId=call_id, answer=answer("bbbb"), reportsMedia=True)
        await caller.wait(
            lambda: caller.state(call_id) in (*TALKS, "ended"), f"the answer of {call_id}", within=45
        )
        await asyncio.gather(*(phone.try_("CALL_CONNECTED", callId=call_id) for phone in self.both))
        for phone in self.both:
            await phone.wait(
                lambda p=phone: p.state(call_id) in ("active", "ended"), f"{call_id} active", within=45
            )
        if proof and caller.over(call_id):
            raise Stuck(f"after the fault the call {call_id} ended {caller.calls[call_id]['endReason']}")
        await self._talk(call_id, proof=proof)
        hangs_up = self.both[self._chance.randrange(2)]
        await hangs_up.try_("CALL_ENDED", callId=call_id)
        for phone in self.both:
            await phone.wait(lambda p=phone: p.over(call_id), f"the end of {call_id}", within=45)
        if proof and caller.calls[call_id]["endReason"] != "completed":
            raise Stuck(f"after the fault the call {call_id} ended {caller.calls[call_id]['endReason']}")
        self.now = None

    async def _talk(self, call_id: str, *, proof: bool) -> None:
        if proof:
            await self._candidates_arrive(call_id)
            await self._write()
            return
        loop = asyncio.get_running_loop()
        until = None if self._plan.talk is None else loop.time() + self._chance.uniform(*self._plan.talk)

        def on() -> bool:
            over = self._stage.healed.is_set() if until is None else loop.time() >= until
            return not over and not any(phone.over(call_id) for phone in self.both)

        async with asyncio.TaskGroup() as both:
            both.create_task(self._write_while(on))
            both.create_task(self._relay_while(on, call_id))

    async def _relay_while(self, on: Callable[[], bool], call_id: str) -> None:
        number = 0
        while on():
            number += 1
            await asyncio.gather(*(self._candidate(phone, call_id, number) for phone in self.both))
            await asyncio.sleep(self._plan.candidate_every)

    async def _candidate(self, phone: ChaosPhone, call_id: str, number: int) -> str:
        """Only of the moment: what is lost with a process is lost. What became of it."""
        if phone.connected:
            try:
                await phone.ask("ICE_CANDIDATE", callId=call_id, candidate=candidate(number))
            except (Denied, PhoneFault) as why:
                return str(why)
        return "sent" if phone.connected else "not connected"

    async def _candidates_arrive(self, call_id: str) -> None:
        """The relay works in both directions, over whichever processes."""
        for one, other in (self.both, self.both[::-1]):
            for number in range(1, 40):
                why = await self._candidate(one, call_id, number)
                try:
                    await other.wait(lambda o=other: o.candidates[call_id] > 0, "a candidate", within=1.5)
                except Stuck:
                    continue
                break
            else:
                raise Stuck(f"no candidate of {one.name} arrives in {call_id}: {why}")

    async def _write_while(self, on: Callable[[], bool]) -> None:
        while on():
            await self._write()
            await asyncio.sleep(self._plan.message_every)

    async def _write(self) -> None:
        """The next message, by the one or the other, until it is acknowledged."""
        self._written += 1
        one, other = self.both if self._written % 2 else self.both[::-1]
        text = f"{self.number}: {self._written}"
        sent: dict[str, Any] = await one.insist(
            "CHAT_MESSAGE", to=other.id, text=text, opId=f"{self._written}"
        )
        one.written[text] = sent["seq"]

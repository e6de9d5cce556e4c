"""Rings as pushes: ``models.ports.Pusher`` for the calls, and the work of the job that sends.

A call only ever leaves a to-do here, so a slow provider delays no ring of a socket and no answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from models.notify import rules as common
from models.notify.delivery import Addressed, Answered, Delivery
from models.notify.ports import Sent, Token, Tokens
from models.notify.rings import rules
from models.notify.rings.rules import Way
from models.notify.rings.store import RingStore
from models.notify.rings.todo import Todo, What
from models.notify.rounds import Rounds, each
from models.ports import Clock, Ids

# A round lasts as long as its slowest provider, and a ring that has come since takes another one: as many as rings
# come while a provider hangs.
ROUNDS_MAX = 100
# Missed calls have rounds of their own: what sounds on a phone now waits for none of them.
MISSED_ROUNDS_MAX = 4


class Rings:
    """One per process. ``still_rings`` answers whether a call rings at this moment.

    ``nudge`` is called after every new to-do and must return at once; it is for sending now instead of at the job's
    next turn.
    """

    def __init__(
        self,
        *,
        store: RingStore,
        tokens: Tokens,
        delivery: Delivery,
        still_rings: Callable[[str], Awaitable[bool]],
        clock: Clock,
        ids: Ids,
        nudge: Callable[[], None],
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._delivery = delivery
        self._still_rings = still_rings
        self._clock = clock
        self._ids = ids
        self._nudge = nudge
        self._sounding = Rounds(
            claim=partial(store.claim, (What.RING, What.CANCELLED)),
            work=self._work,
            most=ROUNDS_MAX,
            clock=clock,
            ids=ids,
        )
        self._missed = Rounds(
            claim=partial(store.claim, (What.MISSED,)),
            work=self._work,
            most=MISSED_ROUNDS_MAX,
            clock=clock,
            ids=ids,
        )

    async def ring(
        self, *, call_id: str, call_type: str, caller: Mapping[str, Any], callee_id: str, expires_at: datetime
    ) -> None:
        """Keep a ring to be pushed to the callee's devices. Repeating it changes nothing, nor does it after the end."""
        if not await self._tokens.of_users([callee_id]):
            return  # one read instead of a to-do that a job takes up for nothing
        kept = await self._store.add_ring(
            call_id=call_id,
            call_type=call_type,
            caller=caller,
            callee_id=callee_id,
            rings_until=expires_at,
            now=self._clock.now(),
        )
        if kept:
            self._nudge()

    async def stop_ringing(
        self,
        *,
        call_id: str,
        call_type: str,
        caller: Mapping[str, Any],
        callee_id: str,
        missed: bool,
        answered_on: str | None = None,
    ) -> None:
        """Take the ring back: with ``missed`` a notice of the missed call, otherwise a silent cancel where it rang.

        The device ``answered_on`` is told nothing.
        """
        if not await self._tokens.of_users([callee_id]):
            return
        now = self._clock.now()
        what = What.MISSED if missed else What.CANCELLED
        kept = await self._store.turn_into(
            what,
            call_id=call_id,
            call_type=call_type,
            caller=caller,
            callee_id=callee_id,
            give_up_at=now + rules.WITHIN[what],
            answered_on=answered_on,
            now=now,
        )
        if kept:
            self._nudge()

    async def run_due(self) -> int:
        """Send what is due; how many to-dos were worked on. Any number of processes may do this at the same time."""
        return sum(await asyncio.gather(self.run_sounding(), self.run_missed()))

    async def run_sounding(self) -> int:
        """Of what is due, send rings and what takes them back."""
        return await self._sounding.run()

    async def run_missed(self) -> int:
        """Of what is due, send missed calls."""
        return await self._missed.run()

    async def _work(self, batch: Sequence[Todo]) -> None:
        """Nobody's ring waits for a provider that it does not go by, nor for the database's fault with another's."""
        groups: dict[frozenset[str], list[_Plan]] = {}

        async def plan(todo: Todo) -> None:
            made = await self._plan(todo)
            groups.setdefault(frozenset(one.token.kind for _, one in made.mail), []).append(made)

        fault = None
        try:
            await each(plan(todo) for todo in batch)
        except Exception as error:  # of one, which is another worker's when its lease ends
            fault = error
        await each(self._send(plans) for plans in groups.values())
        if fault is not None:
            raise fault

    async def _send(self, plans: Sequence[_Plan]) -> None:
        results = await self._delivery.deliver([[one for _, one in plan.mail] for plan in plans])
        await each(self._settle(plan, answers) for plan, answers in zip(plans, results, strict=True))

    async def _plan(self, todo: Todo) -> _Plan:
        """What is to be sent for one to-do; nothing for a ring that is over."""
        if todo.what is What.RING and not await self._still_rings(todo.call_id):
            return _Plan(todo, [], [])
        tokens = await self._tokens.of_users([todo.callee_id])
        found = rules.ways(todo, tokens, senders=self._delivery.kinds, refused=todo.refused)
        now = self._clock.now()
        mail = []
        for one in found:
            push = rules.push_for(todo, one, now)
            if push is not None:
                mail.append((one, Addressed(token=one.token, push=push)))
        # Said before it is done: after a crash here a cancel is sent for a ring that never went out, which harms
        # nobody, while the other way round a phone would ring on.
        if mail and todo.what is What.RING and not await self._store.begin_ring(todo):
            return _Plan(todo, [], [])
        return _Plan(todo, tokens, mail)

    async def _settle(self, plan: _Plan, answers: Sequence[Answered]) -> None:
        todo, now = plan.todo, self._clock.now()
        pairs = [(one, said) for (one, _), (_, said) in zip(plan.mail, answers, strict=True)]
        told = todo.told.union(one.told for one, said in pairs if said.sent is Sent.OK)
        refused = todo.refused.union(
            one.token.token for one, said in pairs if said.sent in (Sent.GONE, Sent.NEVER)
        )
        after = replace(todo, told=told)
        left = rules.ways(after, plan.tokens, senders=self._delivery.kinds, refused=refused)
        next_at: datetime | None = None
        if any(one not in plan.tried for one in left) and now < todo.give_up_at:
            next_at = now  # a device whose best way is closed has another: at once
        elif left and plan.mail:
            asked = common.asked_wait(said for _, said in answers)
            next_at = rules.next_try_at(todo, now, asked_seconds=asked, chance=self._ids.new())
        await self._store.settle(todo, told=told, refused=refused, next_at=next_at, now=now)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A to-do, the tokens of its person, and what goes out now."""

    todo: Todo
    tokens: Sequence[Token]
    mail: Sequence[tuple[Way, Addressed]]

    @property
    def tried(self) -> list[Way]:
        """The ways that this round takes."""
        return [one for one, _ in self.mail]

"""Pushes: ``models.ports.Pusher`` for the calls, and the job that sends.

A call only ever leaves a to-do here, so a slow provider delays no ring of a socket and no answer. Sending is at least
once: a worker that dies between the provider's yes and its own note is followed by another one that sends again, and
the device tells by ``callId`` that it is the same ring.

Whether a phone really got a push is only in Expo's receipts, some fifteen minutes later; they are not read yet. Until
then a dead token is found by the next push's ticket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from models.notify import rules
from models.notify.ports import Push, Sender, Sent, Tokens
from models.notify.store import PushStore
from models.notify.todo import Todo, What
from models.ports import Clock, Ids

# To-dos of one round: about a full request of a provider (100 notifications) for people with two devices.
BATCH_MAX = 50
# Rounds at the same time in one process: a provider that hangs holds up a few, and the rest go on.
ROUNDS_MAX = 8

# Which provider's, and what it is to send.
_Addressed = tuple[str, Push]


def _nobody() -> None:
    """Nobody wants to know that there is something to send; the job finds it."""


class Pushes:
    """One per process. ``senders`` by kind of token; a kind without a sender is not pushed to.

    ``still_rings`` answers whether a call rings at this moment. ``nudge`` is called after every new to-do and must
    return at once; it is for sending now instead of at the job's next turn.
    """

    def __init__(
        self,
        *,
        store: PushStore,
        tokens: Tokens,
        senders: Mapping[str, Sender],
        still_rings: Callable[[str], Awaitable[bool]],
        clock: Clock,
        ids: Ids,
        nudge: Callable[[], None] = _nobody,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._senders = senders
        self._still_rings = still_rings
        self._clock = clock
        self._ids = ids
        self._nudge = nudge
        self._rounds = 0

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
        if self._rounds >= ROUNDS_MAX:
            return 0
        self._rounds += 1
        worked = 0
        try:
            while batch := await self._claim():
                await self._work(batch)
                worked += len(batch)
        finally:
            self._rounds -= 1
        return worked

    async def _claim(self) -> list[Todo]:
        batch: list[Todo] = []
        while len(batch) < BATCH_MAX:
            now = self._clock.now()
            until = now + timedelta(seconds=rules.LEASE_SECONDS)
            todo = await self._store.claim(now, self._ids.new(), until)
            if todo is None:
                break
            batch.append(todo)
        return batch

    async def _work(self, batch: Sequence[Todo]) -> None:
        mail = await asyncio.gather(*(self._prepared(todo) for todo in batch))
        outcome = await self._sent([addressed for letters in mail for addressed in letters])
        dead = {token for (_, token), sent in outcome.items() if sent is Sent.GONE}
        if dead:
            await self._tokens.dead(dead)
        await asyncio.gather(
            *(
                self._settle(todo, {push.token: outcome[todo.call_id, push.token] for _, push in letters})
                for todo, letters in zip(batch, mail, strict=True)
            )
        )

    async def _prepared(self, todo: Todo) -> list[_Addressed]:
        """What is to be sent for one to-do; nothing for a ring that is over."""
        if todo.what is What.RING and not await self._still_rings(todo.call_id):
            return []
        tokens = [
            token
            for token in await self._tokens.of_users([todo.callee_id])
            if token.kind in self._senders
            and token.token not in todo.done
            and token.device_id != todo.answered_on
        ]
        now = self._clock.now()
        pushes = [(token.kind, rules.push_for(todo, token.token, now)) for token in tokens]
        mail = [(kind, push) for kind, push in pushes if push is not None]
        # Said before it is done: after a crash here a cancel is sent for a ring that never went out, which harms
        # nobody, while the other way round a phone would ring on.
        if mail and todo.what is What.RING and not await self._store.begin_ring(todo):
            return []
        return mail

    async def _sent(self, mail: Sequence[_Addressed]) -> dict[tuple[str, str], Sent]:
        """Give each provider its part, all at the same time; the outcome by call and token."""
        outcome: dict[tuple[str, str], Sent] = {}

        async def to_provider(kind: str) -> None:
            part = [push for k, push in mail if k == kind]
            results = await self._senders[kind].send(part)
            for push, sent in zip(part, results, strict=True):
                outcome[push.data["callId"], push.token] = sent

        await asyncio.gather(*(to_provider(kind) for kind in {kind for kind, _ in mail}))
        return outcome

    async def _settle(self, todo: Todo, outcome: Mapping[str, Sent]) -> None:
        now = self._clock.now()
        later = [token for token, sent in outcome.items() if sent is Sent.LATER]
        done = todo.done.union(outcome).difference(later)
        next_at = rules.next_try_at(todo, now) if later else None
        await self._store.settle(todo, done=done, next_at=next_at, now=now)

"""Invitations to rooms as pushes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from models.notify import rules as common
from models.notify.delivery import Addressed, Answered, Delivery
from models.notify.invites import rules
from models.notify.invites.rules import Invite
from models.notify.invites.store import InviteStore
from models.notify.plan import Plan
from models.notify.ports import Note, Token, Tokens
from models.notify.rounds import Rounds
from models.ports import Clock, Ids

# Rounds at the same time in one process: invitations are few.
ROUNDS_MAX = 2


class Invites:
    """One per process. ``nudge`` is called after every new to-do and must return at once."""

    def __init__(
        self,
        *,
        store: InviteStore,
        tokens: Tokens,
        delivery: Delivery,
        clock: Clock,
        ids: Ids,
        nudge: Callable[[], None],
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._delivery = delivery
        self._clock = clock
        self._ids = ids
        self._nudge = nudge
        self._rounds = Rounds(claim=store.claim, work=self._work, most=ROUNDS_MAX, clock=clock, ids=ids)

    async def room_invited(
        self, *, room_id: str, room_name: str | None, by: Mapping[str, Any], user_id: str
    ) -> None:
        """Tell somebody that ``by`` (a PublicUser in wire form) asks them into a room.

        Repeating it within a minute changes nothing.
        """
        if not await self._tokens.of_users([user_id]):
            return  # one read instead of a to-do that a job takes up for nothing
        now = self._clock.now()
        if await self._store.add(room_id=room_id, room_name=room_name, by=by, user_id=user_id, now=now):
            self._nudge()

    async def run_due(self) -> int:
        """Send what is due; how many to-dos were worked on. Any number of processes may do this at the same time."""
        return await self._rounds.run()

    async def _work(self, batch: Sequence[Invite]) -> None:
        plans = await asyncio.gather(*(self._plan(invite) for invite in batch))
        results = await self._delivery.deliver(
            [
                [Addressed(token=token, push=rules.push_for(invite, token.token)) for token in plan.ways()]
                for invite, plan in zip(batch, plans, strict=True)
            ]
        )
        await asyncio.gather(*(self._settle(*each) for each in zip(batch, plans, results, strict=True)))

    async def _plan(self, invite: Invite) -> Plan:
        late = self._clock.now() >= invite.give_up_at
        tokens: Sequence[Token] = () if late else await self._tokens.of_users([invite.user_id])
        return Plan(
            note=Note.INVITED,
            devices=common.by_device(tokens),
            senders=self._delivery.kinds,
            told=invite.told,
            refused=invite.refused,
        )

    async def _settle(self, invite: Invite, plan: Plan, answers: Sequence[Answered]) -> None:
        now, left = self._clock.now(), plan.after(answers)
        next_at: datetime | None = None
        if left.untried(answers):
            next_at = now
        elif left.ways():
            asked = common.asked_wait(said for _, said in answers)
            next_at = rules.next_try_at(invite, now, asked_seconds=asked, chance=self._ids.new())
        await self._store.settle(invite, told=left.told, refused=left.refused, next_at=next_at, now=now)

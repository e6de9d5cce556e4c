"""Messages as pushes: ``models.ports.MessagePusher`` and the work of the job that sends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from models.notify import rules as common
from models.notify.delivery import Addressed, Answered, Delivery
from models.notify.messages import rules
from models.notify.messages.bundle import Bundle, News
from models.notify.messages.store import BundleStore
from models.notify.plan import Plan
from models.notify.ports import Note, Token, Tokens
from models.notify.rounds import Rounds
from models.ports import Clock, Ids

# Rounds at the same time in one process.
ROUNDS_MAX = 4
# Expo takes 600 notifications a second from a project and refuses the rest, rings among them. Two processes at this
# pace leave it room for rings.
BUNDLES_PER_SECOND_MAX = 200

# A bundle as it may be told by now, None when nothing of it may: between the message and its push lie hours, perhaps.
Fresh = Callable[[Bundle], Awaitable[Bundle | None]]
Focused = Callable[[str, str], Awaitable[Collection[str]]]


async def nobody(user_id: str, conversation_id: str) -> Collection[str]:
    """Nobody is known to look at anything."""
    return ()


async def unchanged(bundle: Bundle) -> Bundle | None:
    """Where messages never change."""
    return bundle


class Messages:
    """One per process. ``focused`` answers which devices of a person show a conversation at this moment.

    ``fresh`` is set by the wiring, where the messages are made after this.
    """

    def __init__(
        self,
        *,
        store: BundleStore,
        tokens: Tokens,
        delivery: Delivery,
        focused: Focused,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._delivery = delivery
        self._focused = focused
        self._clock = clock
        self._ids = ids
        self._rounds = Rounds(
            claim=store.claim, work=self._work, most=ROUNDS_MAX, clock=clock, ids=ids, may=self._in_pace
        )
        self.fresh: Fresh = unchanged
        self._second: tuple[datetime, int] | None = None

    async def message(
        self,
        *,
        conversation_id: str,
        message_id: str,
        seq: int,
        sender: Mapping[str, Any],
        recipients: Collection[str],
        preview: str | None,
        title: str | None = None,
    ) -> None:
        """Keep a message to be told to those of the recipients who can be pushed to. Repeating it changes nothing.

        A message whose younger sibling was told already makes no notification of its own.
        """
        reachable = {token.user_id for token in await self._tokens.of_users(recipients)}
        if reachable:
            news = News(message_id=message_id, seq=seq, sender=sender, preview=preview, title=title)
            await self._store.add(
                news, conversation_id=conversation_id, user_ids=sorted(reachable), now=self._clock.now()
            )

    async def message_changed(
        self, *, user_ids: Collection[str], conversation_id: str, message_id: str
    ) -> None:
        """A message says something else by now, or nothing: what it said is kept here no longer."""
        await self._store.unsay(user_ids=user_ids, conversation_id=conversation_id, message_id=message_id)

    async def message_read(self, *, user_id: str, conversation_id: str, seq: int) -> None:
        """The user has read up to ``seq``: nothing of it is pushed any more, even if it is told to us only later."""
        if await self._tokens.of_users([user_id]):
            await self._store.read(
                user_id=user_id, conversation_id=conversation_id, seq=seq, now=self._clock.now()
            )

    async def run_due(self) -> int:
        """Send what is due; how many to-dos were worked on. Any number of processes may do this at the same time."""
        return await self._rounds.run()

    def _in_pace(self) -> bool:
        """Count one more in this second, unless it is full."""
        now = self._clock.now()
        began, count = self._second or (now, 0)
        if now - began >= timedelta(seconds=1):
            began, count = now, 0
        if count >= BUNDLES_PER_SECOND_MAX:
            return False
        self._second = (began, count + 1)
        return True

    async def _work(self, batch: Sequence[Bundle]) -> None:
        plans = await asyncio.gather(*(self._plan(bundle) for bundle in batch))
        results = await self._delivery.deliver(
            [
                [Addressed(token=token, push=rules.push_for(fresh, token.token)) for token in plan.ways()]
                for fresh, plan in plans
            ]
        )
        await asyncio.gather(
            *(
                self._settle(bundle, plan, answers)
                for bundle, (_, plan), answers in zip(batch, plans, results, strict=True)
            ),
        )

    async def _plan(self, bundle: Bundle) -> tuple[Bundle, Plan]:
        """What is told of a bundle by now, and to which devices: not to those that show its conversation.

        To none when it is too late, or when nothing of it may be told any more.
        """
        tokens: Sequence[Token] = ()
        looking: Collection[str] = ()
        fresh = None if rules.given_up(bundle, self._clock.now()) else await self.fresh(bundle)
        if fresh is not None:
            tokens, looking = await asyncio.gather(
                self._tokens.of_users([bundle.user_id]),
                self._focused(bundle.user_id, bundle.conversation_id),
            )
        return fresh or bundle, Plan(
            note=Note.MESSAGE,
            devices=common.by_device(tokens),
            senders=self._delivery.kinds,
            told=bundle.told.union(looking),
            refused=bundle.refused,
        )

    async def _settle(self, bundle: Bundle, plan: Plan, answers: Sequence[Answered]) -> None:
        now, left = self._clock.now(), plan.after(answers)
        if not left.ways():
            await self._store.finish(bundle, now=now)
            return
        next_at = now
        if not left.untried(answers):
            asked = common.asked_wait(said for _, said in answers)
            next_at = rules.next_try_at(bundle, now, asked_seconds=asked, chance=self._ids.new())
        await self._store.postpone(bundle, told=left.told, refused=left.refused, next_at=next_at, now=now)

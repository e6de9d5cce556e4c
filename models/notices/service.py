"""Telling people what happens to their money, by e-mail and SMS.

    ledger.store.beside = notices.with_entries      # kept in the transaction of the entry itself
    await notices.run_due()                         # the job

A fact is told once, as far as its carrier lets us: an SMS of which nobody knows whether it went out is looked for
before it is sent again, an e-mail goes again under the Message-ID that it had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from models.db import Session
from models.errors import Refusal
from models.ledger.journal import Entry, Wallet
from models.notices import rules
from models.notices.notice import SMS, Carrier, Fact, Letter, Outcome, Sent, Settings, Todo, What
from models.notices.store import NoticeStore
from models.notify.rounds import Rounds, each
from models.ports import Clock, Ids
from models.users.service import Users

# Nothing here is urgent: a slow carrier holds up what comes after it, and no more.
ROUNDS_MAX = 4


class Notices:
    """One per process. ``carriers`` by way; without any nothing is kept either. ``count`` hears of each outcome."""

    def __init__(
        self,
        *,
        store: NoticeStore,
        users: Users,
        carriers: Mapping[str, Carrier],
        clock: Clock,
        ids: Ids,
        count: Callable[[str, Outcome], None] = lambda way, outcome: None,
    ) -> None:
        self._store = store
        self._users = users
        self._carriers = carriers
        self._clock = clock
        self._ids = ids
        self._count = count
        self._rounds = Rounds(claim=store.claim, work=self._work, most=ROUNDS_MAX, clock=clock, ids=ids)

    # ----------------------------------------------------------------------------------------------------- what it is

    async def put(self, session: Session, *facts: Fact) -> None:
        """Keep facts in the transaction in which they happen."""
        if self._carriers:
            await self._store.put(facts, session)

    async def with_entries(self, entries: Sequence[Entry], session: Session) -> None:
        """Beside entries of the ledger, in their transaction."""
        facts = [fact for entry in entries for fact in rules.facts_of(entry)]
        if facts:
            await self.put(session, *facts)

    async def with_pin(self, user_id: str, at: datetime, session: Session) -> None:
        """Beside the change of a PIN, in its transaction."""
        fact = Fact(id=f"pin:{user_id}:{at.isoformat()}", user_id=user_id, what=What.PIN_CHANGED, at=at)
        await self.put(session, fact)

    def with_change(self, what: What) -> Callable[[str, datetime, Session], Awaitable[None]]:
        """What stands beside changes of that sort (whose, when), in their transactions."""

        async def beside(user_id: str, at: datetime, session: Session) -> None:
            fact = Fact(id=f"{what.value}:{user_id}:{at.isoformat()}", user_id=user_id, what=what, at=at)
            await self.put(session, fact)

        return beside

    async def with_freeze(self, wallet: Wallet, session: Session) -> None:
        """Beside the freezing of a wallet, in its transaction."""
        now = self._clock.now()
        fact = Fact(
            id=f"frozen:{wallet.key}:{now.isoformat()}", user_id=wallet.user_id, what=What.FROZEN, at=now
        )
        await self.put(session, fact)

    # ------------------------------------------------------------------------------------------------------- settings

    async def settings(self, user_id: str) -> Settings:
        """By which ways somebody wants to be told."""
        return await self._store.settings(user_id)

    async def change(self, user_id: str, *, email: bool | None, sms: bool | None) -> Settings:
        """Say by which ways; what is None stays as it was."""
        now = await self._store.settings(user_id)
        wanted = replace(
            now, email=now.email if email is None else email, sms=now.sms if sms is None else sms
        )
        await self._store.set_settings(user_id, wanted)
        return wanted

    # -------------------------------------------------------------------------------------------------------- sending

    async def run_due(self) -> int:
        """Send what is due; how many facts were worked on. Any number of processes may do this at the same time."""
        return await self._rounds.run() if self._carriers else 0

    async def _work(self, batch: Sequence[Todo]) -> None:
        await each(self._tell(todo) for todo in batch)

    async def _tell(self, todo: Todo) -> None:
        letters = await self._letters(todo)
        left = {way: one for way, one in letters.items() if way not in todo.done}
        if SMS in left and not todo.unsure and not await self._store.begin_unsure(todo):
            return  # another worker's by now
        outcomes = dict(
            zip(left, await asyncio.gather(*(self._send(todo, *one) for one in left.items())), strict=True)
        )
        for way, said in outcomes.items():
            self._count(way, said)
        now = self._clock.now()
        again = [said for said in outcomes.values() if said.sent is Sent.LATER]
        next_at = None
        if again:
            asked = max((said.retry_after_seconds or 0.0 for said in again), default=0.0)
            next_at = rules.next_try_at(
                todo.fact, todo.attempts, now, asked_seconds=asked, chance=self._ids.new()
            )
        await self._store.settle(
            todo,
            done=todo.done | {way for way, said in outcomes.items() if said.sent is not Sent.LATER},
            sent=[way for way, said in outcomes.items() if said.sent is Sent.OK],
            unsure=SMS in outcomes and outcomes[SMS].unsure,
            next_at=next_at,
            now=now,
        )

    async def _letters(self, todo: Todo) -> dict[str, Letter]:
        """The letters of a fact by way, to where its owner is reached now; none when the account is gone."""
        fact = todo.fact
        try:
            account = await self._users.account(fact.user_id)
        except Refusal:
            return {}
        wanted = rules.ways(account, await self._store.settings(fact.user_id), self._carriers)
        if SMS in wanted and SMS not in todo.done and not todo.unsure:
            since = self._clock.now() - timedelta(hours=24)
            if await self._store.sent_since(fact.user_id, SMS, since) >= rules.SMS_PER_DAY_MAX:
                del wanted[SMS]
        name = " ".join((account.profile.display_name or account.profile.username).split())
        return {way: rules.letter(fact, way, to=to, name=name) for way, to in wanted.items()}

    async def _send(self, todo: Todo, way: str, letter: Letter) -> Outcome:
        carrier = self._carriers[way]
        if way == SMS and todo.unsure:
            found = await carrier.carried(letter)
            if found is None:
                return Outcome(sent=Sent.LATER, reason="unsure", unsure=True)
            if found:
                return Outcome(sent=Sent.OK, reason="found")
        return await carrier.carry(letter)

"""What happens to a payout after it was asked for: it is submitted once, looked up until it is known, and told.

    work = Work(store=PayoutStore(db), ledger=ledger, gateways={…}, clock=clock, count=…)

It is written down as submitted before the gateway is asked; what is not known after that is looked up by the
reference. A process may die anywhere in between: whoever takes the payout up finds in it what may still be done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from models.db import Session, Stale
from models.errors import Refusal
from models.ledger.service import Ledger
from models.payments.gateway import Gateway, GatewayAway, GatewayNo, Notice
from models.payouts import rules
from models.payouts.payout import Payout, Stage
from models.payouts.store import PayoutStore
from models.ports import Clock
from models.trail.service import Note

log = structlog.get_logger(__name__)

# Payouts that one process has in hand at the same time.
AT_ONCE_MAX = 16
# Readings against other writers before it gives up as busy.
TRIES_MAX = 12

# Told where a payout is after a commit: at least once for each status, and perhaps again.
Announcer = Callable[[Payout], Awaitable[None]]
# Counts what has become of a payout: the gateway's name, and what.
Count = Callable[[str, str], None]


def count_nothing(gateway: str, what: str) -> None:
    """Counts nowhere."""


class Work:
    """One per process."""

    def __init__(
        self,
        *,
        store: PayoutStore,
        ledger: Ledger,
        gateways: Mapping[str, Gateway],
        clock: Clock,
        count: Count = count_nothing,
    ) -> None:
        self.store = store
        self._ledger = ledger
        self.gateways = gateways
        self._clock = clock
        self.count = count
        self._in_hand = 0
        self.announcers: list[Announcer] = []

    async def run_due(self) -> int:
        """Take up what is due until nothing is; how many that were. Any process may, at the same time."""
        done = 0
        while batch := await self._batch():
            self._in_hand += len(batch)
            try:
                await asyncio.gather(*(self._take_up(one) for one in batch))
            finally:
                self._in_hand -= len(batch)
            done += len(batch)
        return done

    async def _batch(self) -> list[Payout]:
        batch: list[Payout] = []
        while self._in_hand + len(batch) < AT_ONCE_MAX:
            now = self._clock.now()
            found = await self.store.claim(now, now + rules.LEASE)
            if found is None:
                break
            batch.append(found)
        return batch

    async def run_untold(self) -> int:
        """Tell owners what a process has written down and not lived to tell."""
        done = 0
        while True:
            now = self._clock.now()
            found = await self.store.claim_untold(now, now + rules.LEASE)
            if found is None:
                return done
            await self.announce(found)
            done += 1

    async def heard(self, gateway: str, notice: Notice) -> bool:
        """A gateway has told something of a payout: ask it. False when there is no such payout of this gateway."""
        found = await self.store.by_reference(notice.reference) if notice.reference else None
        if found is None and notice.gateway_reference:
            found = await self.store.by_gateway_reference(gateway, notice.gateway_reference)
        if found is None or found.gateway != gateway:
            return False
        return await self.look(found.reference)

    async def look(self, reference: str) -> bool:
        """Something is said to have happened to it: ask the gateway now. False: no payout of ours.

        When the gateway cannot be asked now, the job asks again.
        """
        payout = await self.store.hurry(reference, self._clock.now())
        if payout is None:
            return False
        if payout.stage is not Stage.WAITING:  # that one the job submits
            await self.look_at(payout)
        return True

    async def _take_up(self, payout: Payout) -> None:
        """Do what is to be done about a payout that this process has claimed. A fault of one is not the others'."""
        try:
            if payout.stage is Stage.WAITING:
                await self._submit(payout)
            else:
                await self.look_at(payout)
        except Exception as error:  # it is due again when the lease is over
            log.error("a payout could not be taken up", payout=payout.id, exc_info=error)

    async def _submit(self, payout: Payout) -> None:
        """The one place from which a payout is submitted. ``payout`` is at the version that was claimed."""
        gateway = self.gateways.get(payout.gateway)
        if gateway is None:
            await self.learn(payout.id, rules.Away(f"gateway {payout.gateway} is not configured"))
            return
        if payout.heard:
            payout = await self.look_at(payout)
            if payout.stage is not Stage.WAITING or payout.heard:
                return
        wallet = await self._ledger.wallet(payout.user_id, payout.currency)
        if wallet is None or wallet.frozen:
            await self.learn(payout.id, rules.Away("the wallet is frozen"))
            return
        begun = rules.step(payout, rules.Begun(), self._clock.now())
        try:
            await self.store.swap(payout, begun)
        except Stale:
            return  # somebody else has it in hand
        assert begun.look_at is not None, "the lease"
        number = begun.submissions
        if self._clock.now() >= begun.look_at:
            # This process stood still: the others look for it by now, and must not look in vain for what comes late.
            await self.learn(begun.id, rules.Unsent(number, "stood still"))
            return
        learned: rules.Learned
        try:
            learned = rules.Seen(await gateway.pay_out(rules.ask(begun)))
        except GatewayAway as away:
            said = f"away: {away}"
            learned = rules.Lost(number, said) if away.sent else rules.Unsent(number, said)
        except GatewayNo as no:
            log.warning("a gateway refuses a payout", payout=begun.id, code=no.code, said=no.said)
            refused = rules.Refused(number, no.code, later=no.later)
            learned = rules.Lost(number, "taken before") if no.taken else refused
        except Exception as error:  # whatever an adapter does: nobody knows what became of it
            log.error("a payout was submitted, and the answer is lost", payout=begun.id, exc_info=error)
            learned = rules.Lost(number, type(error).__name__)
        await self.learn(begun.id, learned)

    async def look_at(self, payout: Payout) -> Payout:
        """Ask the gateway how it stands, and go by that."""
        return await self.learn(payout.id, await self.asked(payout))

    async def asked(self, payout: Payout) -> rules.Learned:
        gateway = self.gateways.get(payout.gateway)
        if gateway is None:
            return rules.Away(f"gateway {payout.gateway} is not configured")
        try:
            seen = await gateway.payout_status(payout.reference, payout.gateway_reference)
        except GatewayAway as away:
            return rules.Away(f"away: {away}")
        except GatewayNo as no:
            return rules.Away(f"refused to say: {no.code}")
        return rules.NotKnown() if seen is None else rules.Seen(seen)

    async def learn(self, payout_id: str, learned: rules.Learned, note: Note | None = None) -> Payout:
        """Change a payout by what was learned, with the entry that belongs to it; the payout after it.

        ``note`` is the row of the trail of whoever decided it: it joins the transaction of a change.
        """
        for _ in range(TRIES_MAX):
            before, now = await self.store.find(payout_id), self._clock.now()
            if before is None:
                raise Refusal("PAYOUT_UNKNOWN")
            after = rules.step(before, learned, now)
            if after is before:
                return before
            try:
                await self._write(before, after, note)
            except _Moved:
                continue
            await self._note(before, after)
            return after
        raise Refusal("SERVER_BUSY")

    async def _write(self, before: Payout, after: Payout, note: Note | None = None) -> None:
        """Raises ``_Moved`` when somebody else was first."""
        entry = rules.entry_of(before, after, self._clock.now())

        async def also(session: Session) -> None:
            try:
                await self.store.swap(before, after, session)
            except Stale:
                raise _Moved from None  # not the ledger's: it would read its wallets again
            if note is not None:
                await note.also(session)

        if entry is None:
            try:
                if note is None:
                    await self.store.swap(before, after)
                else:
                    await self.store.swap_with(before, after, note.also)
            except Stale:
                raise _Moved from None
        elif (await self._ledger.post([after.wallet], lambda _: [entry], also=also)).again:
            raise _Moved

    async def _note(self, before: Payout, after: Payout) -> None:
        if after.stage is not before.stage:
            self.count(after.gateway, after.stage.value)
        if after.review is not None and after.review != before.review:
            self.count(after.gateway, "review")
            log.error("a payout needs a person", payout=after.id, said=after.review, word=after.word)
        if after.stage is Stage.OTP and before.stage is not Stage.OTP:
            log.warning("a payout waits for the operator's one-time password", payout=after.id)
        if after.tell_at is not None:
            await self.announce(after)

    async def announce(self, payout: Payout) -> None:
        """Tell its owner where it is. What fails is made good by the job."""
        try:
            for announcer in self.announcers:
                await announcer(payout)
            await self.store.told(payout)
        except Exception as error:
            log.error("a payout was not told", payout=payout.id, exc_info=error)


class _Moved(Exception):
    """Somebody else has changed the payout meanwhile."""

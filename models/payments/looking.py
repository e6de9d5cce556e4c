"""Asking a gateway how a payment stands, and writing what follows.

The one place where a payment's money is credited or taken back. Everybody who wants to know (the client, a
notification, the reconciler) comes by here, at once and in any process: the payment's version lets one of them write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from models.db import Session
from models.errors import Refusal
from models.ledger.journal import Entry, Wallet
from models.ledger.service import Ledger
from models.payments import rules
from models.payments.gateway import Gateway, GatewayAway, GatewayNo, PaymentSeen
from models.payments.payment import Payment, Status
from models.payments.store import PaymentStore
from models.ports import Clock

log = structlog.get_logger(__name__)

# Readings of a payment against writers in other processes before it gives up as busy.
TRIES_MAX = 12
# A payment that changed and whose owner was not told by whoever changed it for so long.
TELL_AFTER_SECONDS = 5
# Payments that one turn of that job tells.
TOLD_MAX = 100

# Told of what happens, for the metrics: the gateway, and what.
Count = Callable[[str, str], None]


class Announcer(Protocol):
    """Who hears of a payment that has changed. It may hear of one change again, and then tells it no second time."""

    async def payment(self, payment: Payment) -> None:
        """It is so now."""
        ...


class Moved(Exception):
    """The payment has changed since it was read: read again."""


class Looking:
    """One per process."""

    def __init__(
        self,
        *,
        gateways: Mapping[str, Gateway],
        store: PaymentStore,
        ledger: Ledger,
        clock: Clock,
        count: Count,
    ) -> None:
        self._gateways = gateways
        self.store = store
        self._ledger = ledger
        self._clock = clock
        self._count = count
        self.announcers: list[Announcer] = []

    async def look(self, payment: Payment, *, tries: int | None = None) -> Payment:
        """Ask the gateway, write what follows, and answer how the payment is now.

        ``tries``: how often it was asked on our own account, this time included. Raises ``GatewayAway`` also for a no.
        """
        gateway = self._gateways.get(payment.gateway)
        if gateway is None:
            raise GatewayAway("not configured", sent=False)
        seen: dict[str, PaymentSeen] = {}
        for one in payment.asked:
            try:
                found = await gateway.query(one.reference, one.gateway_reference)
            except GatewayNo as no:
                raise GatewayAway(f"refused: {no.code}") from no
            if found is None:
                continue
            if found.reference != one.reference:
                log.error(
                    "a gateway answered about another payment", asked=one.reference, got=found.reference
                )
                continue
            seen[one.reference] = found
        return await self._apply(payment.id, seen, tries)

    async def _apply(self, payment_id: str, seen: Mapping[str, PaymentSeen], tries: int | None) -> Payment:
        for _ in range(TRIES_MAX):
            payment = await self.store.find(payment_id)
            assert payment is not None, "payments are never deleted"
            now = self._clock.now()
            step = rules.step(payment, seen, now)
            after = step.payment
            if rules.given_up(after, now):
                after = replace(after, status=Status.CANCELLED)
            asked = payment.tries if tries is None else tries
            at = rules.next_look(after, asked, now)
            if after == payment:
                if tries is not None:
                    await self.store.look_again(payment.id, at, asked)
                return payment
            after = replace(after, version=payment.version + 1, look_at=at, tries=asked)
            try:
                await self._write(payment, after, step, now)
            except Moved:
                continue
            except Refusal as refusal:
                if refusal.code != "AMOUNT_TOO_LARGE":
                    raise
                await self.review(payment, "paid, and more than the wallet can hold")
                await self.store.look_again(payment.id, now + rules.back_off(asked), asked)
                return await self.store.find(payment.id) or payment
            if after.review and after.review != payment.review:
                self._count(payment.gateway, "review")
                log.error("a payment needs a person", reference=payment.reference, review=after.review)
            await self.tell(after)
            return after
        raise Refusal("SERVER_BUSY")

    async def _write(self, before: Payment, after: Payment, step: rules.Step, now: datetime) -> None:
        """Post what was credited and taken back together with the swap. Raises ``Moved``."""

        async def swap(session: Session | None = None) -> None:
            if not await self.store.swap(before, after, untold=now, session=session):
                raise Moved

        if not step.credit_minor and not step.reverse_minor:
            await swap()
            return
        wallet = await self._ledger.ensure(after.user_id, after.currency)
        if step.punish and not wallet.frozen:
            await self._ledger.freeze(after.user_id, frozen=True, currency=after.currency)

        def plan(wallets: Mapping[str, Wallet]) -> Sequence[Entry]:
            mine, entries = wallets[wallet.key], []
            if step.credit_minor:
                entries.append(
                    rules.credit(mine, after, number=after.credits, amount_minor=step.credit_minor, now=now)
                )
            if step.reverse_minor:
                entries.append(
                    rules.reversal(
                        mine,
                        after,
                        number=after.reversals,
                        amount_minor=step.reverse_minor,
                        more=step.credit_minor,
                        now=now,
                    )
                )
            return entries

        posted = await self._ledger.post([wallet.key], plan, also=swap)
        if posted.again:
            # Another has written the same, or the journal and the payment disagree.
            found = await self.store.find(before.id)
            if found is not None and found.version == before.version:
                await self.review(before, "its entry is in the journal, and the payment does not know of it")
                raise Refusal("SERVER_BUSY")
            raise Moved
        for what, amount in (("credited", step.credit_minor), ("reversed", step.reverse_minor)):
            if amount:
                self._count(after.gateway, what)
                log.info(
                    "a payment was credited" if what == "credited" else "a payment was reversed",
                    reference=after.reference,
                    minor=amount,
                    of=after.currency,
                )

    async def review(self, payment: Payment, said: str) -> None:
        """Have a person look at it."""
        if payment.review != said:
            self._count(payment.gateway, "review")
            log.error("a payment needs a person", reference=payment.reference, review=said)
            await self.store.swap(payment, replace(payment, review=said, version=payment.version + 1))

    # -------------------------------------------------------------------------------------------------------- telling

    async def tell(self, payment: Payment) -> None:
        """Tell whoever is to hear of a change that was written; what fails is told by the job."""
        try:
            for announcer in self.announcers:
                await announcer.payment(payment)
            await self.store.told(payment)
        except Exception as error:
            log.error("a change of a payment was not told", exc_info=error)

    async def tell_missed(self) -> None:
        """Tell what was written by a process that died before it told."""
        before = self._clock.now() - timedelta(seconds=TELL_AFTER_SECONDS)
        for payment in await self.store.untold(before, TOLD_MAX):
            await self.tell(payment)

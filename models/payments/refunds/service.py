"""Refunds: money of a payment given back to who paid it, through the gateway that collected it.

The wallet is debited in the transaction that keeps the refund, so the same money cannot be spent or refunded twice.
The gateway is asked once. Whatever is not a clear answer is looked up by our reference, for as long as it takes; a
clear no gives the money back to the wallet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog

from models.db import Session
from models.errors import Refusal
from models.ledger.journal import Entry, Wallet
from models.ledger.service import Ledger
from models.payments import rules
from models.payments.gateway import (
    Gateway,
    GatewayAway,
    GatewayNo,
    Notice,
    RefundAsk,
    RefundSeen,
    RefundState,
)
from models.payments.looking import TRIES_MAX, Count, Looking, Moved
from models.payments.payment import OPEN_REFUNDS, Asked, Payment, Refund, RefundStage
from models.payments.refunds.store import RefundStore
from models.payments.rounds import work_off
from models.ports import Clock, Ids
from models.trail.service import Note

log = structlog.get_logger(__name__)

AT_ONCE = 4
# One that was taken to be worked on is for so long its worker's; longer than any gateway's adapter waits.
LEASE_SECONDS = 120
# How often the gateway may say that it knows of no such refund before a person has to look, about a day.
UNKNOWN_TRIES = 24


class Refunds:
    """One per process."""

    def __init__(
        self,
        *,
        looking: Looking,
        gateways: Mapping[str, Gateway],
        store: RefundStore,
        ledger: Ledger,
        clock: Clock,
        ids: Ids,
        count: Count,
    ) -> None:
        self._looking = looking
        self._payments = looking.store
        self._gateways = gateways
        self.store = store
        self._ledger = ledger
        self._clock = clock
        self._ids = ids
        self._count = count

    async def begin(
        self,
        reference: str,
        *,
        amount_minor: int | None,
        reason: str,
        key: str | None = None,
        note: Note | None = None,
    ) -> Refund:
        """Take the money from the wallet and keep the refund; ``work`` asks the gateway. Without an amount: the rest.

        The same ``key`` for the same payment is the same refund, as it is then. ``note`` is the row of the trail, which
        joins the transaction. Refuses with ``PAYMENT_UNKNOWN``,
        ``REFUND_TOO_LARGE`` (``leftMinor``), ``INSUFFICIENT_FUNDS`` (it was spent), ``GATEWAY_UNAVAILABLE``,
        ``IDEMPOTENCY_MISMATCH`` (another amount under this key) and ``SERVER_BUSY``.
        """
        for _ in range(TRIES_MAX):
            payment = await self._payments.by_reference(reference)
            if payment is None:
                raise Refusal("PAYMENT_UNKNOWN")
            if payment.gateway not in self._gateways:
                raise Refusal("GATEWAY_UNAVAILABLE")
            refund_id = f"ref-{_digest(payment.id, key) if key else self._ids.new()}"
            known = await self.store.find(refund_id) if key else None
            if known is not None:
                if amount_minor not in (None, known.amount_minor):
                    raise Refusal("IDEMPOTENCY_MISMATCH")
                return known
            try:
                return await self._begin(refund_id, payment, amount_minor, reason, note)
            except Moved:
                continue
        raise Refusal("SERVER_BUSY")

    async def _begin(
        self,
        refund_id: str,
        payment: Payment,
        amount_minor: int | None,
        reason: str,
        note: Note | None,
    ) -> Refund:
        # Of several checkouts the one of which the most is left; there is hardly ever a second.
        paid = max(payment.asked, key=lambda one: one.paid_minor - one.reversed_minor)
        left = paid.paid_minor - paid.reversed_minor
        minor = left if amount_minor is None else amount_minor
        if not 0 < minor <= left:
            raise Refusal("REFUND_TOO_LARGE", leftMinor=left)
        now = self._clock.now()
        refund = Refund(
            id=refund_id,
            payment_id=payment.id,
            gateway=payment.gateway,
            asked=paid.reference,
            amount_minor=minor,
            currency=payment.currency,
            reason=reason,
            number=payment.reversals + 1,
            stage=RefundStage.WAITING,
            created_at=now,
            look_at=now,
        )
        after = replace(
            payment,
            asked=_moved(payment, paid.reference, minor),
            reversed_minor=payment.reversed_minor + minor,
            refunding_minor=payment.refunding_minor + minor,
            reversals=refund.number,
            version=payment.version + 1,
        )
        wallet = await self._ledger.ensure(payment.user_id, payment.currency)

        def plan(wallets: Mapping[str, Wallet]) -> Sequence[Entry]:
            return [
                rules.reversal(
                    wallets[wallet.key],
                    payment,
                    number=refund.number,
                    amount_minor=minor,
                    now=now,
                    owing=False,
                )
            ]

        async def also(session: Session) -> None:
            if not await self._payments.swap(payment, after, untold=now, session=session):
                raise Moved
            await self.store.add(refund, session)
            if note is not None:
                note.add(amount_minor=minor, currency=payment.currency, refund=refund_id)
                await note.also(session)

        posted = await self._ledger.post([wallet.key], plan, also=also)
        if posted.again:
            raise Moved
        self._count(payment.gateway, "refund_begun")
        await self._looking.tell(after)
        return refund

    # ------------------------------------------------------------------------------------------------ at the gateway

    async def run(self) -> int:
        """Work on the refunds that are due, until none is; how many that were."""
        return await work_off(self._claim, self._work, AT_ONCE)

    async def _claim(self) -> Refund | None:
        now = self._clock.now()
        return await self.store.claim(now, now + timedelta(seconds=LEASE_SECONDS))

    async def _work(self, refund: Refund) -> None:
        await self.work(refund)

    async def heard(self, gateway: str, notice: Notice) -> bool:
        """A gateway has told something of a refund: it is asked soon. False when it is none of ours.

        One that was done is asked for now: the payer's bank may send it back days later. Raises ``GatewayAway``.
        """
        refund = await self.store.find(notice.reference) if notice.reference else None
        if refund is None or refund.gateway != gateway:
            return False
        if refund.stage is RefundStage.DONE:
            await self._came_back(refund)
            return True
        await self.store.look_by(refund.id, self._clock.now())
        return True

    async def work(self, refund: Refund) -> Refund:
        """One step on: ask the gateway to do it, or how it stands. The refund after it."""
        gateway = self._gateways.get(refund.gateway)
        payment = await self._payments.find(refund.payment_id)
        assert payment is not None, "payments are never deleted"
        if gateway is not None and refund.stage in OPEN_REFUNDS:
            ask = _ask(refund, payment)
            if refund.stage is RefundStage.WAITING:
                # From here on it may have been asked for, whatever happens.
                if not await self.store.move(refund, RefundStage.ASKING):
                    return await self.store.find(refund.id) or refund
                await self._submit(gateway, replace(refund, stage=RefundStage.ASKING), ask)
            else:
                await self._look(gateway, refund, ask)
        return await self.store.find(refund.id) or refund

    async def _submit(self, gateway: Gateway, refund: Refund, ask: RefundAsk) -> None:
        try:
            seen = await gateway.refund(ask)
        except GatewayNo as no:
            if no.taken:
                await self._later(refund, RefundStage.ASKING)
            elif no.later:
                await self._later(refund, RefundStage.WAITING)
            else:
                await self._fail(refund, no.code)
        except GatewayAway as away:
            log.warning("a gateway is away", gateway=gateway.name, said=str(away), sent=away.sent)
            await self._later(refund, RefundStage.ASKING if away.sent else RefundStage.WAITING)
        else:
            await self._seen(refund, seen)

    async def _look(self, gateway: Gateway, refund: Refund, ask: RefundAsk) -> None:
        try:
            seen = await gateway.refund_status(ask, refund.gateway_reference)
        except (GatewayAway, GatewayNo) as fault:
            log.warning("a gateway does not say how a refund stands", gateway=gateway.name, said=str(fault))
            await self._later(refund, refund.stage)
            return
        if seen is not None:
            await self._seen(refund, seen)
            return
        review = refund.review
        if refund.tries >= UNKNOWN_TRIES and review is None:
            review = (
                "the gateway knows of no such refund; it was sent once, and the money is not in the wallet"
            )
            self._count(refund.gateway, "review")
            log.error("a refund needs a person", refund=refund.id)
        await self._later(refund, refund.stage, review=review)

    async def _came_back(self, refund: Refund) -> None:
        gateway, payment = self._gateways.get(refund.gateway), await self._payments.find(refund.payment_id)
        if gateway is None or payment is None:
            return
        try:
            seen = await gateway.refund_status(_ask(refund, payment), refund.gateway_reference)
        except GatewayNo as no:
            raise GatewayAway(f"refused: {no.code}") from no
        if seen is not None and seen.state is RefundState.FAILED:
            log.error("a refund that was done has come back", refund=refund.id, word=seen.word)
            await self._fail(refund, seen.word)

    async def _seen(self, refund: Refund, seen: RefundSeen) -> None:
        if seen.state is RefundState.DONE:
            await self._end(refund, RefundStage.DONE, seen.word)
        elif seen.state is RefundState.FAILED:
            await self._fail(refund, seen.word)
        else:
            theirs = seen.gateway_reference or refund.gateway_reference
            await self._later(refund, RefundStage.PENDING, gateway_reference=theirs, word=seen.word)

    async def _later(self, refund: Refund, stage: RefundStage, **changes: Any) -> None:
        at = self._clock.now() + rules.back_off(refund.tries)
        await self.store.move(refund, stage, look_at=at, tries=refund.tries + 1, **changes)

    async def settle(self, refund_id: str, *, done: bool) -> Refund:
        """What a person has found out of a refund that needs one: it was done, or it never will be.

        Refuses with ``PAYMENT_UNKNOWN`` unless it is one of those.
        """
        refund = await self.store.find(refund_id)
        if refund is None or refund.review is None or refund.stage not in OPEN_REFUNDS:
            raise Refusal("PAYMENT_UNKNOWN")
        await self._end(refund, RefundStage.DONE if done else RefundStage.FAILED, "settled by hand")
        return await self.store.find(refund.id) or refund

    async def _fail(self, refund: Refund, word: str) -> None:
        """It was certainly not done: the wallet has its money again."""
        await self._end(refund, RefundStage.FAILED, word)

    async def _end(self, refund: Refund, stage: RefundStage, word: str) -> None:
        for _ in range(TRIES_MAX):
            payment = await self._payments.find(refund.payment_id)
            assert payment is not None, "payments are never deleted"
            try:
                await self._close(payment, refund, stage, word)
            except Moved:
                fresh = await self.store.find(refund.id)
                if fresh is None or fresh.stage is not refund.stage:
                    return  # another has closed it
                continue
            return
        raise Refusal("SERVER_BUSY")

    async def _close(self, payment: Payment, refund: Refund, stage: RefundStage, word: str) -> None:
        now, failed = self._clock.now(), stage is RefundStage.FAILED
        under_way = refund.amount_minor if refund.stage in OPEN_REFUNDS else 0
        after = replace(
            payment,
            refunding_minor=payment.refunding_minor - under_way,
            version=payment.version + 1,
        )
        if failed:
            after = replace(
                after,
                asked=_moved(after, refund.asked, -refund.amount_minor),
                reversed_minor=after.reversed_minor - refund.amount_minor,
            )
        after = replace(after, status=rules.settled(after))

        async def also(session: Session) -> None:
            if not await self.store.move(
                refund, stage, session=session, look_at=None, word=word, review=None
            ):
                raise Moved
            if not await self._payments.swap(payment, after, untold=now, session=session):
                raise Moved

        wallet = await self._ledger.ensure(payment.user_id, payment.currency)
        taken = await self._ledger.store.entry(rules.reversal_id(payment, refund.number))
        assert taken is not None, "kept together with the refund"
        entries = [rules.given_back(taken.entry, now)] if failed else []
        if (await self._ledger.post([wallet.key], lambda _: entries, also=also)).again:
            raise Moved
        self._count(refund.gateway, f"refund_{stage.value}")
        log.info("a refund came to its end", refund=refund.id, stage=stage.value, word=word)
        await self._looking.tell(after)


def _digest(payment_id: str, key: str) -> str:
    return hashlib.sha256(f"{payment_id} {key}".encode()).hexdigest()[:32]


def _ask(refund: Refund, payment: Payment) -> RefundAsk:
    asked = next(one for one in payment.asked if one.reference == refund.asked)
    return RefundAsk(
        reference=refund.id,
        payment_reference=asked.reference,
        payment_gateway_reference=asked.gateway_reference,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        reason=refund.reason,
    )


def _moved(payment: Payment, reference: str, minor: int) -> tuple[Asked, ...]:
    """The checkouts, of one of which so much more is taken back."""
    return tuple(
        replace(one, reversed_minor=one.reversed_minor + minor) if one.reference == reference else one
        for one in payment.asked
    )

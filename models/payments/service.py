"""Verbs of payments: money on its way in through a gateway.

    payments = Payments(looking=looking, gateways=gateways, default="monnify", ledger=ledger, wallets=wallets,
                        users=users, clock=clock, ids=ids, return_url=lambda reference: …)

A payment is kept before its gateway is asked, under a reference that is made of the client's key: whatever dies or is
repeated on the way, there is one payment, and by its reference the gateway says how it stands. Nobody else is believed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

import structlog

from models.db import DuplicateKeyError, Session
from models.errors import Refusal
from models.ledger.journal import Entry, Wallet
from models.ledger.service import Ledger
from models.money import AMOUNT_MAX
from models.payments import rules
from models.payments.gateway import CardToken, Checkout, Gateway, GatewayAway, GatewayNo, Naming, Notice
from models.payments.looking import TRIES_MAX, Count, Looking
from models.payments.payment import WALLET, Asked, Payment, Status
from models.payments.rounds import work_off
from models.payments.store import PaymentStore
from models.ports import Clock, Ids
from models.users.service import Users
from models.wallet.rules import DEPOSIT_MINOR_MAX, PAID_INTO, Amount
from models.wallet.service import Wallets

log = structlog.get_logger(__name__)

# Payments that one process looks at at the same time, and one that was taken to be looked at is for so long its own.
LOOKS_AT_ONCE = 8
LOOK_SECONDS = 120
# Payments that one person may begin within this time and leave unpaid.
OPEN_MAX = 50
OPEN_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Paid:
    """A payment and the wallet that it goes into, as they are now."""

    payment: Payment
    wallet: Wallet


class Payments:
    """One per process."""

    def __init__(
        self,
        *,
        looking: Looking,
        gateways: Mapping[str, Gateway],
        default: str | None,
        ledger: Ledger,
        wallets: Wallets,
        users: Users,
        clock: Clock,
        ids: Ids,
        return_url: Callable[[str], str],
        count: Count,
    ) -> None:
        self.looking = looking
        self.gateways = gateways
        self._default = default
        self.store: PaymentStore = looking.store
        self._ledger = ledger
        self._wallets = wallets
        self._users = users
        self._clock = clock
        self._ids = ids
        self._return_url = return_url
        self._count = count

    # ------------------------------------------------------------------------------------------------------- money in

    def gateway(self, name: str | None, currency: str) -> Gateway:
        """A gateway that takes a currency: by its name, without one the default, else any other.

        Refuses with ``GATEWAY_UNAVAILABLE`` (``currency``, when it is for want of that).
        """
        if name is not None and name not in self.gateways:
            raise Refusal("GATEWAY_UNAVAILABLE")
        names = [name] if name is not None else [self._default, *self.gateways]
        for one in names:
            gateway = self.gateways.get(one or "")
            if gateway is not None and currency in gateway.terms.currencies:
                return gateway
        raise Refusal("GATEWAY_UNAVAILABLE", currency=currency)

    async def deposit(
        self,
        user_id: str,
        *,
        key: str | None,
        amount: Amount,
        currency: str | None,
        gateway: str | None,
        into: str,
    ) -> Payment:
        """A payment to be paid at its ``checkout_url``. The same ``key`` again is the same payment, as it is then.

        Refuses with ``GATEWAY_UNAVAILABLE``, ``GATEWAY_AWAY`` (nothing was charged; the same key tries again),
        ``GATEWAY_REFUSED``, ``WALLET_UNKNOWN``, ``CURRENCY_MISMATCH``, ``VALIDATION_FAILED``, ``AMOUNT_TOO_LARGE``,
        ``IDEMPOTENCY_MISMATCH``, ``IDEMPOTENCY_IN_FLIGHT`` and ``RATE_LIMITED`` (too many were begun and not paid).
        """
        if not self.gateways:
            raise Refusal("GATEWAY_UNAVAILABLE")
        reference = rules.reference_of(user_id, key or self._ids.new())
        known = await self.store.by_reference(reference)
        mine = await self._wallets.wallet(user_id, currency)
        if known is not None:
            minor = amount.minor_in(mine.currency)
            return await self._again(known, minor, mine.currency, gateway, into)
        chosen = self.gateway(gateway, mine.currency)
        least = chosen.terms.least_minor.get(mine.currency, 1)
        minor = amount.minor_in(mine.currency, DEPOSIT_MINOR_MAX, least=least)
        if mine.balance(PAID_INTO[into]) + minor > AMOUNT_MAX:
            raise Refusal("AMOUNT_TOO_LARGE")
        now = self._clock.now()
        await self._refuse_too_many(user_id, now)
        payment = Payment(
            id=self._ids.new(),
            reference=reference,
            user_id=user_id,
            gateway=chosen.name,
            amount_minor=minor,
            currency=mine.currency,
            into=into,
            status=Status.PENDING,
            checkout_url=None,
            created_at=now,
            asked=(Asked(reference=reference),),
            look_at=now + rules.back_off(0),
        )
        until = now + timedelta(seconds=rules.OPENING_SECONDS)
        try:
            await self.store.add(payment, opening_until=until)
        except DuplicateKeyError:
            there = await self.store.by_reference(reference)
            assert there is not None, "it stood in the way"
            return await self._again(there, minor, mine.currency, gateway, into)
        self._count(chosen.name, "begun")
        return await self._open(payment, chosen)

    async def _refuse_too_many(self, user_id: str, now: datetime) -> None:
        """Each that stays unpaid is asked for many times: nobody begins more than anybody means."""
        newest = await self.store.of_user(user_id, before_id=None, most=OPEN_MAX, besides=WALLET)
        if len(newest) < OPEN_MAX or any(one.paid_minor for one in newest):
            return
        free_at = newest[-1].created_at + timedelta(seconds=OPEN_SECONDS)
        if now < free_at:
            raise Refusal("RATE_LIMITED", retry_after_ms=(free_at - now) // timedelta(milliseconds=1))

    async def _again(
        self, payment: Payment, minor: int, currency: str, gateway: str | None, into: str
    ) -> Payment:
        """The payment of a key that was used before: as it is, or with its checkout opened now."""
        same = (payment.amount_minor, payment.currency, payment.into) == (minor, currency, into)
        if not same or payment.gateway == WALLET or gateway not in (None, payment.gateway):
            raise Refusal("IDEMPOTENCY_MISMATCH")
        if payment.checkout_url is not None:
            return payment
        if payment.status is Status.FAILED:
            raise Refusal("GATEWAY_REFUSED")
        if payment.status is not Status.PENDING:
            return payment
        chosen = self.gateways.get(payment.gateway)
        if chosen is None:
            raise Refusal("GATEWAY_UNAVAILABLE")
        now = self._clock.now()
        until = now + timedelta(seconds=rules.OPENING_SECONDS)
        mine = await self.store.open(payment.id, now, until)
        if mine is not None:
            return await self._open(mine, chosen)
        fresh = await self.store.find(payment.id)
        if fresh is None or fresh.checkout_url is None:
            raise Refusal("IDEMPOTENCY_IN_FLIGHT")
        return fresh

    async def _open(self, payment: Payment, gateway: Gateway) -> Payment:
        """Open the checkout; whoever calls has the right to."""
        account = await self._users.account(payment.user_id)
        while True:
            asked = payment.asked[-1]
            ask = Checkout(
                reference=asked.reference,
                amount_minor=payment.amount_minor,
                currency=payment.currency,
                payer_id=payment.user_id,
                payer_name=account.profile.display_name,
                payer_email=account.email,
                description="Call credits" if payment.into == "call_credits" else "Wallet top-up",
                return_url=self._return_url(payment.reference),
            )
            try:
                opened = await gateway.checkout(ask)
            except GatewayNo as no:
                log.warning("a checkout was not opened", gateway=gateway.name, code=no.code, said=no.said)
                if no.taken and len(payment.asked) < rules.CHECKOUTS_MAX:
                    # An earlier try had arrived and its answer was lost: nobody has its address.
                    payment = await self._change(
                        payment.id, lambda now: replace(now, asked=(*now.asked, rules.another(now)))
                    )
                    continue
                if no.taken or no.later:
                    raise await self._closed(payment, "GATEWAY_AWAY") from no
                await self._change(payment.id, partial(rules.refused, word=no.code))
                raise await self._closed(payment, "GATEWAY_REFUSED") from no
            except GatewayAway as away:
                log.warning("a gateway is away", gateway=gateway.name, said=str(away), sent=away.sent)
                raise await self._closed(payment, "GATEWAY_AWAY") from away
            payment = await self._change(payment.id, partial(rules.opened, asked=asked, at=opened))
            self._count(gateway.name, "opened")
            return payment

    async def _closed(self, payment: Payment, code: str) -> Refusal:
        """Give the right to open back: the refusal to raise."""
        self._count(payment.gateway, code.removeprefix("GATEWAY_").lower())
        await self.store.opened(payment.id)
        return Refusal(code)

    async def _change(self, payment_id: str, change: Callable[[Payment], Payment]) -> Payment:
        """Write a change of a payment that moves no money, whoever else changes it meanwhile."""
        for _ in range(TRIES_MAX):
            payment = await self.store.find(payment_id)
            assert payment is not None, "payments are never deleted"
            after = replace(change(payment), version=payment.version + 1)
            if await self.store.swap(payment, after):
                return after
        raise Refusal("SERVER_BUSY")

    async def buy(
        self,
        user_id: str,
        *,
        key: str | None,
        amount: Amount,
        currency: str | None,
        method: str | None,
    ) -> Payment:
        """Call credits: through a gateway, as ``deposit``, or with ``wallet`` from one's own primary balance, at once.

        The latter needs a ``key``, and refuses with ``IDEMPOTENCY_KEY_REQUIRED``, ``IDEMPOTENCY_MISMATCH``,
        ``WALLET_UNKNOWN``, ``CURRENCY_MISMATCH``, ``WALLET_FROZEN``, ``INSUFFICIENT_FUNDS`` and ``VALIDATION_FAILED``.
        """
        if method != WALLET:
            return await self.deposit(
                user_id, key=key, amount=amount, currency=currency, gateway=method, into="call_credits"
            )
        if not key:
            raise Refusal("IDEMPOTENCY_KEY_REQUIRED")
        mine = await self._wallets.wallet(user_id, currency)
        minor, now = amount.minor_in(mine.currency), self._clock.now()
        payment = Payment(
            id=self._ids.new(),
            reference=rules.reference_of(user_id, key),
            user_id=user_id,
            gateway=WALLET,
            amount_minor=minor,
            currency=mine.currency,
            into="call_credits",
            status=Status.COMPLETED,
            checkout_url=None,
            created_at=now,
            paid_minor=minor,
            credits=1,
            completed_at=now,
        )

        def plan(wallets: Mapping[str, Wallet]) -> Sequence[Entry]:
            if wallets[mine.key].frozen:
                raise Refusal("WALLET_FROZEN")
            if (left := wallets[mine.key].primary) < minor:
                raise Refusal(
                    "INSUFFICIENT_FUNDS", requiredMinor=minor, availableMinor=left, currency=mine.currency
                )
            return [rules.bought(wallets[mine.key], payment, key=key, now=now)]

        async def also(session: Session) -> None:
            await self.store.add(payment, session, untold=now)

        known = await self.store.by_reference(payment.reference)
        if known is None:
            try:
                posted = await self._ledger.post([mine.key], plan, also=also)
            except DuplicateKeyError:  # this key's payment came by a gateway meanwhile
                raise Refusal("IDEMPOTENCY_MISMATCH") from None
            if not posted.again:
                self._count(WALLET, "credited")
                await self.looking.tell(payment)
                return payment
            known = await self.store.by_reference(payment.reference)
            assert known is not None, "kept together with its entry"
        if (known.gateway, known.amount_minor, known.currency) != (WALLET, minor, mine.currency):
            raise Refusal("IDEMPOTENCY_MISMATCH")
        return known

    # -------------------------------------------------------------------------------------------------------- reading

    async def payment(self, user_id: str, payment_id: str) -> Payment:
        """One of one's own payments. ``PAYMENT_UNKNOWN`` also when it is another's."""
        found = await self.store.find(payment_id)
        if found is None or found.user_id != user_id:
            raise Refusal("PAYMENT_UNKNOWN")
        return found

    async def card_of(self, user_id: str, reference: str) -> tuple[str, CardToken | None]:
        """The gateway of one's own completed payment, and the card it was paid with. ``PAYMENT_UNKNOWN``."""
        found = await self.store.by_reference(reference)
        if found is None or found.user_id != user_id or found.status is not Status.COMPLETED:
            raise Refusal("PAYMENT_UNKNOWN")
        return found.gateway, found.card

    async def payments(self, user_id: str, *, before_id: str | None, most: int) -> list[Payment]:
        """One's own payments, the newest first, below an id."""
        return await self.store.of_user(user_id, before_id=before_id, most=most)

    async def verify(self, user_id: str, reference: str) -> Paid:
        """One of one's own payments by its reference, as its gateway says now, and its wallet.

        While the gateway is away, and within some seconds of the last time, it is as we know it.
        Refuses with ``PAYMENT_UNKNOWN``.
        """
        found = await self.store.by_reference(reference)
        if found is None or found.user_id != user_id:
            raise Refusal("PAYMENT_UNKNOWN")
        if found.paid_minor < found.amount_minor and await self.store.may_ask(
            found.id, self._clock.now(), rules.VERIFY_SECONDS
        ):
            try:
                found = await self.looking.look(found)
            except GatewayAway as away:
                self._count(found.gateway, "away")
                log.warning("a gateway is away", gateway=found.gateway, said=str(away))
        return Paid(found, await self._wallets.wallet(user_id, found.currency))

    async def looked_at(self, reference: str) -> None:
        """A person has looked at it: it is for nobody's review any more. ``PAYMENT_UNKNOWN``."""
        found = await self.store.by_reference(reference)
        if found is None:
            raise Refusal("PAYMENT_UNKNOWN")
        await self._change(found.id, lambda now: replace(now, review=None))

    # ---------------------------------------------------------------------------------------------- jobs, what is told

    async def heard(self, gateway: str, notice: Notice) -> bool:
        """A gateway has told something of a payment: ask it. False when there is no such payment of this gateway.

        Raises ``GatewayAway``.
        """
        found = await self.store.by_reference(notice.reference) if notice.reference else None
        if found is None and notice.gateway_reference:
            found = await self.store.by_gateway_reference(gateway, notice.gateway_reference)
            if found is None:
                found = await self._named(gateway, notice.gateway_reference)
        if found is None or found.gateway != gateway:
            return False
        after = await self.looking.look(found)
        if after.version == found.version:
            # It may tell before it knows: what it answers by then is looked at once more.
            await self.store.look_by(found.id, self._clock.now() + timedelta(seconds=rules.ECHO_SECONDS))
        return True

    async def _named(self, name: str, gateway_reference: str) -> Payment | None:
        """A payment by what only its gateway can tell of a name of its own. Raises ``GatewayAway``."""
        gateway: object = self.gateways.get(name)
        if not isinstance(gateway, Naming):
            return None
        try:
            reference = await gateway.reference_of(gateway_reference)
        except GatewayNo as no:
            raise GatewayAway(f"refused: {no.code}") from no
        return await self.store.by_reference(reference) if reference else None

    async def run_looks(self) -> int:
        """Ask for the payments that are due, until none is; how many were asked for."""
        return await work_off(self._claim, self._look, LOOKS_AT_ONCE)

    async def _claim(self) -> Payment | None:
        now = self._clock.now()
        return await self.store.claim(now, now + timedelta(seconds=LOOK_SECONDS))

    async def _look(self, payment: Payment) -> None:
        try:
            await self.looking.look(payment, tries=payment.tries + 1)
        except GatewayAway as away:
            self._count(payment.gateway, "away")
            log.warning("a gateway is away", gateway=payment.gateway, said=str(away))
            at = self._clock.now() + rules.back_off(payment.tries)
            await self.store.look_again(payment.id, at, payment.tries + 1)
        except Refusal as refusal:  # it comes again when this one's time with it is over
            log.error("a payment was not looked at", reference=payment.reference, code=refusal.code)

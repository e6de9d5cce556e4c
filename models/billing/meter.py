"""The meter that charges: reservations from the caller's wallet, settlement to the callee's.

It proposes and the calls write: the postings of a reservation are in the same transaction as the change of the call
that they belong to, so there is no reservation without a call and no call without its reservation, whenever a process
may die. After the end the call's ``charge.stage`` says how far its money has come. Each step of it can be done once:
capture, release and settlement in one transaction where nothing stands in the way, the clearing in another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from models.also import Also
from models.billing import rules
from models.billing.rules import Plan
from models.billing.tariffs import Tariffs
from models.calls.call import Call, Charge, Party, Price, Stage
from models.calls.meter import AlreadyRefunded, Cover, Covers
from models.calls.store import CallStore
from models.db import Session, Stale
from models.errors import Refusal
from models.ledger.journal import Entry, Wallet, wallet_key
from models.ledger.service import Draft, Ledger
from models.money import QUOTE_ROUTE
from models.ports import Clock

log = structlog.get_logger(__name__)

# Rounds of settling one call against another process that settles it as well.
ROUNDS_MAX = 8


class Overtaken(Exception):
    """Another process has taken this step of a call's money."""


class NoWallet(Exception):
    """Somebody who is to be paid has no wallet yet."""


class WalletMeter:
    """``models.calls.meter.Meter`` on the ledger. One per process."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        calls: CallStore,
        tariffs: Tariffs,
        share_bps: int,
        dispute_seconds: int,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._calls = calls
        self._tariffs = tariffs
        self._share_bps = share_bps
        self._dispute = timedelta(seconds=dispute_seconds)
        self._clock = clock

    def quote(self, *, callee: Party, call_type: str, follows: bool = False) -> Price:
        """The tariff for calling somebody (RFC 8506 §6: PRICE_ENQUIRY, nothing is reserved)."""
        return self._tariffs.quote(callee, call_type, follows=follows)

    # ------------------------------------------------------------------------------------------------- a live call

    @asynccontextmanager
    async def opening(self, call: Call) -> AsyncIterator[Cover]:
        """The first reservation, or a refusal before any ring. A free call needs no wallet."""
        if call.price.free:
            yield Cover(None)
            return
        async with self._covered(call, call.created_at) as cover:
            yield cover

    @asynccontextmanager
    async def covering(self, call: Call, now: datetime) -> AsyncIterator[Cover]:
        """A reservation at the call's new price, or a refusal."""
        if call.price.free and call.charge is None:
            yield Cover(None)
            return
        async with self._covered(call, now) as cover:
            yield cover

    async def afford(self, call: Call, now: datetime) -> None:
        """Refuse as ``covering`` would, before anybody is asked; nothing is reserved (RFC 8506: CHECK_BALANCE)."""
        if call.price.free:
            return
        key = wallet_key(call.caller.user_id, call.price.currency)
        charge = call.charge or Charge(wallet=key, share_bps=self._share_bps)
        wallet = (await self._ledger.store.wallets([key])).get(key)
        await self._refuse_another_currency(call, wallet)
        self._next_second_secured(replace(call, charge=charge), wallet, now)

    @asynccontextmanager
    async def _covered(self, call: Call, now: datetime) -> AsyncIterator[Cover]:
        key = wallet_key(call.caller.user_id, call.price.currency)
        charge = call.charge or Charge(wallet=key, share_bps=self._share_bps)
        assert charge.wallet == key, "a call is paid in one currency"
        call = replace(call, charge=charge)
        async with self._ledger.turn(key):
            wallet = (await self._ledger.store.wallets([key])).get(key)
            await self._refuse_another_currency(call, wallet)
            plan = self._next_second_secured(call, wallet, now)
            draft = self._draft({key: wallet} if wallet is not None else {}, plan.entries)
            cover = Cover(plan.charge, self._post(draft))
            yield cover
        if cover.written:
            self._ledger.seen.keep(draft.after.values())
            await self._ledger.tell(draft)

    async def _refuse_another_currency(self, call: Call, wallet: Wallet | None) -> None:
        """Whoever has wallets, but none in the currency of the price, needs another currency and not more money."""
        if wallet is None and await self._ledger.store.wallets_of(call.caller.user_id):
            raise Refusal("CURRENCY_MISMATCH", currency=call.price.currency, quoteRoute=QUOTE_ROUTE)

    def _next_second_secured(self, call: Call, wallet: Wallet | None, now: datetime) -> Plan:
        if wallet is not None and wallet.frozen and not call.price.free:
            self._ledger.refused("WALLET_FROZEN")
            raise Refusal("WALLET_FROZEN")
        if wallet is not None:
            plan = rules.reserve(call, wallet, now)
            granted = plan.charge.granted_ms
            if granted is None or granted >= call.talk_ms(now) + 1000:
                return plan
        self._ledger.refused("INSUFFICIENT_FUNDS")
        raise Refusal(
            "INSUFFICIENT_FUNDS",
            requiredMinor=rules.cheapest(call, now),
            availableMinor=rules.left(call, wallet, now) if wallet is not None else 0,
            currency=call.price.currency,
        )

    def busy(self, call: Call) -> bool:
        """Whether somebody is at the payer's wallet in this process."""
        return call.charge is not None and self._ledger.busy(call.charge.wallet)

    @asynccontextmanager
    async def renewing(
        self, calls: Sequence[Call], now: datetime, *, early: bool = False
    ) -> AsyncIterator[Covers]:
        """Capture and reserve ahead, in one posting for all of them: see ``Meter``."""
        by_key = {call.charge.wallet: call for call in calls if call.charge is not None}
        assert len(by_key) == len(calls), "each has a payer of its own"
        async with self._ledger.turn(*by_key):
            try:
                wallets, plans = await self._plans(by_key, now, early=early)
                draft = self._draft(wallets, [entry for plan in plans.values() for entry in plan.entries])
                charges = {
                    by_key[key].id: plan.charge
                    for key, plan in plans.items()
                    if plan.charge != by_key[key].charge
                }
                covers = Covers(charges, self._post(draft))
                yield covers
            except BaseException:
                self._ledger.seen.forget(by_key)
                raise
        if covers.written:
            self._ledger.seen.keep(draft.after.values())
            await self._ledger.tell(draft)

    async def _plans(
        self, calls: Mapping[str, Call], now: datetime, *, early: bool
    ) -> tuple[dict[str, Wallet], dict[str, Plan]]:
        """The wallets of these payers and what to reserve, by wallet.

        A plan that posts something is guarded by its wallet's version, so what is remembered of the wallet will do. One
        that posts nothing says that there is no more money, or none is due: for that the wallet is read.
        """
        wallets = self._ledger.seen.of(calls)
        plans = {
            key: plan
            for key, wallet in wallets.items()
            if (plan := rules.reserve(calls[key], wallet, now, early=early)).entries
        }
        if unknown := calls.keys() - plans.keys():
            read = await self._ledger.store.wallets(unknown)
            assert len(read) == len(unknown), "a wallet is never removed"
            wallets |= read
            plans |= {
                key: rules.reserve(calls[key], wallet, now, early=early) for key, wallet in read.items()
            }
        return wallets, plans

    def _draft(self, wallets: Mapping[str, Wallet], entries: Sequence[Entry]) -> Draft:
        """The entries of a plan on these wallets. Raises ``Stale``: a plan takes no more than there is, so what it was
        made from is older than the wallets are.
        """
        try:
            return self._ledger.draft(wallets, entries)
        except Refusal as no:
            if no.code != "INSUFFICIENT_FUNDS":
                raise
            raise Stale(*wallets) from no

    def _post(self, draft: Draft) -> Also | None:
        async def post(session: Session) -> None:
            await self._ledger.write(draft, session)

        return post if draft.sealed else None

    # ----------------------------------------------------------------------------------------------- an ended call

    async def close(self, call: Call) -> None:
        """Capture, release and settle, from wherever the call's money has come to."""
        if call.charge is not None:
            self._ledger.seen.forget([call.charge.wallet])  # it is renewed no more
        for _ in range(ROUNDS_MAX):
            if call.charge is None or call.charge.stage in (Stage.SETTLED, Stage.CLEARED):
                return
            step = self._closed if call.charge.stage is Stage.OPEN else self._settled
            try:
                call = await step(call)
            except Overtaken:
                found = await self._calls.load(call.id)
                assert found is not None
                call = found
        raise Refusal("SERVER_BUSY")

    async def _closed(self, call: Call) -> Call:
        """All of it in one transaction. What stands in the payee's way does not keep the payer's money: then it is the
        payer's part alone, and the rest when it can be.
        """
        assert call.charge is not None
        payer, captured = call.charge.wallet, self._capture(call)
        if captured.charge.stage is not Stage.CLEARED:
            settled = rules.settle(replace(call, charge=captured.charge), self._payee(call))
            both = Plan(settled.charge, (*captured.entries, *settled.entries))
            try:
                return await self._paid(call, both, [payer])
            except Refusal as no:
                log.warning("the payee's part waits", call_id=call.id, code=no.code)
        due = None if captured.charge.stage is Stage.CLEARED else call.money_due_at
        return await self._step(call, captured, [payer], due)

    def _capture(self, call: Call) -> Plan:
        return rules.capture(call)

    async def _settled(self, call: Call) -> Call:
        return await self._paid(call, rules.settle(call, self._payee(call)), [])

    @staticmethod
    def _payee(call: Call) -> str:
        return wallet_key(call.callee.user_id, call.price.currency)

    async def _paid(self, call: Call, plan: Plan, keys: list[str]) -> Call:
        """The step that pays the payee, which moves the wallets ``keys`` as well."""
        assert call.ended_at is not None
        keys, due = [*keys, self._payee(call)], call.ended_at + self._dispute
        try:
            return await self._step(call, plan, keys, due)
        except NoWallet:  # their first earning
            await self._ledger.ensure(call.callee.user_id, call.price.currency)
            return await self._step(call, plan, keys, due)

    async def _step(self, call: Call, plan: Plan, keys: list[str], due: datetime | None) -> Call:
        """One step of an ended call's money with its entries, in one transaction. Raises ``Overtaken``."""
        after = replace(call, version=call.version + 1, charge=plan.charge, money_due_at=due)

        async def also(session: Session) -> None:
            if not await self._calls.swap_within(session, call, after, (), self._clock.now()):
                raise Overtaken

        def entries(wallets: Mapping[str, Wallet]) -> Sequence[Entry]:
            if len(wallets) < len(keys):
                raise NoWallet
            return plan.entries

        posted = await self._ledger.post(keys, entries, also=also)
        if posted.again:
            raise Overtaken
        return after

    async def clear(self, call: Call) -> None:
        """Let the payee have what a settled call has earned, once the dispute window is over."""
        found = await self._calls.load(call.id)
        assert found is not None
        charge, now = found.charge, self._clock.now()
        if charge is None or charge.stage is not Stage.SETTLED:
            return
        if found.money_due_at is None or found.money_due_at > now:
            return
        key = self._payee(found)
        after = replace(
            found, version=found.version + 1, charge=replace(charge, stage=Stage.CLEARED), money_due_at=None
        )

        def plan(wallets: Mapping[str, Wallet]) -> Sequence[Entry]:
            return rules.clear(found, wallets[key], now).entries

        async def also(session: Session) -> None:
            if not await self._calls.swap_within(session, found, after, (), now):
                raise Overtaken

        try:
            await self._ledger.post([key], plan, also=also)
        except Overtaken:
            return  # by another process; the job looks again if there is more to do
        except Refusal as no:
            if no.code != "INSUFFICIENT_FUNDS":
                raise  # else a refund has taken of it meanwhile, and the job looks again

    @asynccontextmanager
    async def refunding(
        self, call: Call, amount_minor: int, *, key: str, note: str | None, now: datetime
    ) -> AsyncIterator[Cover]:
        """The money of a settled call after a refund, with its postings."""
        assert call.charge is not None
        known = await self._ledger.store.entry(f"call:{call.id}:refund:{key}")
        if known is not None:
            raise AlreadyRefunded(rules.refunded(call, known.entry))
        if not 0 < amount_minor <= call.cost_minor:
            raise Refusal("REFUND_TOO_LARGE", availableMinor=call.cost_minor, currency=call.price.currency)
        payer, payee = call.charge.wallet, self._payee(call)
        async with self._ledger.turn(payer, payee):
            wallets = await self._ledger.store.wallets([payer, payee])
            plan = rules.refund(call, amount_minor, wallets.get(payee), key=key, note=note, now=now)
            draft = self._draft(wallets, plan.entries)
            cover = Cover(plan.charge, self._post(draft))
            yield cover
        if cover.written:
            await self._ledger.tell(draft)

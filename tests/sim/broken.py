"""Meters with a fault each, as a careless change might bring it: what the simulator has to find."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

from models.billing import rules
from models.billing.meter import WalletMeter
from models.billing.rules import Plan
from models.calls.call import Call
from models.calls.meter import Cover, Covers
from models.ledger.journal import Kind


class KeepsTheRest(WalletMeter):
    """What was held too much is not released."""

    def _capture(self, call: Call) -> Plan:
        plan = super()._capture(call)
        return Plan(plan.charge, tuple(entry for entry in plan.entries if entry.kind is not Kind.RELEASE))


class ChargesOneMore(WalletMeter):
    """A minor unit more than the price, where it is there."""

    def _capture(self, call: Call) -> Plan:
        assert call.charge is not None
        more = call.cost_minor + bool(0 < call.cost_minor < call.charge.secured_minor)
        return super()._capture(replace(call, cost_minor=more))


class SettlesTwice(WalletMeter):
    """The same share under another name."""

    async def _paid(self, call: Call, plan: Plan, keys: list[str]) -> Call:
        after = await super()._paid(call, plan, keys)
        payee = await self._ledger.ensure(call.callee.user_id, call.price.currency)
        again = [replace(entry, id=f"{entry.id}:2") for entry in rules.settle(call, payee.key).entries]
        await self._ledger.post([payee.key], lambda wallets: again)
        return after


class GrantsASecond(WalletMeter):
    """A second that nobody has paid for."""

    @asynccontextmanager
    async def renewing(
        self, calls: Sequence[Call], now: datetime, *, early: bool = False
    ) -> AsyncIterator[Covers]:
        async with super().renewing(calls, now, early=early) as covers:
            for call_id, charge in covers.charges.items():
                if charge.granted_ms is not None:
                    covers.charges[call_id] = replace(charge, granted_ms=charge.granted_ms + 1000)
            yield covers


class NeverRenews(WalletMeter):
    """The call ends with its first reservation, whatever is in the wallet."""

    @asynccontextmanager
    async def renewing(
        self, calls: Sequence[Call], now: datetime, *, early: bool = False
    ) -> AsyncIterator[Covers]:
        yield Covers({})


class ReservesAfterwards(WalletMeter):
    """The ring and its reservation in two transactions: only a crash between the two shows it."""

    @asynccontextmanager
    async def opening(self, call: Call) -> AsyncIterator[Cover]:
        async with super().opening(call) as cover:
            post, cover.post = cover.post, None
            yield cover
            if cover.written and post is not None:
                await self._ledger.store._db.transaction(post)


class StepsInTwo(WalletMeter):
    """The stage of a call's money in one transaction, its entries in another: only a crash shows it."""

    async def _step(self, call: Call, plan: Plan, keys: list[str], due: datetime | None) -> Call:
        after = await super()._step(call, Plan(plan.charge, ()), keys, due)
        await self._ledger.post(keys, lambda wallets: plan.entries)
        return after


# Within how many calm histories each has to be found; None: only by a crash, in a sweep.
BROKEN: dict[type[WalletMeter], int | None] = {
    KeepsTheRest: 20,
    ChargesOneMore: 20,
    SettlesTwice: 20,
    GrantsASecond: 40,
    NeverRenews: 40,
    ReservesAfterwards: None,
    StepsInTwo: None,
}

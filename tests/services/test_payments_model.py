"""Whatever is paid, taken back, told, played again, answered late and refunded, in whatever order: the ledger comes to
what the gateway knows. The model is three numbers.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from models.db import Database
from models.errors import Refusal
from models.payments.gateway import GatewayAway, GatewayNo, PaymentSeen, PayState, RefundAsk, RefundSeen
from models.payments.payment import OPEN_REFUNDS, Payment, Status
from models.wallet.rules import Amount
from tests.fakes import CountingIds, VirtualClock
from tests.services.payments_house import BOB, PIN, SIGNED, House, Process, Till

HOUR = 3600
_USERS = count(1)


class ModelTill(Till):
    """A till that shows its refunds as money that went back, and sometimes answers as things stood before."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, list[PaymentSeen]] = {}
        self.stale = 0

    def now(self, reference: str, **changes: Any) -> None:
        self.before.setdefault(reference, []).append(self.payments[reference])
        super().now(reference, **changes)

    async def query(self, reference: str, gateway_reference: str | None) -> PaymentSeen | None:
        seen = await super().query(reference, gateway_reference)
        older = self.before.get(reference)
        if self.stale and older:
            self.stale -= 1
            return older[self.stale % len(older)]
        return seen

    def _refund(self, ask: RefundAsk) -> RefundSeen:
        seen = self.payments[ask.payment_reference]
        if seen.paid_minor - seen.reversed_minor < ask.amount_minor:
            raise GatewayNo("too_much")
        done = super()._refund(ask)
        self.now(ask.payment_reference, reversed_minor=seen.reversed_minor + ask.amount_minor)
        return done


@dataclass
class Play:
    """One payment, and what is done to it."""

    house: House
    till: ModelTill
    processes: list[Process]
    payment: Payment
    told: list[bytes]
    paid: int = 0
    spent: int = 0
    charged_back: bool = False

    @property
    def reference(self) -> str:
        return self.payment.reference

    @property
    def gone(self) -> int:
        return self.till.payments[self.reference].reversed_minor

    async def pay(self, here: Process, amount: int) -> None:
        self.paid += amount
        self.till.now(self.reference, state=PayState.PAID, paid_minor=self.paid)

    async def back(self, here: Process, amount: int) -> None:
        amount = min(amount, self.paid - self.gone)
        if amount:
            self.charged_back = True
            self.till.now(self.reference, reversed_minor=self.gone + amount)

    async def tell(self, here: Process, amount: int) -> None:
        self.told.append(self.till.tells(self.reference))
        await here.inbox.take("till", self.told[-1], SIGNED)
        await here.inbox.run()

    async def replay(self, here: Process, amount: int) -> None:
        if self.told:
            await here.inbox.take("till", self.told[amount % len(self.told)], SIGNED)

    async def verify(self, here: Process, amount: int) -> None:
        await here.payments.verify(self.payment.user_id, self.reference)

    async def wait(self, here: Process, amount: int) -> None:
        self.house.clock.pass_(amount * 20)
        await here.jobs()

    async def away(self, here: Process, amount: int) -> None:
        for _ in range(amount % 3):
            self.till.fail("query", GatewayAway("timeout"))

    async def late(self, here: Process, amount: int) -> None:
        self.till.stale = amount % 4

    async def race(self, here: Process, amount: int) -> None:
        fresh = await self.house.fresh(self.payment)
        looks = (one.payments.looking.look(fresh) for one in self.processes)
        for fault in await asyncio.gather(*looks, return_exceptions=True):
            assert fault is None or isinstance(fault, (Payment, GatewayAway)), fault

    async def refund(self, here: Process, amount: int) -> None:
        faults = (
            None,
            GatewayNo("no"),
            GatewayAway("cut"),
            GatewayAway("no connection", sent=False),
            GatewayNo("busy", later=True),
        )
        fault = faults[amount % 5]
        self.till.faults["refund"].clear()
        if fault is not None:
            self.till.fail("refund", fault, after=isinstance(fault, GatewayAway) and fault.sent)
        try:
            refund = await here.refunds.begin(self.reference, amount_minor=amount, reason="")
        except Refusal as refusal:
            if refusal.code not in ("REFUND_TOO_LARGE", "INSUFFICIENT_FUNDS"):
                raise
            return
        await here.refunds.work(refund)

    async def spend(self, here: Process, amount: int) -> None:
        ask: dict[str, Any] = {"to": BOB, "amount": Amount(minor=amount), "currency": None, "pin": PIN}
        key = self.house.ids.new()
        try:
            await here.wallets.transfer(self.payment.user_id, key=key, note=None, **ask)
        except Refusal as refusal:
            if refusal.code not in ("WALLET_FROZEN", "INSUFFICIENT_FUNDS"):
                raise
            return
        self.spent += amount

    async def end(self) -> None:
        """All that was asked for comes to its end, and the gateway tells once more."""
        self.till.faults.clear()
        self.till.stale = 0
        for _ in range(4):
            self.house.clock.pass_(HOUR)
            await self.processes[0].jobs()
        await self.tell(self.processes[1], 0)

    async def check(self) -> None:
        """The ledger is at what the gateway knows."""
        payment = await self.house.fresh(self.payment)
        assert (payment.paid_minor, payment.reversed_minor) == (self.paid, self.gone)
        assert payment.refunding_minor == 0
        refunds = await self.processes[0].refunds.store.of_payment(payment.id)
        assert not [one for one in refunds if one.stage in OPEN_REFUNDS]
        wallet = await self.house.wallet(payment.user_id)
        assert wallet.primary + wallet.credits - wallet.owed == self.paid - self.gone - self.spent
        assert wallet.frozen <= self.charged_back
        if self.paid:
            assert payment.status is (Status.REVERSED if self.gone == self.paid else Status.COMPLETED)
        else:
            assert payment.status is Status.PENDING
        await self.house.books()


HAPPENS = ("pay", "back", "refund", "spend")
HEARS = ("tell", "replay", "verify", "wait", "race")
FAULTS = ("away", "late")
# Something happens, perhaps with a fault on the way, and somebody looks. Single steps would mostly be looks in vain.
STEP = st.tuples(
    st.sampled_from(HAPPENS), st.sampled_from((*FAULTS, "tell", "late")), st.sampled_from(HEARS)
).flatmap(
    lambda verbs: st.tuples(
        *(st.tuples(st.just(verb), st.integers(0, 1), st.integers(1, 900)) for verb in verbs)
    )
)
STEPS = st.lists(STEP, min_size=4, max_size=9).map(lambda found: [one for three in found for one in three])


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds) -> House:
    return House(db, clock, ids)


# What an example leaves behind is none of the next one's.
LEFT = ("users", "wallets", "pins", "journal", "payments", "refunds", "inbox")


@pytest.mark.timeout(400)
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate,),  # to find the shortest one takes longer than a test may
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS, into=st.sampled_from(("primary", "call_credits")))
async def test_in_any_order_the_ledger_comes_to_what_the_gateway_knows(
    house: House, steps: list[tuple[str, int, int]], into: str
) -> None:
    await asyncio.gather(*(house.db[name].delete_many({}) for name in LEFT))
    till = ModelTill()
    processes = [house.process(till=till), house.process(till=till)]
    user = f"model-{next(_USERS):04d}"
    await house.people(user, BOB)
    payment = await house.deposit(processes[0], user_id=user, into=into)
    play = Play(house, till, processes, payment, [])
    credited = 0
    for verb, place, amount in steps:
        await getattr(play, verb)(processes[place], amount)
        now = (await house.fresh(payment)).paid_minor
        assert credited <= now <= play.paid, "never more than was paid, and never less than was credited"
        credited = now
    await play.end()
    await play.check()

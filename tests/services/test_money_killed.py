"""SIGKILL between every two steps of a deposit and of a withdrawal, in processes of their own; one effect each.

Each verb is run in a new process that is killed before its n-th call to the database, for n = 1, 2, … until it gets
through. Every time somebody else asks the same again (an app whose request was cut off), time passes and another
process runs the jobs. The wallet then has exactly what was paid, less exactly what has arrived at the bank.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from models.audit.service import audit
from models.db import Database
from models.payments.payment import Status
from models.payouts.payout import Payout, Stage
from models.payouts.rules import LEASE, Order
from models.sandbox.rules import Button
from models.sandbox.store import SANDBOX
from server.clock import SystemClock
from tests.fakes import VirtualClock
from tests.services.money_process import AMOUNT, PIN, do, killed, start, wired
from tests.services.wallet_house import House as WalletHouse

FEE, MONEY = 50, 10_000
STEPS_MAX = 80


class Town:
    """A database, a process that lives, and those that die."""

    def __init__(self, db: Database, uri: str) -> None:
        self.db, self.uri = db, uri
        self.clock = VirtualClock(SystemClock().now())
        self.well = wired(db, self.clock, "well")
        self.services: Any = self.well.services
        self.server = start()
        self._numbers = itertools.count(1)
        self.house = WalletHouse(db, self.clock, None)  # type: ignore[arg-type]

    async def person(self) -> str:
        number = next(self._numbers)
        user_id = f"01950000-0000-7000-8000-{number:012d}"
        await self.house.add_user(user_id, f"person{number}")
        await self.services.wallets.create(user_id, PIN)
        return user_id

    async def dies(self, step: int, verb: str, **ask: Any) -> bool:
        """Whether a process was killed over this verb at its step; False: it got through."""
        name = self.db.db.name
        return await killed(self.server, self.uri, name, self.clock.now(), step, verb, ask)

    async def do(self, verb: str, **ask: Any) -> None:
        await do(self.services, verb, **ask)

    async def later(self, *seconds: float) -> None:
        """Time passes, and the process that lives runs its jobs."""
        for one in seconds:
            self.clock.pass_(one)
            await self.do("jobs")

    async def deposit(self, user_id: str, minor: int = AMOUNT) -> Any:
        """Ask for it, again if it was asked; the one payment that there is of it."""
        await self.do("deposit", user_id=user_id, key="one", minor=minor)
        (payment,) = await self.services.payments.payments(user_id, before_id=None, most=9)
        return payment

    async def pays(self, payment: Any) -> None:
        """The payer presses the button that is there to be pressed; the gateway tells of it later."""
        gateway = self.well.money.sandbox
        assert gateway is not None
        there = await gateway.sandbox.payment(payment.asked[-1].reference)
        assert there is not None
        if len(there.steps) == 1:
            hears, gateway.hear = gateway.hear, nobody
            await gateway.sandbox.press(there.reference, Button.PAID, seen=1)
            gateway.hear = hears

    async def balances(self, user_id: str) -> tuple[int, int]:
        wallet = await self.services.wallets.wallet(user_id)
        return wallet.primary, wallet.primary_held

    async def books(self) -> None:
        report = await audit(self.db, self.clock.now())
        assert report.clean, report


async def nobody(raw: bytes, headers: Mapping[str, str]) -> None:
    """A door that is shut for a moment."""
    raise ConnectionError


@pytest.fixture
async def town(db: Database, mongo_uri: str) -> Any:
    # Whoever is killed in a transaction leaves its locks behind for so long.
    admin, name = db.client.admin, "transactionLifetimeLimitSeconds"
    before = (await admin.command("getParameter", 1, **{name: 1}))[name]
    await admin.command("setParameter", 1, **{name: 1})
    made = Town(db, mongo_uri)
    yield made
    await made.well.close()
    await admin.command("setParameter", 1, **{name: before})


@pytest.mark.parametrize("verb", ["deposit", "pay", "verify", "jobs"])
async def test_e81_a_deposit_is_credited_once_wherever_its_process_is_killed(town: Town, verb: str) -> None:
    people: list[str] = []
    for step in range(1, STEPS_MAX):
        user_id = await town.person()
        people.append(user_id)
        ask: dict[str, Any] = {"user_id": user_id, "key": "one"}
        if verb != "deposit":
            payment = await town.deposit(user_id)
            ask["reference"] = payment.asked[-1].reference
            if verb != "pay":
                await town.pays(payment)
            if verb == "verify":
                ask["reference"] = payment.reference
            town.clock.pass_(30)  # verify asks the gateway no more often than that
        died = await town.dies(step, verb, **ask)
        if verb in ("pay", "jobs"):
            # What they work off is everybody's: the next one to die has to find nothing but its own.
            await credited(town, people[-1:])
        if not died:
            break
    await credited(town, people)
    await town.books()
    assert 3 < step < STEPS_MAX - 1


async def credited(town: Town, people: Sequence[str]) -> None:
    """They ask again and pay, time passes and the jobs run: each has been credited once."""
    town.clock.pass_(60)  # a request that runs is left alone for a moment
    for user_id in people:
        await town.pays(await town.deposit(user_id))
    await town.later(1, LEASE.total_seconds() + 1, 600, 3_600)
    for user_id in people:
        (payment,) = await town.services.payments.payments(user_id, before_id=None, most=9)
        assert (payment.status, payment.paid_minor) == (Status.COMPLETED, AMOUNT), user_id
        assert await town.balances(user_id) == (AMOUNT, 0), user_id


@pytest.mark.parametrize("verb", ["withdraw", "submit", "finish"])
async def test_e81_a_withdrawal_is_paid_once_or_not_at_all_wherever_its_process_is_killed(
    town: Town, verb: str
) -> None:
    unsent, waiting, paid_out = 0, [], []
    for step in range(1, STEPS_MAX):
        if not waiting:
            waiting = await savers(town, 8)
        user_id, account_id = waiting.pop(0)
        ask = {"user_id": user_id, "key": "out", "account_id": account_id}
        if verb != "withdraw":
            await town.do("withdraw", **ask)
        if verb == "finish":
            await town.later(1)
            town.clock.pass_(10)
        died = await town.dies(step, "withdraw" if verb == "withdraw" else "jobs", **ask)
        paid_out.append(ask)
        if verb != "withdraw":
            # The jobs are everybody's: the next one to die has to find nothing but its own.
            unsent += await ended(town, paid_out)
            paid_out.clear()
        if not died:
            break
    unsent += await ended(town, paid_out)
    await town.books()
    assert 3 < step < STEPS_MAX - 1
    assert unsent <= 2, "a person is needed only where it was written down and not sent"


async def savers(town: Town, many: int) -> list[tuple[str, str]]:
    """So many people with money and a bank account."""
    people = [await town.person() for _ in range(many)]
    for user_id in people:
        await town.pays(await town.deposit(user_id, MONEY))
    await town.later(120)
    accounts = [
        await town.services.bank_accounts.add(
            user_id, currency="NGN", bank_code="001", account_number="1234567890"
        )
        for user_id in people
    ]
    return [(user_id, account.id) for user_id, account in zip(people, accounts, strict=True)]


async def ended(town: Town, asked: Sequence[Mapping[str, Any]]) -> int:
    """They ask again, time passes and the jobs run: each withdrawal is paid once or not at all; how many were not."""
    unsent = 0
    for ask in asked:
        await town.do("withdraw", **ask)
    if asked:
        await town.later(LEASE.total_seconds() + 1, 60, 60, 600, 3_600, 3_600)
    for ask in asked:
        user_id = ask["user_id"]
        (payout,) = await town.services.payouts.payouts(user_id, before_id=None, most=9)
        payout = await settled(town, payout)
        unsent += payout.stage is Stage.FAILED
        there = await town.db[SANDBOX].count_documents({"_id": f"payout:{payout.reference}"})
        assert there == (payout.stage is Stage.PAID)
        left = MONEY - (AMOUNT + FEE if there else 0)
        assert await town.balances(user_id) == (left, 0), ask
    return unsent


async def settled(town: Town, payout: Payout) -> Payout:
    """A payout at its end; the operator gives back what was never sent, which the gateway confirms."""
    if payout.stage is Stage.PAID:
        return payout
    assert payout.stage is Stage.SUBMITTING
    after: Payout = await town.services.payouts.desk.order(payout.id, Order.VOID)
    return after

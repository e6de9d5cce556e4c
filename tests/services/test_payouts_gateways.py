"""Withdrawals by the real adapters to stand-ins that fail in every way: what has left there is what the ledger says."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from models.db import Database
from models.errors import Refusal
from models.payments.gateway import NoticeInvalid
from models.payouts.payout import Payout, Stage
from models.payouts.rules import Order
from models.payouts.service import Limits
from models.payouts.store import PayoutStore
from models.wallet.rules import Amount
from tests.fakes import CountingIds, VirtualClock
from tests.services.gatewayhouse import PAIRS, Naps, Pair
from tests.services.payouts_house import BANK, LIMITS, NUMBER, House, Till
from tests.services.wallet_house import ANN, PIN, code_of
from tests.standins import monnify, paystack
from tests.standins.gatewaykit import FAULTS, Hook, broken, rewritten, unsigned

MONEY = 10_000_000
OTPS = {"monnify": monnify.OTP, "paystack": paystack.OTP}
STATES = {name: {"monnify": name, "paystack": name.lower()} for name in ("SUCCESS", "FAILED", "REVERSED")}
# How a payout is called that waits for the operator.
ASKS = {"monnify": "PENDING_AUTHORIZATION", "paystack": "otp"}
OPEN = {"PENDING", "pending", "IN_PROGRESS", *ASKS.values()}


@dataclass
class Street:
    """A house, a gateway at the other end of the street, and its books."""

    house: House
    pair: Pair
    till: Till
    name: str

    async def withdraw(self, minor: int = 2_000) -> Payout:
        (account,) = await self.till.accounts.of_user(ANN)
        return await self.till.payouts.withdraw(
            ANN,
            key=self.house.ids.new(),
            bank_account_id=account.id,
            amount=Amount(minor=minor),
            currency=None,
            pin=PIN,
        )

    async def hear(self, hook: Hook) -> int:
        """The door for notifications, as the inbox works them off."""
        headers = {name.lower(): value for name, value in hook.headers.items()}
        try:
            notice = self.pair.adapter.parse(hook.raw, headers, self.house.clock.now())
        except NoticeInvalid:
            return 401
        await self.till.payouts.work.heard(self.name, notice)
        return 200

    def known(self, payout: Payout) -> Any:
        """What the gateway has of it."""
        return self.pair.standin.payouts.get(payout.reference)

    def is_(self, one: Any, state: str) -> bool:
        return bool(one.state == STATES[state][self.name])

    async def settle_all(self, *states: str, chance: random.Random | None = None) -> None:
        """The banks answer."""
        for one in list(self.pair.standin.payouts.values()):
            if one.state in OPEN:
                state = chance.choice(states) if chance else states[0]
                await self.pair.standin.settle(one.reference, state)

    async def time(self, *seconds: float) -> None:
        for one in seconds:
            await self.house.pass_and_run(one, self.till)

    async def agree(self) -> None:
        """The ledger has lost what has left at the gateway, and holds what it has not answered for."""
        found = await PayoutStore(self.house.db).of_user(ANN, before_id=None, most=10_000)
        left = sum(one.amount_minor for one in self.pair.standin.payouts.values() if self.is_(one, "SUCCESS"))
        assert left == sum(one.amount_minor for one in found if one.stage is Stage.PAID)
        fees = sum(one.fee_minor for one in found if one.stage is Stage.PAID)
        primary, held = await self.house.split()
        assert primary + held == MONEY - left - fees
        assert held == sum(one.held_minor for one in found if one.open)
        await self.house.books()


@pytest.fixture(params=["monnify", "paystack"])
async def street(
    request: pytest.FixtureRequest, db: Database, clock: VirtualClock, ids: CountingIds
) -> AsyncIterator[Street]:
    limits = Limits(least_minor=100, daily_minor_max=10**9, fee_minor=25, cool_off=LIMITS.cool_off)
    house = House(db, clock, ids, limits)
    await house.add_user(ANN, "ann")
    await house.rich(ANN, MONEY)
    pair = await PAIRS[request.param](clock, Naps())
    pair.standin.accounts[BANK, NUMBER] = "ANN OBI"
    till = house.open_till(real=pair.adapter)
    await till.accounts.add(ANN, currency="NGN", bank_code=BANK, account_number=NUMBER)
    built = Street(house, pair, till, request.param)
    pair.standin.post = built.hear
    yield built
    await pair.adapter.close()
    await pair.standin.stop()


async def test_a_withdrawal_goes_through_with_the_operators_password(street: Street) -> None:
    street.pair.standin.otp = True
    payout = await street.withdraw()
    await street.time(0)
    assert (await street.house.now(payout)).stage is Stage.OTP
    desk = street.till.payouts.desk
    assert await code_of(desk.authorize(payout.id, "000000")) == "GATEWAY_REFUSED"
    await desk.resend(payout.id)
    assert (await desk.authorize(payout.id, OTPS[street.name])).stage is Stage.PENDING
    await street.settle_all("SUCCESS")
    assert await street.pair.standin.deliver(times=12) == [200] * 12
    assert (await street.house.now(payout)).stage is Stage.PAID
    await street.agree()


@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_goes_wrong_with_the_submission_it_is_made_once(street: Street, fault: str) -> None:
    standin = street.pair.standin
    standin.stumble("transfer", fault)
    payout = await street.withdraw()
    await street.time(0)
    there = street.known(payout)
    asked = standin.count("transfer")
    await street.settle_all("SUCCESS")
    await street.time(2, 5, 15, 60, 300, 900, 3_600)
    found = await street.house.now(payout)
    if there is not None:
        assert found.stage is Stage.PAID
        assert standin.count("transfer") == asked == 1
    elif found.stage is Stage.SUBMITTING:  # it was sent, and is not known there: a person looks
        assert standin.count("transfer") == 1
        assert found.review is not None
    else:  # it had certainly not been taken, or not been sent: tried again, or given back
        assert found.stage in (Stage.PAID, Stage.PENDING, Stage.FAILED)
        assert len(standin.payouts) <= 1
    await street.agree()


async def test_hundreds_of_hostile_answers_and_notifications_move_what_the_bank_moves(
    street: Street,
) -> None:
    chance, standin = random.Random(7), street.pair.standin
    faults = [*FAULTS, *[""] * 10]
    sent: list[Payout] = []
    heard = 0
    while heard < 600:
        standin.otp = chance.random() < 0.2
        for _ in range(chance.randint(1, 4)):
            sent.append(
                await street.withdraw(chance.choice([2_000, *(chance.randint(100, 5_000) for _ in range(5))]))
            )
        for endpoint in (*street.pair.moving.values(), *street.pair.reading.values()):
            fault = chance.choice(faults)
            if fault and "late" not in fault:
                standin.stumble(endpoint, fault)
        await street.time(chance.choice([0, 1, 3, 10, 130]))
        for payout in sent[-6:]:
            if chance.random() < 0.5:
                code = chance.choice([OTPS[street.name], "111111"])
                with suppress(Refusal):
                    await street.till.payouts.desk.authorize(payout.id, code)
        standin.recover()
        if chance.random() < 0.7:
            await street.settle_all("SUCCESS", "SUCCESS", "FAILED", chance=chance)
        for one in list(standin.payouts.values()):
            if street.is_(one, "SUCCESS") and chance.random() < 0.03:
                await standin.settle(one.reference, "REVERSED")
        hooks = [hook for hook in standin.hooks for _ in range(6)]
        standin.hooks.clear()
        strange = [broken(hook, chance) for hook in hooks[:5]]
        strange += [make(hook) for hook in hooks[:5] for make in (unsigned, rewritten)]
        chance.shuffle(hooks)
        for hook in [*hooks, *strange]:
            heard += 1
            assert await street.hear(hook) == (401 if hook in strange else 200)
    standin.otp = False
    await street.settle_all("SUCCESS")
    for _ in range(12):
        await street.time(600, 3_600)
        await street.settle_all("SUCCESS")
    for payout in sent:
        found = await street.house.now(payout)
        if found.open:  # sent, and not known there
            assert street.known(payout) is None
            await street.till.payouts.desk.order(payout.id, Order.VOID)
            continue
        there = street.known(payout)
        expected = {"SUCCESS": Stage.PAID, "FAILED": Stage.FAILED, "REVERSED": Stage.REVERSED}
        if there is not None:
            wanted = next(stage for state, stage in expected.items() if street.is_(there, state))
            # One that came back before anybody had seen it paid has failed; the money is back either way.
            assert found.stage in {wanted, *({Stage.FAILED} if wanted is Stage.REVERSED else set())}
    assert max(standin.payouts.values(), key=lambda one: one.amount_minor).amount_minor <= 5_000
    assert len(sent) > 30
    await street.agree()

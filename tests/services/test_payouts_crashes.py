"""A process that dies between any two awaits of a withdrawal, and two that work on the same one: one effect, always.

As in ``test_billing_crashes``: a verb is run again and again, its process dying one call to the driver or to the
gateway later each time, until it gets through. The books must agree right then. Then time passes and another process
runs its jobs; at the end the bank has paid exactly what the wallet has lost, and every reference arrived at most once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from models.db import Database
from models.payments.gateway import PayoutState
from models.payouts.payout import OPEN, Payout, Stage
from models.payouts.rules import LEASE, Order
from models.payouts.store import PayoutStore
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Killed, Mortal
from tests.services.payouts_house import OTP, House, Till
from tests.services.wallet_house import ANN

STEPS_MAX = 60
MONEY = 1_000_000
LEAST_STEPS = 3


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds) -> House:
    built = House(db, clock, ids)
    await built.add_user(ANN, "ann")
    await built.saver(minor=MONEY)
    return built


async def agree(house: House, *, done: bool) -> None:
    """The books agree; and, once all is over, the bank has paid what the wallet has lost."""
    await house.books()
    assert all(count == 1 for count in house.bank.arrived.values()), house.bank.arrived
    primary, held = await house.split()
    if not done:
        return
    payouts = await PayoutStore(house.db).of_user(ANN, before_id=None, most=1000)
    paid = [one for one in payouts if one.stage is Stage.PAID]
    assert held == sum(one.held_minor for one in payouts if one.open)
    assert primary + held == MONEY - sum(one.held_minor for one in paid)
    assert house.bank.money() == sum(one.amount_minor for one in paid)


async def later(house: House, *, hours: int = 4) -> None:
    """Time passes, the bank does its work, and a process that lives runs its jobs."""
    well = house.open_till()
    house.bank.told.clear()
    for _ in range(hours):
        house.bank.all_become(PayoutState.PAID)
        for seconds in (LEASE.total_seconds() + 1, 600, 3_000):
            await house.pass_and_run(seconds, well)


Scene = Callable[[House], Awaitable[Payout | None]]
Verb = Callable[[House, Till, Payout | None], Awaitable[object]]


async def nothing(house: House) -> None:
    return None


async def asked(house: House) -> Payout:
    return await house.withdraw()


def asked_and(what: str) -> Scene:
    async def before(house: House) -> Payout:
        payout = await house.withdraw()
        house.bank.told = [what]
        return payout

    return before


def submitted_and(state: PayoutState) -> Scene:
    async def before(house: House) -> Payout:
        payout = await house.withdraw()
        house.bank.told = ["paid" if state is PayoutState.REVERSED else "pending"]
        await house.till.run()
        house.bank.become(payout, state)
        house.clock.pass_(86_400 if state is PayoutState.REVERSED else 60)
        return payout

    return before


async def waits_for_password(house: House) -> Payout:
    payout = await house.withdraw()
    house.bank.told = ["otp"]
    await house.till.run()
    house.clock.pass_(1)
    return payout


async def job(house: House, till: Till, payout: Payout | None) -> object:
    await till.payouts.work.run_due()
    return await till.payouts.work.run_untold()


async def told(house: House, till: Till, payout: Payout | None) -> object:
    assert payout is not None
    return await till.payouts.work.look(payout.reference)


async def withdraws(house: House, till: Till, payout: Payout | None) -> object:
    return await house.withdraw(till=till)


async def password(house: House, till: Till, payout: Payout | None) -> object:
    assert payout is not None
    return await till.payouts.desk.authorize(payout.id, OTP)


async def taken_back(house: House, till: Till, payout: Payout | None) -> object:
    assert payout is not None
    return await till.payouts.desk.order(payout.id, Order.VOID)


VERBS: dict[str, tuple[Scene, Verb]] = {
    "asking": (nothing, withdraws),
    "submitting": (asked, job),
    "submitting, paid at once": (asked_and("paid"), job),
    "submitting, failed at once": (asked_and("failed"), job),
    "submitting, refused": (asked_and("refused"), job),
    "submitting, away": (asked_and("unsent"), job),
    "submitting, no answer": (asked_and("lost after it was taken"), job),
    "paid": (submitted_and(PayoutState.PAID), job),
    "paid, told": (submitted_and(PayoutState.PAID), told),
    "failed": (submitted_and(PayoutState.FAILED), job),
    "reversed": (submitted_and(PayoutState.REVERSED), job),
    "password": (waits_for_password, password),
    "taken back": (asked, taken_back),
}


# Nothing was done there, and the process that heard so is dead.
NOTHING_THERE = ("submitting, refused", "submitting, away")


@pytest.mark.parametrize("name", VERBS)
async def test_e81_wherever_a_process_dies_it_is_paid_once_or_not_at_all(house: House, name: str) -> None:
    scene, verb = VERBS[name]
    steps = 0
    for step in range(1, STEPS_MAX):
        payout = await scene(house)
        life = Mortal(house.db)
        doomed = house.open_till(life)
        life.dies_at = step
        died = False
        try:
            await verb(house, doomed, payout)
        except Killed:
            died = True
        # A fault of one payout is logged and not raised by the job, and so is a death there.
        if not (died or life.dead):
            break
        steps = step
        await agree(house, done=False)
        await later(house, hours=1)
        await agree(house, done=True)
    else:
        raise AssertionError("the verb does not end")
    assert steps >= LEAST_STEPS
    await later(house)
    await agree(house, done=True)
    payouts = await PayoutStore(house.db).of_user(ANN, before_id=None, most=1000)
    stuck = [one for one in payouts if one.stage in OPEN]
    # Only where it died after it was written down, and the bank has nothing of it: a person has to look.
    assert all(one.stage is Stage.SUBMITTING and one.reference not in house.bank.known for one in stuck)
    assert len(stuck) <= 2 or name in NOTHING_THERE
    assert all(one.review is not None for one in stuck)
    for one in stuck:
        await house.till.payouts.desk.order(one.id, Order.VOID)
    await agree(house, done=True)
    assert (await house.split())[1] == 0


async def test_e82_the_jobs_of_two_processes_submit_each_payout_once(house: House) -> None:
    payouts = [await house.withdraw() for _ in range(20)]
    tills = [house.open_till() for _ in range(3)]
    await asyncio.gather(*(till.run() for till in tills for _ in range(2)))
    assert house.bank.arrived == {one.reference: 1 for one in payouts}
    house.bank.all_become(PayoutState.PAID)
    house.clock.pass_(60)
    looks = [till.payouts.work.look(one.reference) for one in payouts for till in tills]
    await asyncio.gather(*looks, *(till.run() for till in tills))
    assert {(await house.now(one)).stage for one in payouts} == {Stage.PAID}
    await agree(house, done=True)


async def test_e80_a_process_that_stands_still_over_a_claim_submits_nothing_afterwards(house: House) -> None:
    payout = await house.withdraw()
    slow, quick = house.open_till(), house.open_till()
    claimed = await PayoutStore(house.db).claim(house.clock.now(), house.clock.now() + LEASE)
    assert claimed is not None
    await house.pass_and_run(LEASE.total_seconds(), quick)
    await slow.payouts.work._submit(claimed)
    assert house.bank.arrived == {payout.reference: 1}
    house.bank.all_become(PayoutState.PAID)
    await house.until(payout, Stage.PAID)
    await agree(house, done=True)


async def test_e80_an_answer_that_comes_late_changes_nothing_that_was_found_out_meanwhile(
    house: House,
) -> None:
    """Submitted, and the answer takes longer than the lease; the others have looked it up by then."""
    slow, quick = house.open_till(), house.open_till()
    for told_, state in (("refused", None), ("pending", PayoutState.PAID), ("pending", PayoutState.FAILED)):
        payout = await house.withdraw()

        async def meanwhile(payout: Payout = payout, state: PayoutState | None = state) -> None:
            if state is not None:
                house.bank.become(payout, state)
            for _ in range(3):
                await house.pass_and_run(LEASE.total_seconds(), quick)

        house.bank.told = [told_]
        slow.gateway.before_answering = meanwhile
        await slow.run()
        expected = {None: Stage.FAILED, PayoutState.PAID: Stage.PAID, PayoutState.FAILED: Stage.FAILED}[state]
        assert (await house.now(payout)).stage is expected
        await agree(house, done=True)


async def test_what_stands_still_before_it_is_sent_is_looked_for_in_vain_and_then_sent_once(
    house: House,
) -> None:
    """The worst: written down, the process stands still for an hour just before the request leaves, and goes on."""
    payout = await house.withdraw()
    slow, quick = house.open_till(), house.open_till()

    async def stands_still() -> None:
        for _ in range(60):
            await house.pass_and_run(60, quick)
        with suppress(Exception):
            await quick.payouts.desk.order(payout.id, Order.SUBMIT)

    slow.gateway.before_sending = stands_still
    await slow.run()
    await later(house)
    assert (await house.now(payout)).stage is Stage.PAID
    await agree(house, done=True)


async def test_e82_races_of_everything_at_once_end_in_one_effect(house: House) -> None:
    tills = [house.open_till() for _ in range(2)]
    for told_ in (
        "paid",
        "pending",
        "failed",
        "refused",
        "unsent",
        "lost after it was taken",
        "later",
        "otp",
    ):
        payout = await house.withdraw()
        house.bank.told = [told_]
        for _ in range(3):
            await asyncio.gather(
                *(till.run() for till in tills),
                *(till.payouts.work.look(payout.reference) for till in tills),
                *(till.payouts.desk.order(payout.id, Order.VOID) for till in tills),
                return_exceptions=True,
            )
            await agree(house, done=False)
            house.clock.pass_(20)
        house.bank.told.clear()
        house.bank.all_become(PayoutState.PAID)
        await later(house, hours=1)
        await agree(house, done=True)
        assert not (await house.now(payout)).open

"""A process that dies between any two steps of a payment, a reversal or a refund: one effect in the end, and no more.

Steps are the calls to the database and both sides of each question to the gateway. The verb is run again and again on
ever new people, dying one step later each time, until it gets through. The books agree right then; after that another
process does what clients, gateways and jobs do anyway.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from models.db import Database
from models.payments import rules
from models.payments.payment import Payment, RefundStage, Status
from models.payments.refunds.service import UNKNOWN_TRIES
from models.wallet.rules import Amount
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Killed, Mortal
from tests.services.payments_house import SIGNED, House, Process, Till

# Steps of the longest verb, with much to spare: more say that a verb does not end.
STEPS_MAX = 80
HOUR = 3600


class MortalTill:
    """A process's way to the gateway: it may die before a question leaves, and before its answer is here."""

    def __init__(self, till: Till, life: Mortal) -> None:
        self._till, self._life = till, life

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._till, name)
        if name not in ("checkout", "query", "refund", "refund_status"):
            return verb

        async def asked(*args: Any) -> Any:
            self._life.breathe()
            answer = await verb(*args)
            self._life.breathe()
            return answer

        return asked


@dataclass
class Scene:
    """Somebody, the process that dies and the one that lives."""

    house: House
    user: str
    doomed: Process
    well: Process
    raw: bytes = b""

    async def deposit(self, process: Process) -> Payment:
        ask: dict[str, Any] = {"key": "k", "amount": Amount(minor=1000), "currency": None, "gateway": None}
        return await process.payments.deposit(self.user, into="primary", **ask)

    async def buy(self, process: Process) -> Payment:
        ask: dict[str, Any] = {"key": "b", "amount": Amount(minor=400), "currency": None, "method": "wallet"}
        return await process.payments.buy(self.user, **ask)

    async def payment(self) -> Payment:
        found = await self.well.payments.store.by_reference(rules.reference_of(self.user, "k"))
        assert found is not None
        return found

    async def deliver(self, process: Process) -> None:
        """The gateway tells, by the same bytes each time."""
        await process.inbox.take("till", self.raw, SIGNED)
        await process.inbox.run()


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds) -> House:
    return House(db, clock, ids)


Step = Callable[[Scene], Awaitable[Any]]


async def died_everywhere(
    house: House, before: Step, verb: Step, *, after: Callable[[], Awaitable[None]] | None = None
) -> list[Scene]:
    """The verb on ever new people, dying one step later each time; the last one lived. ``after``: each of them."""
    scenes = []
    for step in range(1, STEPS_MAX):
        life = Mortal(house.db)
        user = f"user-{step:04d}"
        await house.people(user)
        doomed = house.process(life, MortalTill(house.till, life))
        scene = Scene(house, user, doomed, house.process())
        await before(scene)
        life.dies_at = life.calls + step
        scenes.append(scene)
        try:
            await verb(scene)
        except Killed:
            await house.books()
            if after is not None:
                await after()
            continue
        assert step > 3, "it has steps"
        return scenes
    raise AssertionError("it needs more steps than that")


async def later(house: House, hours: int = 3) -> None:
    """Time passes, and a process that nobody knows runs the jobs."""
    fresh = house.process()
    for _ in range(hours * 4):
        house.clock.pass_(HOUR / 4)
        await fresh.jobs()


async def nothing(scene: Scene) -> None:
    pass


async def opened(scene: Scene) -> None:
    await scene.deposit(scene.well)


async def paid(scene: Scene) -> None:
    await opened(scene)
    reference = (await scene.payment()).reference
    scene.house.till.pays(reference)
    scene.raw = scene.house.till.tells(reference)


async def credited(scene: Scene) -> None:
    await paid(scene)
    await scene.deliver(scene.well)
    reference = (await scene.payment()).reference
    scene.raw = scene.house.till.tells(reference)


async def taken_back(scene: Scene) -> None:
    await credited(scene)
    scene.house.till.now((await scene.payment()).reference, reversed_minor=700)


async def is_credited_once(scene: Scene) -> None:
    payment = await scene.payment()
    assert (payment.status, payment.paid_minor) == (Status.COMPLETED, 1000)
    assert await scene.house.money(scene.user) == (1000, 0)
    assert sum((await scene.house.entries(payment)).values()) == -1000
    assert scene.house.statuses(payment)[-1] == "completed"
    assert scene.house.statuses(payment).count("completed") == 1


async def test_a_deposit_that_dies_anywhere_is_one_payment_with_a_checkout_in_the_end(house: House) -> None:
    scenes = await died_everywhere(house, nothing, lambda s: s.deposit(s.doomed))
    house.clock.pass_(rules.OPENING_SECONDS)
    for scene in scenes:
        payment = await scene.deposit(scene.well)
        assert payment.checkout_url is not None
        assert len(payment.asked) <= 2
        house.till.pays(payment.checkout_url.removeprefix("https://till.test/"))
    assert await house.db["payments"].count_documents({}) == len(scenes)
    await later(house)
    for scene in scenes:
        await is_credited_once(scene)
    await house.books()


async def test_a_client_that_asks_a_process_that_dies_loses_nothing(house: House) -> None:
    async def asked(scene: Scene) -> None:
        await scene.doomed.payments.verify(scene.user, (await scene.payment()).reference)

    scenes = await died_everywhere(house, paid, asked)
    await later(house)
    for scene in scenes:
        await is_credited_once(scene)
    await house.books()


@pytest.mark.parametrize("again", [True, False])
async def test_a_notification_at_a_process_that_dies_is_worked_off(house: House, again: bool) -> None:
    scenes = await died_everywhere(house, paid, lambda s: s.deliver(s.doomed))
    if again:
        for scene in scenes:
            await scene.deliver(scene.well)
    await later(house)
    for scene in scenes:
        await is_credited_once(scene)
    await house.books()


async def test_a_reconciler_that_dies_leaves_it_to_the_next(house: House) -> None:
    async def due(scene: Scene) -> None:
        await paid(scene)
        house.clock.pass_(60)

    async def recovered() -> None:
        """So that the next one finds one payment to look at, and no other."""
        await later(house, 1)

    scenes = await died_everywhere(house, due, lambda s: s.doomed.payments.run_looks(), after=recovered)
    for scene in scenes:
        await is_credited_once(scene)
    await house.books()


async def test_a_reversal_that_dies_anywhere_is_taken_once_from_a_frozen_wallet(house: House) -> None:
    scenes = await died_everywhere(house, taken_back, lambda s: s.deliver(s.doomed))
    for scene in scenes:
        await scene.deliver(scene.well)
    await later(house)
    for scene in scenes:
        payment = await scene.payment()
        assert (payment.paid_minor, payment.reversed_minor) == (1000, 700)
        wallet = await house.wallet(scene.user)
        assert (wallet.primary, wallet.owed, wallet.frozen) == (300, 0, True)
        assert sum((await house.entries(payment)).values()) == -300
    await house.books()


async def test_a_refund_that_dies_anywhere_is_asked_for_once_and_never_lost(house: House) -> None:
    async def refunded(scene: Scene) -> None:
        reference = (await scene.payment()).reference
        refund = await scene.doomed.refunds.begin(reference, amount_minor=700, reason="")
        await scene.doomed.refunds.work(refund)

    scenes = await died_everywhere(house, credited, refunded)
    await later(house, UNKNOWN_TRIES + 2)
    ends = []
    for scene in scenes:
        payment = await scene.payment()
        refunds = await scene.well.refunds.store.of_payment(payment.id)
        done = [one for one in refunds if one.id in house.till.refunds]
        assert len(refunds) <= 1
        assert (await house.money(scene.user))[0] == 1000 - 700 * len(refunds)
        for refund in refunds:
            ends.append(refund.stage)
            # Asked for, it is done; marked and never sent, it waits for a person, and the money with it.
            assert refund.stage is (RefundStage.DONE if done else RefundStage.ASKING)
            assert (refund.review is None) == bool(done)
    assert house.till.asked["refund"] == ends.count(RefundStage.DONE)
    assert ends.count(RefundStage.ASKING) == 1
    await house.books()
    for scene in scenes:
        for refund in await scene.well.refunds.store.for_review(5):
            await scene.well.refunds.settle(refund.id, done=False)
    await house.books()


async def test_call_credits_are_bought_once_wherever_the_process_dies(house: House) -> None:
    scenes = await died_everywhere(house, credited, lambda s: s.buy(s.doomed))
    for scene in scenes:
        assert (await scene.buy(scene.well)).status is Status.COMPLETED
        assert await house.money(scene.user) == (600, 400)
    await later(house)
    await house.books()

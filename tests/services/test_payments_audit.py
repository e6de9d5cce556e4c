"""The audit finds whatever does not agree between payments and the journal, and names the row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from models.audit.service import audit
from models.db import Database
from models.payments.payment import Payment
from models.wallet.rules import Amount
from tests.fakes import CountingIds, VirtualClock
from tests.services.payments_house import ANN, BOB, House

CLEARING = "gateway:till:clearing"


class Life:
    """A payment that was paid in two parts, taken back in part and refunded in part, and call credits bought."""

    def __init__(self, house: House) -> None:
        self.house = house

    async def live(self) -> None:
        house = self.house
        await house.people(ANN, BOB)
        self.payment = await house.paid(400)
        house.till.pays(self.payment.reference, 1000)
        await house.verify(self.payment)
        house.till.now(self.payment.reference, reversed_minor=100)
        await house.tell(house.till.tells(self.payment.reference))
        await house.one.wallets.freeze(ANN, frozen=False)
        refund = await house.one.refunds.begin(self.payment.reference, amount_minor=200, reason="")
        await house.one.refunds.work(refund)
        self.bought: Payment = await house.one.payments.buy(
            ANN, key="b", amount=Amount(minor=50), currency=None, method="wallet"
        )
        await house.books()

    @property
    def name(self) -> str:
        return f"{self.payment.gateway}:{self.payment.reference}"

    async def set(self, payment: Payment, **changes: Any) -> None:
        await self.house.db.db["payments"].update_one(
            {"_id": payment.id}, {"$set": changes}, bypass_document_validation=True
        )


Change = Callable[[Life], Awaitable[set[str]]]


async def more_credited(life: Life) -> set[str]:
    await life.set(life.payment, paid_minor=1001)
    return {life.payment.id, CLEARING}


async def less_reversed(life: Life) -> set[str]:
    await life.set(life.payment, reversed_minor=200)
    return {life.payment.id, CLEARING}


async def another_status(life: Life) -> set[str]:
    await life.set(life.payment, status="pending")
    return {life.payment.id}


async def fewer_credits(life: Life) -> set[str]:
    await life.set(life.payment, credits=1)
    return {life.payment.id}


async def more_reversals(life: Life) -> set[str]:
    await life.set(life.payment, reversals=3)
    return {life.payment.id}


async def another_owner(life: Life) -> set[str]:
    await life.set(life.payment, user_id=BOB)
    return {life.payment.id}


async def another_account(life: Life) -> set[str]:
    await life.set(life.payment, into="call_credits")
    return {life.payment.id}


async def no_payment(life: Life) -> set[str]:
    await life.house.db["payments"].delete_one({"_id": life.payment.id})
    entries = {f"pay:{life.name}", f"pay:{life.name}:2", f"rev:{life.name}:1", f"rev:{life.name}:2"}
    return {CLEARING, *entries}


async def no_purchase(life: Life) -> set[str]:
    await life.house.db["payments"].delete_one({"_id": life.bought.id})
    return {f"cr:{ANN}:b"}


async def another_price(life: Life) -> set[str]:
    await life.set(life.bought, amount_minor=51)
    return {life.bought.id}


async def unreadable(life: Life) -> set[str]:
    await life.set(life.payment, status="gone")
    return {life.payment.id, CLEARING}


CHANGES: list[Change] = [
    *(more_credited, less_reversed, another_status, fewer_credits, more_reversals, another_owner),
    *(another_account, no_payment, no_purchase, another_price, unreadable),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_what_does_not_agree_is_found_and_named(
    db: Database, clock: VirtualClock, ids: CountingIds, change: Change
) -> None:
    life = Life(House(db, clock, ids))
    await life.live()
    rows = await change(life)
    report = await audit(db, clock.now())
    assert {(finding.invariant, finding.row) for finding in report.findings} == {("I11", row) for row in rows}

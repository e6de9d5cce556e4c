"""The audit of withdrawals: a lived-in database is clean, and whatever is altered in it is found and named."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from models.audit.service import audit
from models.db import Database
from models.ledger.store import JOURNAL, WALLETS
from models.payments.gateway import PayoutState
from models.payouts.payout import Payout, Stage
from models.payouts.store import PAYOUTS
from tests.fakes import CountingIds, VirtualClock
from tests.services.payouts_house import House
from tests.services.wallet_house import ANN

WALLET, CLEARING = f"{ANN}:NGN", "gateway:testbank:clearing"


@dataclass
class Life:
    """A withdrawal in every stage of its money."""

    house: House
    open: Payout
    paid: Payout
    failed: Payout
    reversed: Payout

    @property
    def db(self) -> Any:
        return self.house.db.db

    async def change(self, collection: str, row: str, **fields: Any) -> None:
        """Alter a document behind everybody's back."""
        change = {"$set": {name.replace("__", "."): value for name, value in fields.items()}}
        done = await self.db[collection].update_one({"_id": row}, change, bypass_document_validation=True)
        assert done.modified_count == 1

    async def broken(self) -> set[tuple[str, str]]:
        """What is broken; the money of these tests comes from nowhere, which is told of as well."""
        report = await audit(self.house.db, self.house.clock.now())
        return {
            (one.invariant, one.row)
            for one in report.findings
            if "pay:test:" not in one.row and one.row != "gateway:test:clearing"
        }


@pytest.fixture
async def life(db: Database, clock: VirtualClock, ids: CountingIds) -> Life:
    house = House(db, clock, ids)
    await house.add_user(ANN, "ann")
    await house.saver()
    made = []
    for told in ("paid", "failed", "paid", "pending"):
        house.bank.told = [told]
        made.append(await house.withdraw())
        await house.till.run()
    paid, failed, reversed_, open_ = made
    house.bank.become(reversed_, PayoutState.REVERSED)
    await house.till.payouts.work.look(reversed_.reference)
    stages = [(await house.now(one)).stage for one in made]
    assert stages == [Stage.PAID, Stage.FAILED, Stage.REVERSED, Stage.PENDING]
    return Life(house, open_, paid, failed, reversed_)


async def test_withdrawals_in_every_stage_are_clean(life: Life) -> None:
    assert await life.broken() == set()
    report = await audit(life.house.db, life.house.clock.now())
    assert {tally.invariant: tally.checked for tally in report.tallies}["I15"] == 4
    assert report.read["payouts"] == 4


Tamper = Callable[[Life], Awaitable[set[tuple[str, str]]]]


async def amount(life: Life) -> set[tuple[str, str]]:
    """A paid one says more than what was paid."""
    await life.change(PAYOUTS, life.paid.id, amount_minor=1_001)
    return {("I15", life.paid.id), ("I11", CLEARING)}


async def held(life: Life) -> set[tuple[str, str]]:
    """An open one says that it holds less."""
    await life.change(PAYOUTS, life.open.id, amount_minor=999)
    return {("I15", life.open.id), ("I4", WALLET)}


async def finished(life: Life) -> set[tuple[str, str]]:
    """An open one says that it was paid."""
    await life.change(PAYOUTS, life.open.id, stage="paid")
    return {("I15", life.open.id), ("I4", WALLET), ("I11", CLEARING)}


async def again(life: Life) -> set[tuple[str, str]]:
    """A failed one, whose money is back, says that it is open."""
    await life.change(PAYOUTS, life.failed.id, stage="waiting")
    return {("I15", life.failed.id), ("I4", WALLET)}


async def unreturned(life: Life) -> set[tuple[str, str]]:
    """One that came back says that it did not."""
    await life.change(PAYOUTS, life.reversed.id, stage="paid")
    return {("I15", life.reversed.id), ("I11", CLEARING)}


async def elsewhere(life: Life) -> set[tuple[str, str]]:
    """It was paid by another gateway."""
    await life.change(PAYOUTS, life.paid.id, gateway="other")
    return {("I15", life.paid.id), ("I11", CLEARING), ("I11", "gateway:other:clearing")}


async def gone(life: Life) -> set[tuple[str, str]]:
    """The document of an open one is gone."""
    await life.db[PAYOUTS].delete_one({"_id": life.open.id})
    return {("I15", f"wd:{life.open.id}:hold"), ("I4", WALLET)}


async def unposted(life: Life) -> set[tuple[str, str]]:
    """The newest entry, of which no other one knows, is gone."""
    name = f"wd:{life.reversed.id}:rev"
    newest = await life.db[JOURNAL].find_one({"_id": name})
    version = newest["seals"][0]["version"]
    assert version == (await life.db[WALLETS].find_one({"_id": WALLET}))["version"]
    await life.db[JOURNAL].delete_one({"_id": name})
    return {("I15", life.reversed.id), ("I10", WALLET), ("I2", WALLET), ("I11", CLEARING), ("I13", "NGN")}


async def torn(life: Life) -> set[tuple[str, str]]:
    """A document that is none of ours."""
    await life.db[PAYOUTS].update_one(
        {"_id": life.open.id}, {"$unset": {"to": 1}}, bypass_document_validation=True
    )
    return {("I15", life.open.id), ("I4", WALLET)}


TAMPERS = (amount, held, finished, again, unreturned, elsewhere, gone, unposted, torn)


@pytest.mark.parametrize("tamper", TAMPERS, ids=lambda tamper: tamper.__name__)
async def test_what_was_altered_is_found_and_named(life: Life, tamper: Tamper) -> None:
    expected = await tamper(life)
    assert await life.broken() == expected

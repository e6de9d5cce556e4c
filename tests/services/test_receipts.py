"""Receipts of calls that were really paid, from a real mongod."""

from __future__ import annotations

import pytest

from models.audit.service import audit
from models.billing.receipt_check import verify
from models.billing.receipts import TRIES_MAX, Receipts
from models.billing.signing import Signer
from models.billing.tariffs import Tariffs
from models.calls.call import Call, Role
from models.db import Database
from models.ledger.journal import Pocket
from models.ledger.store import JOURNAL
from models.wallet.rules import lines_of
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Phone, Process, Town

SIGNER = Signer("a secret of thirty-two bytes or more")
BY_THE_SECOND = Tariffs(
    rate_minor=6_000, video_rate_minor=12_000, first_block_seconds=1, block_seconds=1, minimum_minor=0
)


class House:
    """Ann, with money, and Bob, at one process."""

    def __init__(self, db: Database, clock: VirtualClock, ids: CountingIds) -> None:
        self.town = Town(db, clock, ids)
        self.town.tariffs = BY_THE_SECOND
        self.here: Process = self.town.process("here")
        self.ann: Phone = self.town.phone(self.here, "ann")
        self.bob: Phone = self.town.phone(self.here, "bob")
        self.receipts = Receipts(calls=self.town.store, ledger=self.town.ledger.store, signer=SIGNER)

    async def talk(self, seconds: float) -> Call:
        call = await self.bob.accept(await self.ann.request(self.bob))
        await self.town.pass_(seconds, self.here, step=30)
        return await self.town.call(await self.ann.end(call))


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds) -> House:
    house = House(db, clock, ids)
    await house.town.people("ann", "bob")
    await house.town.pay_in(house.here, "ann", 100_000)
    await house.town.pay_in(house.here, "ann", 700, into=Pocket.CREDITS)
    return house


async def test_a_paid_upgraded_refunded_call_has_a_right_receipt_for_both(house: House) -> None:
    ann, bob, town = house.ann, house.bob, house.town
    call = await bob.accept(await ann.request(bob))
    await town.pass_(65, house.here, step=5)
    await ann.calls.ask_upgrade(ann.device, call.id, type="video")
    await bob.calls.answer_upgrade(bob.device, call.id, accept=True)
    await town.pass_(20, house.here, step=5)
    call = await town.call(await ann.end(call))
    await ann.calls.refund(call.id, amount_minor=123)
    call = await town.call(call)
    for role in Role.CALLER, Role.CALLEE:
        receipt = await house.receipts.of(call, role)
        assert receipt is not None
        assert verify(receipt, SIGNER.public_key) == []
        assert receipt["totalMinor"] == 65 * 100 + 20 * 200 - 123
        assert [segment["type"] for segment in receipt["segments"]] == ["audio", "video"]
    assert (await audit(town.db, town.clock.now())).clean


async def test_the_payers_charges_are_the_lines_of_the_statement(house: House) -> None:
    call = await house.talk(130)
    receipt = await house.receipts.of(call, Role.CALLER)
    assert receipt is not None
    sealed = await house.town.ledger.store.statement("ann:NGN", below_version=1000, most=100)
    lines = [
        (line.id, line.kind, line.account, line.amount_minor)
        for one in sealed
        for seal in one.seals
        for line in lines_of(one.entry, seal, "NGN")
        if line.call_id == call.id
    ]
    charges = [(c["id"], c["kind"], c["account"], c["amountMinor"]) for c in receipt["charges"]]
    assert sorted(charges) == sorted(lines)
    assert len({account for _, _, account, _ in charges}) == 2


async def test_there_is_none_while_the_call_lives_and_one_for_a_call_that_nobody_took(house: House) -> None:
    call = await house.ann.request(house.bob)
    assert await house.receipts.of(call, Role.CALLER) is None
    await house.bob.reject(call)
    receipt = await house.receipts.of(await house.town.call(call), Role.CALLER)
    assert receipt is not None
    assert verify(receipt, SIGNER.public_key) == []
    assert (receipt["totalMinor"], receipt["reservedMinor"] - receipt["releasedMinor"]) == (0, 0)


async def test_a_refund_between_the_two_readings_is_seen(house: House) -> None:
    before = await house.talk(10)
    await house.ann.calls.refund(before.id, amount_minor=300)
    receipt = await house.receipts.of(before, Role.CALLER)
    assert receipt is not None
    assert (receipt["totalMinor"], receipt["refundedMinor"]) == (700, 300)
    assert verify(receipt, SIGNER.public_key) == []


async def test_what_a_renewal_took_for_silence_comes_back_and_the_receipt_says_so(house: House) -> None:
    ann, bob, town = house.ann, house.bob, house.town
    call = await bob.accept(await ann.request(bob, reports_media=True), reports_media=True)
    for phone in (ann, bob):
        await phone.connected(call)
        await phone.hears(call, 100)
    await town.pass_(54, house.here, step=6)
    for phone in (ann, bob):
        await phone.hears(call, 100)
    await town.pass_(8, house.here, step=2)
    taken = (await town.call(call)).charge
    assert taken is not None
    await bob.hears(call, 0)
    call = await town.call(await ann.end(call))
    assert call.cost_minor == 5_400 < taken.captured.total
    for role in Role.CALLER, Role.CALLEE:
        receipt = await house.receipts.of(call, role)
        assert receipt is not None
        assert verify(receipt, SIGNER.public_key) == []
        assert receipt["charges"][-1]["amountMinor"] == taken.captured.total - 5_400
    assert (await audit(town.db, town.clock.now())).clean


async def test_what_the_journal_does_not_say_is_not_put_on_paper(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    call = await house.talk(10)
    await house.town.db.db[JOURNAL].delete_one({"call_id": call.id, "kind": "call"})
    assert await house.receipts.of(call, Role.CALLER) is None
    assert "a call and its journal differ" in capsys.readouterr().out
    assert TRIES_MAX > 1

"""Renewals go by what a process remembers of wallets: no read where nothing has changed, and never by what is old."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from models.calls.call import Call, Charge
from models.db import Database
from models.ledger.journal import Wallet
from models.ledger.seen import Seen
from models.ledger.store import WALLETS
from tests.fakes import CountingIds, VirtualClock
from tests.services.billing_house import MINUTE, PaidTown, Stage, opened
from tests.services.callkit import Process

# What is held in advance when there is enough: two minutes.
AHEAD = 2 * MINUTE


class Reads:
    """The wallets that a process reads, in a list for each time."""

    def __init__(self, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list[str]] = []
        read = process.ledger.store.wallets

        async def wallets(keys: Collection[str]) -> dict[str, Wallet]:
            self.asked.append(sorted(keys))
            return await read(keys)

        monkeypatch.setattr(process.ledger.store, "wallets", wallets)

    def taken(self) -> list[list[str]]:
        """Those since the last time."""
        taken, self.asked = self.asked, []
        return taken


async def charge_of(stage: Stage, call: Call) -> Charge:
    """The call's money, which is what the wallet says is held for it."""
    charge = (await stage.now(call)).charge
    assert charge is not None
    assert charge.held.total == (await stage.town.pockets("ann"))[1]
    return charge


@pytest.fixture
def money() -> int:
    return 100_000


@pytest.fixture
async def stage(db: Database, clock: VirtualClock, ids: CountingIds, money: int) -> Stage:
    return await opened(db, clock, ids, money=money, others=("cid",))


async def test_a_process_that_has_reserved_for_a_call_renews_it_without_reading_the_wallet(
    stage: Stage, clock: VirtualClock, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, reads = await stage.talk(), Reads(stage.here, monkeypatch)
    for count in range(1, 4):
        clock.pass_(60)
        before = db.transactions
        assert await stage.here.calls.run_renewals() == 1
        charge = await charge_of(stage, call)
        assert (charge.captured.total, charge.held.total) == (count * MINUTE, AHEAD)
        assert db.transactions == before + 1
    assert reads.taken() == []
    await stage.town.books()


async def test_a_process_that_knows_the_call_and_not_the_wallet_reads_it_once(
    stage: Stage, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = stage.town.process("there")
    call, reads = await stage.talk(), Reads(there, monkeypatch)
    for expected in ([["ann:NGN"]], []):
        clock.pass_(60)
        assert await there.calls.renew(call.id)
        assert reads.taken() == expected
    await stage.town.books()


async def test_what_this_process_itself_does_with_the_wallet_is_known_at_the_renewal(
    stage: Stage, clock: VirtualClock, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = await stage.talk()
    await stage.town.send(stage.here, "ann", "cid", 1_000)
    clock.pass_(60)
    before, reads = db.transactions, Reads(stage.here, monkeypatch)
    await stage.here.calls.run_renewals()
    assert (reads.taken(), db.transactions - before) == ([], 1)
    assert (await charge_of(stage, call)).held.total == AHEAD
    await stage.here.ledger.freeze("ann", frozen=True)
    assert stage.here.ledger.seen.of(["ann:NGN"])["ann:NGN"].frozen
    await stage.town.books()


async def test_a_tick_that_looks_into_the_wallet_brings_what_is_remembered_up_to_date(
    stage: Stage, clock: VirtualClock, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, there = await stage.talk(), stage.town.process("there")
    await stage.town.send(there, "ann", "cid", 1_000)
    clock.pass_(60)
    await stage.here.billing.run_ticks()
    before, reads = db.transactions, Reads(stage.here, monkeypatch)
    await stage.here.calls.run_renewals()
    assert (reads.taken(), db.transactions - before) == ([], 1)
    assert (await charge_of(stage, call)).held.total == AHEAD
    await stage.town.books()


async def test_a_call_that_goes_on_at_another_price_is_renewed_by_what_its_upgrade_left(
    stage: Stage, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = await stage.talk()
    await stage.here.calls.ask_upgrade(stage.ann.device, call.id, type="video")
    await stage.here.calls.answer_upgrade(stage.bob.device, call.id, accept=True)
    clock.pass_(60)
    reads = Reads(stage.here, monkeypatch)
    await stage.here.calls.run_renewals()
    assert reads.taken() == []
    assert (await charge_of(stage, call)).captured.total == MINUTE
    await stage.town.books()


async def test_the_wallet_of_a_call_that_has_ended_is_not_remembered(
    stage: Stage, clock: VirtualClock
) -> None:
    call = await stage.talk()
    assert stage.here.ledger.seen.of(["ann:NGN"])
    clock.pass_(5)
    await stage.ann.end(call)
    await stage.here.jobs()
    assert not stage.here.ledger.seen.of(["ann:NGN"])


async def test_the_same_version_of_another_history_is_not_taken_for_the_one_remembered(
    stage: Stage, clock: VirtualClock, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database was put back to an earlier time under the server, and has gone another way since."""
    call = await stage.talk()
    await db[WALLETS].update_one({"user_id": "ann"}, {"$set": {"head": "of another history"}})
    clock.pass_(60)
    reads = Reads(stage.here, monkeypatch)
    await stage.here.calls.run_renewals()
    assert reads.taken() == [["ann:NGN"]]
    entries = [one for one in await stage.town.ledger.store.of_call(call.id) if one.entry.at == clock.now()]
    assert entries[0].seals[0].previous == "of another history"


async def test_a_renewal_that_is_cancelled_is_made_later_from_a_wallet_that_was_read(
    stage: Stage, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a server that is shut down while it renews, and in whatever step it is."""
    call, reached = await stage.talk(), asyncio.Event()
    clock.pass_(60)

    async def for_ever(*args: Any, **more: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as stuck:
        stuck.setattr(stage.here.ledger.store, "write", for_ever)
        renewing = asyncio.create_task(stage.here.calls.renew(call.id))
        await reached.wait()
        renewing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await renewing
    assert (await stage.now(call)).charge == call.charge
    reads = Reads(stage.here, monkeypatch)
    assert await stage.here.calls.renew(call.id)
    assert reads.taken() == [["ann:NGN"]]
    assert (await charge_of(stage, call)).captured.total == MINUTE
    await stage.town.books()


@pytest.mark.parametrize("money", [AHEAD + 1_000])
async def test_what_came_in_elsewhere_is_reserved_at_once_and_remembered_from_there(
    stage: Stage, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, there = await stage.talk(), stage.town.process("there")
    await stage.town.pay_in(there, "ann", 50_000)
    clock.pass_(60)
    reads = Reads(stage.here, monkeypatch)
    await stage.here.calls.run_renewals()
    assert reads.taken() == [["ann:NGN"]]
    charge = await charge_of(stage, call)
    assert (charge.captured.total, charge.held.total) == (MINUTE, AHEAD)
    assert charge.reach_ms == (AHEAD + 51_000) * 10, "a minor unit is 10 ms"
    clock.pass_(60)
    await stage.here.calls.run_renewals()
    assert reads.taken() == []
    await stage.town.books()


async def test_what_was_spent_elsewhere_is_not_reserved(
    stage: Stage, clock: VirtualClock, money: int
) -> None:
    call, there = await stage.talk(), stage.town.process("there")
    await stage.town.send(there, "ann", "cid", money - AHEAD - 700)
    clock.pass_(60)
    await stage.here.calls.run_renewals()
    charge = await charge_of(stage, call)
    assert (charge.captured.total, charge.held.total) == (MINUTE, AHEAD - MINUTE + 700)
    assert await stage.town.pockets("ann") == (0, AHEAD - MINUTE + 700)
    await stage.town.books()


async def test_nothing_is_reserved_of_a_wallet_that_was_frozen_elsewhere(
    stage: Stage, clock: VirtualClock
) -> None:
    call, there = await stage.talk(), stage.town.process("there")
    await there.ledger.freeze("ann", frozen=True)
    clock.pass_(60)
    await stage.here.calls.run_renewals()
    assert (await charge_of(stage, call)).held.total == AHEAD, "as it was"
    await there.ledger.freeze("ann", frozen=False)
    await stage.here.calls.renew(call.id)
    assert (await charge_of(stage, call)).captured.total == MINUTE
    await stage.town.books()


@pytest.mark.parametrize("money", [AHEAD])
async def test_that_no_more_money_is_there_is_not_believed_of_memory(
    stage: Stage, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, there, reads = await stage.talk(), stage.town.process("there"), Reads(stage.here, monkeypatch)
    clock.pass_(60)
    await stage.here.calls.renew(call.id)
    assert reads.taken() == [["ann:NGN"]], "it has nothing to reserve, and makes sure"
    await stage.town.pay_in(there, "ann", 50_000)
    clock.pass_(57)  # the last look
    await stage.here.calls.run_renewals()
    assert reads.taken() == [["ann:NGN"]]
    charge = await charge_of(stage, call)
    assert (charge.captured.total, charge.held.total) == (117 * 100, AHEAD)
    await stage.town.books()


async def test_one_wallet_that_moved_elsewhere_costs_its_neighbour_a_try_and_no_money(
    db: Database, clock: VirtualClock, ids: CountingIds, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = PaidTown(db, clock, ids)
    await town.people("ann", "bob", "cid", "dan")
    here, there = town.process("here"), town.process("there")
    calls = []
    for payer, payee in (("ann", "bob"), ("cid", "dan")):
        await town.pay_in(here, payer, 100_000)
        calls.append(
            await town.phone(here, payee).accept(
                await town.phone(here, payer).request(town.phone(here, payee))
            )
        )
    await town.send(there, "ann", "bob", 1_000)
    clock.pass_(60)
    reads = Reads(here, monkeypatch)
    assert await here.calls.renew_together([call.id for call in calls]) == set()
    await here.calls.run_renewals()
    assert reads.taken() == [["ann:NGN"], ["cid:NGN"]], "which of them is the old one is not known"
    for call in calls:
        charge = (await town.call(call)).charge
        assert charge is not None
        assert (charge.captured.total, charge.held.total) == (MINUTE, AHEAD)
    await town.books()


async def test_a_renewal_of_which_nobody_knows_what_came_is_found_done_and_the_next_one_is_right(
    stage: Stage, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit went through and its answer was lost, as when a primary steps down."""
    call = await stage.talk()
    clock.pass_(60)
    swap_all = stage.here.calls._store.swap_all

    async def unheard(*args: Any, **more: Any) -> None:
        monkeypatch.setattr(stage.here.calls._store, "swap_all", swap_all)
        await swap_all(*args, **more)
        raise RuntimeError("the answer is lost")

    monkeypatch.setattr(stage.here.calls._store, "swap_all", unheard)
    reads = Reads(stage.here, monkeypatch)
    with pytest.raises(RuntimeError):
        await stage.here.calls.renew(call.id)
    for more in (1, 59):
        clock.pass_(more)
        await stage.here.calls.run_renewals()
        assert ["ann:NGN"] in reads.taken()
    assert (await charge_of(stage, call)).captured.total == 2 * MINUTE
    await stage.town.books()


async def test_a_wallet_that_is_gone_is_a_fault_and_not_a_renewal(
    stage: Stage, clock: VirtualClock, db: Database
) -> None:
    call = await stage.talk()
    await db[WALLETS].delete_one({"user_id": "ann"})
    clock.pass_(60)
    with pytest.raises(AssertionError, match="never removed"):
        await stage.here.calls.renew(call.id)
    assert (await stage.now(call)).charge == call.charge


def wallet(key: str, version: int, clock: VirtualClock, **more: Any) -> Wallet:
    return Wallet(
        key=key,
        id=key,
        credits_id=key,
        user_id=key,
        currency="NGN",
        version=version,
        created_at=clock.now(),
        **more,
    )


def test_of_two_versions_the_later_one_is_remembered_in_whatever_order_they_are_told(
    clock: VirtualClock,
) -> None:
    seen = Seen()
    seen.keep([wallet("ann", 2, clock, primary=2), wallet("ann", 1, clock, primary=1)])
    seen.moved([wallet("ann", 3, clock, primary=3), wallet("bob", 1, clock)])
    seen.moved([wallet("ann", 2, clock, primary=2)])
    assert {key: one.primary for key, one in seen.of(["ann", "bob"]).items()} == {"ann": 3}
    seen.moved([wallet("ann", 3, clock, primary=3, frozen=True)])
    assert seen.of(["ann"])["ann"].frozen, "freezing makes no version"
    seen.forget(["ann", "nobody"])
    assert seen.of(["ann"]) == {}


def test_those_kept_longest_ago_are_forgotten_first(clock: VirtualClock) -> None:
    seen = Seen(2)
    seen.keep([wallet("ann", 1, clock), wallet("bob", 1, clock)])
    seen.keep([wallet("ann", 1, clock), wallet("cid", 1, clock)])
    assert set(seen.of(["ann", "bob", "cid"])) == {"ann", "cid"}
    assert len(seen) == 2

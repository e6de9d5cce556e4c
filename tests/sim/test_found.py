"""What the simulator has found, as the shortest story that shows it."""

from __future__ import annotations

from models.billing.tariffs import Tariffs
from models.calls import rules
from models.calls.call import Role, State
from models.calls.commands import Tick
from models.db import Database
from models.ledger.journal import Entry, Kind, Leg, Sealed
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Phone, Process, Town

BY_THE_SECOND = Tariffs(
    rate_minor=6_000, video_rate_minor=12_000, first_block_seconds=1, block_seconds=1, minimum_minor=0
)


async def opened(db: Database, money: int) -> tuple[Town, Process, Process, Phone, Phone]:
    """Ann with money at one process, Bob at another one."""
    town = Town(db, VirtualClock(), CountingIds())
    town.tariffs = BY_THE_SECOND
    await town.people("ann", "bob")
    here, there = town.process("here"), town.process("there")
    await town.pay_in(here, "ann", money)
    return town, here, there, town.phone(here, "ann"), town.phone(there, "bob")


async def test_a_process_that_has_not_heard_of_the_end_renews_nothing_and_complains_of_nothing(
    db: Database,
) -> None:
    """Seed 19: it computed with what the call had held, and that was back in the wallet."""
    town, here, there, ann, bob = await opened(db, 100_000)
    call = await here.calls.accept(bob.device, (await ann.request(bob)).id)
    town.clock.pass_(30)
    await there.calls.end(bob.device, call_id=call.id)
    town.clock.pass_(40)
    assert here.calls.board.call(call.id) is not None
    assert not await here.calls.renew(call.id)
    assert (await town.wallet("ann")).primary == 100_000 - 3_000


async def test_an_upgrade_is_not_refused_for_money_that_another_process_has_reserved(db: Database) -> None:
    town, here, there, ann, bob = await opened(db, 18_000)
    call = await there.calls.accept(bob.device, (await ann.request(bob)).id)
    town.clock.pass_(50)
    await there.calls.ask_upgrade(bob.device, call.id, type="video")
    await here.calls.refresh([call.id])
    town.clock.pass_(11)
    assert await there.calls.renew(call.id)
    town.clock.pass_(58.5)
    call = await here.calls.answer_upgrade(ann.device, call.id, accept=True)
    assert (call.state, call.type) == (State.ACTIVE, "video")


async def test_a_call_that_another_process_has_settled_meanwhile_is_no_lack_of_money(db: Database) -> None:
    """Seed 1059: what was held is not there any more once it is captured, and that was taken for a refusal."""
    town, here, there, ann, bob = await opened(db, 1_000)
    call = await here.calls.accept(bob.device, (await ann.request(bob)).id)
    town.clock.pass_(11)
    over = rules.step(call, Tick(), role=Role.SERVER, now=town.clock.now(), timers=town.timers).call
    await there.calls.tick(call.id)
    settled = await town.call(call)
    await here.meter.close(over)
    assert await town.call(call) == settled


async def test_what_has_taken_the_last_money_is_known_again(db: Database) -> None:
    town, here, there, *_ = await opened(db, 1_000)
    await town.pay_in(here, "bob", 1)
    legs = (Leg("wallet:ann:NGN:primary", -1_000, "NGN"), Leg("wallet:bob:NGN:primary", 1_000, "NGN"))
    entry = Entry(id="tr:ann:1", kind=Kind.TRANSFER, at=town.clock.now(), legs=legs)
    first = await here.ledger.post(["ann:NGN", "bob:NGN"], lambda _: [entry])
    again = await there.ledger.post(["ann:NGN", "bob:NGN"], lambda _: [entry])
    assert (first.again, again.again, again.wallets["ann:NGN"].primary) == (False, True, 0)


async def test_a_refund_while_another_process_clears_takes_it_from_where_it_is(db: Database) -> None:
    town, here, there, ann, bob = await opened(db, 1_000)
    call = await here.calls.accept(bob.device, (await ann.request(bob)).id)
    town.clock.pass_(11)
    await here.calls.tick(call.id)
    town.clock.pass_(town.dispute_seconds)
    entry = here.ledger.store.entry

    async def cleared_first(entry_id: str) -> Sealed | None:
        await there.calls.run_money()
        return await entry(entry_id)

    here.ledger.store.entry = cleared_first  # type: ignore[method-assign]
    assert (await here.calls.refund(call.id, key="all")).cost_minor == 0
    assert [(await town.wallet(name)).primary for name in ("ann", "bob")] == [1_000, 0]

"""What the simulator has found, as the shortest story that shows it."""

from __future__ import annotations

from models.billing.tariffs import Tariffs
from models.calls.call import State
from models.db import Database
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

"""Many calls whose renewals are due in the same turn of the job."""

from __future__ import annotations

from models.billing.tariffs import Tariffs
from models.calls.renewals import RENEWED_AT_ONCE
from models.db import Database
from models.ledger.store import WALLETS
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Town


async def test_all_that_is_due_is_renewed_in_one_turn_and_one_that_cannot_be_keeps_no_other_waiting(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = Town(db, clock, ids)
    town.tariffs = Tariffs(rate_minor=6_000, first_block_seconds=1, block_seconds=1, minimum_minor=0)
    count = 2 * RENEWED_AT_ONCE + 1
    names = [f"{side}{number}" for side in ("ann", "bob") for number in range(count)]
    await town.people(*names)
    here = town.process("here")
    calls = []
    for payer, payee in zip(names[:count], names[count:], strict=True):
        await town.pay_in(here, payer, 100_000)
        ann, bob = town.phone(here, payer), town.phone(here, payee)
        calls.append(await bob.accept(await ann.request(bob)))
    await db[WALLETS].delete_one({"user_id": names[0]})  # nobody does that; its renewal is a fault
    clock.pass_(61)
    assert await here.calls.run_renewals() == count
    renewed = [
        (await town.wallet(name)).primary + (await town.wallet(name)).primary_held for name in names[1:count]
    ]
    assert renewed == [100_000 - 6_100] * (count - 1), "what was talked is captured"
    kept = [(await town.call(call)).charge == call.charge for call in calls]
    assert kept == [True] + [False] * (count - 1)


async def test_the_most_urgent_renewals_come_first(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = Town(db, clock, ids)
    town.tariffs = Tariffs(rate_minor=6_000, first_block_seconds=1, block_seconds=1, minimum_minor=0)
    await town.people("ann", "bob", "cid", "dan")
    here = town.process("here")
    asked: list[str] = []

    async def renew(call_id: str) -> bool:
        asked.append(call_id)
        return False

    here.calls.renew = renew  # type: ignore[method-assign]
    calls = []
    for payer, payee in (("ann", "bob"), ("cid", "dan")):
        await town.pay_in(here, payer, 100_000)
        calls.append(await town.phone(here, payer).request(town.phone(here, payee)))
    # The later call is answered first, so its money is used up first.
    await town.phone(here, "dan").accept(calls[1])
    clock.pass_(0.5)
    await town.phone(here, "bob").accept(calls[0])
    clock.pass_(61)
    await here.calls.run_renewals()
    assert asked == [calls[1].id, calls[0].id]

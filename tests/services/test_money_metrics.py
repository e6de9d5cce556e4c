"""What Prometheus is told of the money: transactions, entries, renewals, cut-offs."""

from __future__ import annotations

from models.billing.tariffs import Tariffs
from models.db import Database
from server.metrics import REGISTRY, CountedEnds, TransactionCount, count_entries
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Town


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"ringmeter_{name}_total", labels) or 0


def money() -> dict[str, float]:
    return {
        **{kind: counted("ledger_entries", kind=kind) for kind in ("hold", "call", "release", "settle")},
        "renewals": counted("renewals"),
        "cut off": counted("calls_ended", reason="insufficient_funds"),
    }


async def test_a_call_that_is_renewed_and_cut_off_is_counted_once(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = Town(db, clock, ids)
    town.tariffs = Tariffs(rate_minor=6_000, first_block_seconds=1, block_seconds=1, minimum_minor=0)
    await town.people("ann", "bob")
    here = town.process("here")
    here.ledger.listeners.append(count_entries)
    here.calls.announcer = CountedEnds(here.calls.announcer)
    await town.pay_in(here, "ann", 15_000)
    before = money()
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await bob.accept(await ann.request(bob))
    await town.pass_(151, here, step=1)
    await here.calls.announcer.announce(await town.call(call), call.untold, again=True)
    assert not (await town.call(call)).live
    grown = {name: value - before[name] for name, value in money().items()}
    assert grown == {"hold": 2, "call": 2, "release": 0, "settle": 1, "renewals": 1, "cut off": 1}


async def test_transactions_are_carried_over_once(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = Town(db, clock, ids)
    await town.people("ann")
    count, before = TransactionCount(db), counted("transactions")
    await town.pay_in(town.process("here"), "ann", 100)
    count.carry()
    count.carry()
    assert counted("transactions") == before + db.transactions == before + 1

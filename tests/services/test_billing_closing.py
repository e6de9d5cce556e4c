"""The end of a paid call's money: one transaction, and the payer's part alone where the payee's cannot be."""

from __future__ import annotations

from models.calls.call import Stage
from models.db import Database
from models.ledger.journal import Kind, wallet_key
from models.ledger.store import JOURNAL, WALLETS
from models.money import AMOUNT_MAX
from tests.fakes import CountingIds, VirtualClock
from tests.services import billing_house
from tests.services.billing_house import opened

BOB = wallet_key("bob", "NGN")


async def kinds(s: billing_house.Stage, call_id: str) -> list[Kind]:
    """The kinds of the call's entries, as they were written."""
    rows = s.town.db[JOURNAL].find({"call_id": call_id}, sort=[("_id", 1)])
    return sorted(Kind(row["kind"]) for row in await rows.to_list())


async def test_what_a_call_has_cost_is_captured_released_and_settled_in_one_transaction(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=10_000)
    await s.here.ledger.ensure("bob", "NGN")
    call = await s.talk()
    clock.pass_(10)
    before = db.transactions
    await s.ann.end(call)
    assert db.transactions - before == 2, "the end of the call, and of its money"
    assert await kinds(s, call.id) == sorted([Kind.HOLD, Kind.CAPTURE, Kind.RELEASE, Kind.SETTLE])
    await s.town.books()


async def test_a_payee_whose_wallet_is_full_keeps_none_of_the_payers_money(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    s = await opened(db, clock, ids, money=10_000)
    await s.here.ledger.ensure("bob", "NGN")
    call = await s.talk()
    clock.pass_(10)
    await db[WALLETS].update_one({"_id": BOB}, {"$set": {"balances.pending": AMOUNT_MAX}})
    cost = (await s.ann.end(call)).cost_minor
    waiting = (await s.now(call)).charge
    assert waiting is not None
    assert (waiting.stage, waiting.held.total, waiting.captured.total) == (Stage.CAPTURED, 0, cost)
    ann = await s.town.wallet("ann")
    assert (ann.primary, ann.primary_held) == (10_000 - cost, 0)

    await db[WALLETS].update_one({"_id": BOB}, {"$set": {"balances.pending": 0}})
    clock.pass_(60)
    await s.here.calls.run_money()
    settled = (await s.now(call)).charge
    assert settled is not None
    assert (settled.stage, (await s.town.wallet("bob")).pending) == (Stage.SETTLED, settled.earned_minor)
    await s.town.books()

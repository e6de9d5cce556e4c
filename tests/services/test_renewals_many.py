"""Many calls whose renewals are due in the same turn of the job: in few transactions, and none in another's way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from pymongo.errors import ConnectionFailure

from models.calls.call import Call, Stage
from models.calls.renewals import LINES_OF_MANY, RENEWED_TOGETHER_MAX, TRANSACTIONS_OF_A_TURN
from models.calls.store import CALLS
from models.db import Database
from models.ledger.store import WALLETS
from tests.fakes import CountingIds, VirtualClock
from tests.services.billing_house import PaidTown
from tests.services.callkit import Killed, Process

MONEY = 100_000
# What has been captured at a renewal a second late.
TALKED = 6_100
# When so many are due, they go two together.
MANY = 2 * TRANSACTIONS_OF_A_TURN
# What a process asks of the database for renewals that go together; it may die before each.
STEPS = ("transaction", "calls", "journal", "wallets")


@pytest.fixture
async def town(db: Database, clock: VirtualClock, ids: CountingIds) -> PaidTown:
    return PaidTown(db, clock, ids)


async def talking(town: PaidTown, here: Process, count: int, *, prefix: str = "") -> list[Call]:
    """Calls of ``ann0``, ``ann1``, … that have just been accepted, known at ``here`` alone."""
    names = [(f"{prefix}ann{number}", f"{prefix}bob{number}") for number in range(count)]
    await town.people(*(name for pair in names for name in pair))
    calls = []
    for payer, payee in names:
        await town.pay_in(here, payer, MONEY)
        ann, bob = town.phone(here, payer), town.phone(here, payee)
        calls.append(await bob.accept(await ann.request(bob)))
    return calls


async def renewed(town: PaidTown, calls: list[Call]) -> list[bool]:
    """Which of the calls has been renewed once, with its wallet."""
    found = []
    for call in calls:
        charge, wallet = (await town.call(call)).charge, await town.wallet(call.caller.user_id)
        assert charge is not None
        assert charge.held.total == wallet.primary_held
        assert wallet.primary + wallet.primary_held == MONEY - charge.captured.total
        assert charge.captured.total in (0, TALKED)
        found.append(charge != call.charge)
    return found


def before_it_is_written(
    here: Process, happens: Callable[[], Awaitable[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something happens between the reading and the writing of the next renewal."""
    swap_all = here.calls._store.swap_all

    async def later(*args, **more) -> None:  # type: ignore[no-untyped-def]
        monkeypatch.setattr(here.calls._store, "swap_all", swap_all)
        await happens()
        await swap_all(*args, **more)

    monkeypatch.setattr(here.calls._store, "swap_all", later)


async def test_all_that_is_due_is_renewed_in_one_turn_and_one_that_cannot_be_keeps_no_other_waiting(
    town: PaidTown, clock: VirtualClock, db: Database
) -> None:
    here, count = town.process("here"), MANY + 1
    calls = await talking(town, here, count)
    await db[WALLETS].delete_one({"user_id": "ann0"})  # nobody does that; its renewal is a fault
    clock.pass_(61)
    assert await here.calls.run_renewals() == count
    assert (await town.call(calls[0])).charge == calls[0].charge
    assert await renewed(town, calls[1:]) == [True] * (count - 1)


@pytest.mark.parametrize(
    ("due", "transactions"),
    [
        (1, 1),
        (MANY - 1, MANY - 1),
        (MANY, TRANSACTIONS_OF_A_TURN),
        (MANY + 1, TRANSACTIONS_OF_A_TURN + 1),
        (2 * MANY, TRANSACTIONS_OF_A_TURN),
    ],
)
async def test_what_is_due_together_goes_in_few_transactions_and_the_more_the_more_there_is(
    town: PaidTown, clock: VirtualClock, db: Database, due: int, transactions: int
) -> None:
    here = town.process("here")
    calls = await talking(town, here, due)
    clock.pass_(61)
    before = db.transactions
    assert await here.calls.run_renewals() == due
    assert db.transactions - before == transactions
    assert await renewed(town, calls) == [True] * due
    await town.books()


async def test_more_go_together_when_more_have_come_together_while_the_first_one_was_renewed(
    town: PaidTown, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, sizes = town.process("here"), list[int]()
    renew, together = here.calls.renew, here.calls.renew_together

    async def slowly(call_id: str, **more: bool) -> bool:
        done = await renew(call_id, **more)
        clock.pass_(1)
        return done

    async def counted(call_ids: list[str]) -> set[str]:
        sizes.append(len(call_ids))
        return await together(call_ids)

    monkeypatch.setattr(here.calls, "renew", slowly)
    monkeypatch.setattr(here.calls, "renew_together", counted)
    calls = await talking(town, here, 1)
    clock.pass_(1)
    calls += await talking(town, here, 2 * MANY, prefix="later ")
    clock.pass_(59)
    assert await here.calls.run_renewals() == 2 * MANY + 1
    assert sizes == [2 * MANY // TRANSACTIONS_OF_A_TURN] * TRANSACTIONS_OF_A_TURN
    await town.books()


async def test_a_crowd_goes_in_transactions_of_a_bounded_size_a_few_at_the_same_time(
    town: PaidTown, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, sizes, at_once = town.process("here"), list[int](), list[int]()
    together, under_way = here.calls.renew_together, 0

    async def counted(call_ids: list[str]) -> set[str]:
        nonlocal under_way
        sizes.append(len(call_ids))
        under_way += 1
        at_once.append(under_way)
        try:
            return await together(call_ids)
        finally:
            under_way -= 1

    monkeypatch.setattr(here.calls, "renew_together", counted)
    calls = await talking(town, here, TRANSACTIONS_OF_A_TURN * (RENEWED_TOGETHER_MAX + 1))
    clock.pass_(61)
    await here.calls.run_renewals()
    assert max(sizes) == RENEWED_TOGETHER_MAX
    assert max(at_once) == LINES_OF_MANY
    assert all(await renewed(town, calls))
    await town.books()


async def test_the_most_urgent_renewals_come_first(town: PaidTown, clock: VirtualClock) -> None:
    here, asked = town.process("here"), list[str]()

    async def renew(call_id: str) -> bool:
        asked.append(call_id)
        return False

    here.calls.renew = renew  # type: ignore[method-assign]
    await town.people("ann", "bob", "cid", "dan")
    calls = []
    for payer, payee in (("ann", "bob"), ("cid", "dan")):
        await town.pay_in(here, payer, MONEY)
        calls.append(await town.phone(here, payer).request(town.phone(here, payee)))
    # The later call is answered first, so its money is used up first.
    await town.phone(here, "dan").accept(calls[1])
    clock.pass_(0.5)
    await town.phone(here, "bob").accept(calls[0])
    clock.pass_(61)
    await here.calls.run_renewals()
    assert asked == [calls[1].id, calls[0].id]


async def test_a_call_that_another_process_has_renewed_is_not_renewed_twice_and_the_others_are(
    town: PaidTown, clock: VirtualClock
) -> None:
    here, there = town.process("here"), town.process("there")
    calls = await talking(town, here, 2)
    clock.pass_(61)
    assert await there.calls.renew(calls[0].id)
    assert await here.calls.renew_together([call.id for call in calls]) == set()
    await here.calls.run_renewals()
    assert await renewed(town, calls) == [True] * 2
    kinds = [await town.kinds(call) for call in calls]
    assert kinds[0] == kinds[1], "one capture and one hold more for each"
    await town.books()


async def test_a_call_that_has_changed_elsewhere_keeps_its_money_until_it_is_renewed_by_itself(
    town: PaidTown, clock: VirtualClock
) -> None:
    here, there = town.process("here"), town.process("there")
    calls = await talking(town, here, 2)
    await there.calls.ask_upgrade(town.phone(here, "ann0").device, calls[0].id, type="video")
    clock.pass_(61)
    assert await here.calls.renew_together([call.id for call in calls]) == set()
    assert await renewed(town, calls) == [False] * 2
    await here.calls.run_renewals()
    assert await renewed(town, calls) == [True] * 2
    await town.books()


async def test_nothing_is_held_in_a_wallet_that_is_frozen_meanwhile_and_the_others_are_renewed(
    town: PaidTown, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = town.process("here"), town.process("there")
    calls = await talking(town, here, MANY)
    before = await town.wallet("ann0")
    clock.pass_(61)
    before_it_is_written(here, lambda: there.ledger.freeze("ann0", frozen=True), monkeypatch)
    await here.calls.run_renewals()
    assert (await town.wallet("ann0")).primary_held == before.primary_held
    assert await renewed(town, calls[1:]) == [True] * (MANY - 1)
    await town.books()


async def test_all_whose_calls_went_together_are_told_their_balance(
    town: PaidTown, clock: VirtualClock
) -> None:
    here = town.process("here")
    calls = await talking(town, here, MANY)
    phones = [town.phone(here, call.caller.user_id) for call in calls]
    before = [len(phone.letters("WALLET_UPDATED")) for phone in phones]
    clock.pass_(61)
    await here.calls.run_renewals()
    for phone, count in zip(phones, before, strict=True):
        (told,) = phone.letters("WALLET_UPDATED")[count:]
        assert told["wallet"]["heldMinor"] == (await town.wallet(phone.user_id)).primary_held


async def test_without_a_database_none_is_tried_by_itself_and_all_keep_their_places(
    town: PaidTown, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, alone = town.process("here"), list[str]()
    calls = await talking(town, here, MANY)
    clock.pass_(61)

    async def away(*args, **more) -> None:  # type: ignore[no-untyped-def]
        raise ConnectionFailure("no database")

    async def renew(call_id: str) -> bool:
        alone.append(call_id)
        return False

    with monkeypatch.context() as gone:
        gone.setattr(here.calls, "renew", renew)
        gone.setattr(here.calls._store, "swap_all", away)
        with pytest.raises(ConnectionFailure):
            await here.calls.run_renewals()
    assert alone == []
    await here.calls.run_renewals()
    assert await renewed(town, calls) == [True] * MANY


async def test_one_whose_money_is_over_and_one_whose_time_comes_soon_go_with_the_others(
    town: PaidTown, clock: VirtualClock
) -> None:
    here = town.process("here")
    over = await talking(town, here, 1, prefix="over ")
    clock.pass_(70)
    soon = await talking(town, here, 1, prefix="soon ")
    clock.pass_(51)
    ids = [over[0].id, soon[0].id]
    assert await here.calls.renew_together(ids) == {soon[0].id}, "the other one ends"


async def test_a_call_that_has_ended_elsewhere_is_left_alone_and_the_others_are_renewed(
    town: PaidTown, clock: VirtualClock
) -> None:
    here, there = town.process("here"), town.process("there")
    calls = await talking(town, here, MANY)
    clock.pass_(61)
    await there.calls.end(town.phone(here, "ann0").device, call_id=calls[0].id)
    await here.calls.run_renewals()
    ended = await town.call(calls[0])
    assert ended.charge is not None
    assert (ended.live, ended.charge.stage) == (False, Stage.SETTLED)
    assert await renewed(town, calls[1:]) == [True] * (MANY - 1)
    await town.books()


async def test_money_that_has_been_spent_elsewhere_meanwhile_keeps_no_other_call_from_its_renewal(
    town: PaidTown, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = town.process("here"), town.process("there")
    calls = await talking(town, here, MANY)
    clock.pass_(61)
    before_it_is_written(here, lambda: town.send(there, "ann0", "bob1", 1_000), monkeypatch)
    await here.calls.run_renewals()
    assert [(await town.call(call)).charge != call.charge for call in calls] == [True] * MANY
    wallet = await town.wallet("ann0")
    assert wallet.primary + wallet.primary_held == MONEY - TALKED - 1_000
    await town.books()


async def test_the_others_do_not_wait_for_a_call_that_somebody_is_at(
    town: PaidTown, clock: VirtualClock
) -> None:
    here = town.process("here")
    calls = await talking(town, here, 2)
    clock.pass_(61)
    turn = here.calls._turns.setdefault(calls[0].id, asyncio.Lock())
    async with turn:
        assert await here.calls.renew_together([call.id for call in calls]) == {call.id for call in calls[1:]}
        job = asyncio.create_task(here.calls.run_renewals())
    await job
    assert await renewed(town, calls) == [True] * 2
    await town.books()


async def test_one_of_them_alone_is_renewed_when_nothing_is_to_be_done_for_the_others(
    town: PaidTown, clock: VirtualClock
) -> None:
    here = town.process("here")
    first = await talking(town, here, 1)
    clock.pass_(30)
    later = await talking(town, here, 1, prefix="later ")
    clock.pass_(31)
    assert await here.calls.renew_together([first[0].id, later[0].id, "no such call"]) == {first[0].id}
    asked = here.life.calls
    assert await here.calls.renew_together(["no such call"]) == set()
    assert here.life.calls == asked, "the database is not asked for nothing"
    assert await renewed(town, first + later) == [True, False]


async def test_wherever_a_process_dies_calls_that_go_together_are_all_renewed_or_none_and_others_go_on(
    town: PaidTown, clock: VirtualClock
) -> None:
    doomed = [town.process(f"doomed{step}") for step in range(len(STEPS) + 1)]
    calls = [await talking(town, process, 2, prefix=f"{step} ") for step, process in enumerate(doomed)]
    clock.pass_(61)
    for step, process in enumerate(doomed[:-1]):
        process.life.dies_at = process.life.calls + step + 1
        with pytest.raises(Killed):
            await process.calls.renew_together([call.id for call in calls[step]])
        assert await renewed(town, calls[step]) == [False] * 2
    doomed[-1].life.dies_at = doomed[-1].life.calls + len(STEPS) + 1
    await doomed[-1].calls.renew_together([call.id for call in calls[-1]])
    assert await renewed(town, calls[-1]) == [True] * 2
    await town.books()
    clock.pass_(3)
    await town.process("fresh").calls.run_late_renewals()
    for some in calls:
        granted = [call.charge.granted_ms for call in [await town.call(one) for one in some] if call.charge]
        assert min(ms for ms in granted if ms is not None) > 120_000
    await town.books()


@pytest.mark.parametrize("count", [2, MANY])
async def test_a_call_that_another_transaction_holds_keeps_no_other_waiting_for_long_and_is_tried_again(
    town: PaidTown, clock: VirtualClock, db: Database, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    here = town.process("here")
    calls = await talking(town, here, count)
    clock.pass_(61)
    monkeypatch.setattr("models.db.TRANSACTION_SECONDS", 0.6)
    async with db.client.start_session() as dead, await dead.start_transaction():
        await db[CALLS].update_one({"_id": calls[0].id}, {"$set": {"held": True}}, session=dead)
        assert await here.calls.run_renewals() == len(calls)
        await dead.abort_transaction()
    assert await renewed(town, calls) == [False] + [True] * (count - 1)
    await here.calls.run_renewals()
    assert await renewed(town, calls[:1]) == [False], "not at once"
    clock.pass_(1)
    await here.calls.run_renewals()
    charge = (await town.call(calls[0])).charge
    assert charge is not None
    assert charge.captured.total == TALKED + 100
    await town.books()


async def test_whose_money_ends_soon_goes_first_and_by_itself(
    town: PaidTown, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, order = town.process("here"), list[object]()
    calls = await talking(town, here, 1)
    clock.pass_(0.5)
    calls += await talking(town, here, 1, prefix="later ")
    clock.pass_(118.7)
    calls[1:1] = await talking(town, here, 1, prefix="third ")
    renew, together = here.calls.renew, here.calls.renew_together

    async def alone(call_id: str, **more: bool) -> bool:
        order.append(call_id)
        return await renew(call_id, **more)

    async def several(call_ids: list[str]) -> set[str]:
        order.append(list(call_ids))
        return await together(call_ids)

    monkeypatch.setattr(here.calls, "renew", alone)
    monkeypatch.setattr(here.calls, "renew_together", several)
    await here.calls._renew_some([call.id for call in calls])
    assert order == [calls[0].id, [calls[1].id, calls[2].id], calls[1].id]


async def test_a_call_is_renewed_where_its_payer_is_and_elsewhere_if_that_was_not_done(
    town: PaidTown, clock: VirtualClock
) -> None:
    here, there = town.process("here"), town.process("there")
    (call,) = await talking(town, here, 1)
    there.calls.board.update(await town.call(call))
    clock.pass_(60)
    assert await there.calls.run_renewals() == 0
    clock.pass_(0.5)
    assert await there.calls.run_renewals() == 1
    assert ((await town.call(call)).version) == call.version + 1
    await town.books()

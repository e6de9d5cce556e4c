"""What a review of the money found, each as the story in which it would have cost somebody something."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from pymongo.errors import ConnectionFailure

from models.audit.service import audit
from models.calls.call import Call, Reason, State
from models.calls.store import CALLS
from models.calls.upkeep import CUT_OFF_PATIENCE
from models.db import Database
from server.app import WIRED, make_app
from server.clock import SystemClock
from server.config import load_config
from tests.doors.serverprocess import eventually
from tests.doors.test_cli_calls import told as on_the_command_line
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Killed, Phone, Process, Town
from tests.services.test_billing import BY_THE_SECOND, opened


class Away:
    """A database out of reach."""

    def __getattr__(self, name: str) -> Any:
        async def away(*args: Any, **kwargs: Any) -> Any:
            raise ConnectionFailure("the cable is out")

        return away


async def over(town: Town, call: Call) -> bool:
    return (await town.call(call)).state is State.ENDED


async def apart(
    db: Database, clock: VirtualClock, ids: CountingIds, *, money: int
) -> tuple[Town, Process, Process, Phone, Phone]:
    """Ann, with money, at one process and Bob at another."""
    town = Town(db, clock, ids)
    town.tariffs = BY_THE_SECOND
    await town.people("ann", "bob")
    here, there = town.process("here"), town.process("there")
    for process in (here, there):
        await process.calls.beat()
    await town.pay_in(here, "ann", money)
    return town, here, there, town.phone(here, "ann"), town.phone(there, "bob")


# ------------------------------------------------------------------------------------ cut off, and charged on


async def test_phones_that_were_told_the_end_without_the_database_are_not_charged_for_a_payment_that_came(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    """Another process extends the call; this one cannot know in time, and tells its phones that the money is over."""
    town, here, ann, bob = await opened(db, clock, ids, money=1_000)
    there = town.process("there")
    call = await bob.accept(await ann.request(bob))
    clock.pass_(9.9)
    await town.pay_in(there, "ann", 50_000)
    await there.billing.run_wanted()
    clock.pass_(0.1)
    # The database answers, only slowly: somebody is in the call's turn for longer than a cut-off may wait.
    turn = here.calls._turns.setdefault(call.id, asyncio.Lock())
    await turn.acquire()
    alarm = asyncio.ensure_future(here.calls.alarm(call.id))
    await asyncio.wait({alarm}, timeout=2 * CUT_OFF_PATIENCE)
    assert [x["reason"] for x in ann.letters("CALL_ENDED")] == ["insufficient_funds"]
    turn.release()
    await alarm
    clock.pass_(300)
    await here.jobs()
    ended = await town.call(call)
    assert ended.state is State.ENDED, "nobody talks any more"
    assert ended.cost_minor == 1_000
    assert (await audit(db, clock.now())).clean


async def test_a_slow_timer_in_a_process_without_the_phones_ends_nothing(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, here, ann, bob = await opened(db, clock, ids, money=1_000)
    there = town.process("there")
    call = await bob.accept(await ann.request(bob))
    await there.calls.signal("ann", ann.device_id, call.id, [])  # it knows the call by now
    await town.pass_(9, here, step=1)
    clock.pass_(0.9)
    await town.pay_in(here, "ann", 50_000)
    await here.billing.run_wanted()
    clock.pass_(0.1)
    turn = there.calls._turns.setdefault(call.id, asyncio.Lock())
    await turn.acquire()
    alarm = asyncio.ensure_future(there.calls.alarm(call.id))
    await asyncio.wait({alarm}, timeout=2 * CUT_OFF_PATIENCE)
    turn.release()
    await alarm
    await there.jobs()
    assert (await town.call(call)).state is State.ACTIVE


async def test_the_timer_of_every_process_of_a_call_follows_what_another_one_has_reserved(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, here, there, ann, bob = await apart(db, clock, ids, money=100_000)
    call = await ann.request(bob)
    await there.hear()
    call = await bob.accept(await bob.ringing(call))
    await here.hear()
    assert here.alarms.armed[call.id] == call.deadline_at, "the callee has answered elsewhere"
    await town.pass_(61, there, here, step=1)  # "there" is the first to renew
    end = (await town.call(call)).deadline_at
    assert there.alarms.armed[call.id] == end
    assert here.alarms.armed[call.id] == end


async def test_a_payment_extends_the_call_at_once_also_at_a_process_that_remembers_an_older_call(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, here, there, ann, bob = await apart(db, clock, ids, money=100_000)
    old = await ann.request(bob)
    await there.hear()
    await bob.ringing(old)
    await ann.end(old)  # "there" has not heard of the end yet
    await town.ledger.freeze("ann", frozen=True)
    await town.ledger.freeze("ann", frozen=False)
    bob = town.phone(here, "bob", "bob-tablet")
    call = await bob.accept(await ann.request(bob))
    reach = call.charge.reach_ms if call.charge else None
    await town.pay_in(there, "ann", 6_000)
    await there.billing.run_wanted()
    charge = (await town.call(call)).charge
    assert charge is not None
    assert charge.reach_ms == (reach or 0) + 60_000


# ------------------------------------------------------------------------------ charged without conversation


async def test_after_an_outage_of_the_whole_server_nothing_is_charged_beyond_its_last_sign_of_life(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, here, ann, bob = await opened(db, clock, ids, money=100_000)
    call = await bob.accept(await ann.request(bob))
    await town.pass_(10, here, step=1)
    clock.pass_(600)  # it is dead
    again = town.process("again")
    await again.jobs()
    clock.pass_(60)
    await again.jobs()
    ended = await town.call(call)
    assert (ended.end_reason, ended.cost_minor) == (Reason.SERVER_RECOVERED, 1_000)


async def test_a_server_that_starts_looks_for_the_dead_before_it_looks_at_the_time(
    db: Database, mongo_uri: str, ids: CountingIds
) -> None:
    clock = VirtualClock(SystemClock().now())  # MongoDB throws away old beats by its own
    town, here, ann, bob = await opened(db, clock, ids, money=100_000)
    call = await bob.accept(await ann.request(bob))
    await town.pass_(10, here, step=1)
    clock.pass_(600)
    env = {"MONGO_URI": mongo_uri, "MONGO_DATABASE": db.db.name, "JWT_SECRET": "of the tests " * 4}
    runner = web.AppRunner(make_app(load_config(env), mongo_uri, clock=clock))
    await runner.setup()
    try:
        await eventually(lambda: over(town, call))
    finally:
        await runner.cleanup()
    after = await town.call(call)
    assert (after.end_reason, after.cost_minor) == (Reason.SERVER_RECOVERED, 1_000)


async def test_in_a_server_renewals_go_first_and_ticks_give_way_to_them(
    db: Database, mongo_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.strikes.PATIENCE_SECONDS", 60.0)
    env = {"MONGO_URI": mongo_uri, "MONGO_DATABASE": db.db.name, "JWT_SECRET": "of the tests " * 4}
    app = make_app(load_config(env), mongo_uri)
    services, begun, go_on = app[WIRED].services, asyncio.Event(), asyncio.Event()

    async def run_renewals() -> int:
        begun.set()
        await go_on.wait()
        return 0

    monkeypatch.setattr(services.calls, "run_renewals", run_renewals)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await begun.wait()
        ticks = asyncio.create_task(services.billing._give_way())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not ticks.done()
        go_on.set()
        async with asyncio.timeout(5):
            await ticks
    finally:
        go_on.set()
        await runner.cleanup()


async def test_a_phone_that_goes_while_the_database_is_away_is_charged_up_to_then(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, here, ann, bob = await opened(db, clock, ids, money=100_000)
    call = await bob.accept(await ann.request(bob))
    clock.pass_(10)
    store, here.calls._store = here.calls._store, Away()  # type: ignore[assignment]
    with pytest.raises(ConnectionFailure):
        await ann.drop()
    clock.pass_(300)
    here.calls._store = store
    await here.jobs()
    ended = await town.call(call)
    assert (ended.end_reason, ended.cost_minor) == (Reason.CONNECTION_LOST, 1_000)


async def test_a_call_that_was_cancelled_before_it_came_rings_nobody_wherever_its_process_died(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, here, ann, bob = await opened(db, clock, ids, money=100_000)
    begun, n = 0, 0
    while begun < 3:  # it dies before the call is there, and then behind it
        n += 1
        dying = town.process(f"dying-{n}")
        phone = town.phone(dying, "ann", f"ann-{n}")
        await here.calls.end(ann.device, op_id=f"op-{n}")
        dying.life.dies_at = dying.life.calls + n
        with pytest.raises(Killed):
            await phone.request(bob, op_id=f"op-{n}")
        begun += len(await town.calls_of("ann")) > begun
        await town.pass_(4, here)
        assert await town.locks() == {}
        assert (await town.wallet("ann")).primary == 100_000
    assert bob.told() == []
    assert {call.end_reason for call in await town.calls_of("ann")} == {Reason.CANCELLED}
    assert (await audit(db, clock.now())).clean


# -------------------------------------------------------------------------------------------------- refunds


async def test_a_refund_without_a_key_is_made_whatever_keys_were_used_before(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, here, ann, bob = await opened(db, clock, ids, money=1_000)
    call = await bob.accept(await ann.request(bob))
    await town.pass_(10, here, step=1)
    await here.calls.refund(call.id, amount_minor=100, key="2")
    after = await here.calls.refund(call.id)
    assert after.cost_minor == 0
    assert (await town.wallet("ann")).primary == 1_000


async def test_an_audit_finds_earnings_that_nobody_will_ever_clear(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, here, ann, bob = await opened(db, clock, ids, money=1_000)
    call = await bob.accept(await ann.request(bob))
    await town.pass_(10, here, step=1)
    assert (await audit(db, clock.now())).clean
    await db[CALLS].update_one({"_id": call.id}, {"$set": {"money_due_at": None}})
    assert [(f.invariant, f.row) for f in (await audit(db, clock.now())).findings] == [("I8", call.id)]


async def test_a_refund_beside_a_running_server_is_told_by_it_to_both_with_their_balances(
    db: Database, mongo_uri: str, ids: CountingIds
) -> None:
    clock = VirtualClock(SystemClock().now())  # the command has no other
    clock.pass_(-10)
    town, here, ann, bob = await opened(db, clock, ids, money=1_000)
    call = await bob.accept(await ann.request(bob))
    await town.pass_(10, here, step=1)
    for _ in range(2):
        await here.calls.run_leases(8)
    assert not here.calls.others_live
    assert (await on_the_command_line(town, mongo_uri, f"refund {call.id}"))[0] == 0
    await here.calls.run_leases(8)
    assert here.calls.workers == [here.name], "no job waits for a command that is over"
    if here.calls.others_live:  # as the job does
        await here.hear()
    assert ann.letters("CALL_UPDATED")[-1]["call"]["costMinor"] == 0
    assert ann.letters("WALLET_UPDATED")[-1]["wallet"]["availableMinor"] == 1_000
    assert bob.letters("WALLET_UPDATED")[-1]["wallet"]["pendingEarningsMinor"] == 0

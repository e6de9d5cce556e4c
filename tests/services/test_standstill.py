"""A process that stood still for longer than its leases and wakes up: what is no longer its own it leaves alone."""

from __future__ import annotations

from typing import Any

from models.calls.call import State
from models.calls.store import CALLS
from models.db import Database
from models.ledger.store import JOURNAL
from models.mailbox.store import LETTERS
from models.notify.rounds import Rounds
from models.presence.store import PRESENCE
from tests.fakes import CountingIds, VirtualClock
from tests.services.billing_house import PaidTown
from tests.services.callkit import DEAD_AFTER_SECONDS, offer


async def everything(db: Database, *names: str) -> dict[str, list[Any]]:
    return {name: [row async for row in db[name].find(sort=[("_id", 1)])] for name in names}


async def test_a_process_that_wakes_after_others_have_ended_its_calls_changes_nothing(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = PaidTown(db, clock, ids)
    await town.people("ann", "bob")
    frozen, awake = town.process("frozen"), town.process("awake")
    await town.pay_in(awake, "ann", 100_000)
    ann, bob = town.phone(frozen, "ann"), town.phone(awake, "bob")
    for process, phone in ((frozen, ann), (awake, bob)):
        await process.presence.arrived(phone.user_id, phone.device_id)
    await town.pass_(2, frozen, awake)
    call = await bob.accept(await ann.request(bob, offer=offer("a")))
    await town.pass_(6, frozen, awake)
    assert frozen.calls.board.call(call.id) is not None
    # From here on it stands still. Its phone is lost to the others, and does not come back.
    await town.pass_(60, awake)
    ended = await town.call(call)
    assert ended.state is State.ENDED
    assert ended.ended_by is None
    before = await everything(db, CALLS, JOURNAL, LETTERS)
    assert frozen.calls.board.call(call.id).live, "it believes what was"  # type: ignore[union-attr]
    # It wakes up in the middle of everything that it might have been at.
    await frozen.calls.alarm(call.id)
    assert await frozen.calls.renew(call.id) is False
    await frozen.calls.run_due()
    await frozen.calls.run_renewals()
    await frozen.calls.run_untold()
    await frozen.calls.run_money()
    await ann.drop()
    await frozen.presence.gone("ann", ann.device_id, clock.now())
    await frozen.jobs()
    assert await everything(db, CALLS, JOURNAL, LETTERS) == before
    assert await town.locks() == {}
    await town.books()
    (row,) = [row async for row in db[PRESENCE].find({"_id": "ann"})]
    assert row["devices"] == []


async def test_a_phone_whose_process_only_slept_is_sent_back_and_its_call_goes_on(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = PaidTown(db, clock, ids)
    await town.people("ann", "bob")
    frozen, awake = town.process("frozen"), town.process("awake")
    await town.pay_in(awake, "ann", 100_000)
    ann, bob = town.phone(frozen, "ann"), town.phone(awake, "bob")
    sent_back: list[tuple[str, str]] = []
    frozen.calls.send_back = lambda user_id, device_id: sent_back.append((user_id, device_id))
    await town.pass_(2, frozen, awake)
    call = await bob.accept(await ann.request(bob, offer=offer("a")))
    await town.pass_(2, frozen, awake)
    assert sent_back == []
    await town.pass_(DEAD_AFTER_SECONDS + 4, awake)
    assert (await town.call(call)).state is State.RECONNECTING
    await frozen.hear()
    await frozen.jobs()
    assert sent_back == [("ann", ann.device_id)]
    await ann.back(frozen)
    await ann.resume(call)
    assert (await town.call(call)).state is State.ACTIVE
    await town.pass_(4, frozen, awake)
    assert len(sent_back) == 1
    await ann.end(call)
    await town.pass_(4, frozen, awake)
    await town.books()


async def test_a_to_do_claimed_before_a_standstill_is_left_to_whoever_has_claimed_it_since(
    clock: VirtualClock, ids: CountingIds
) -> None:
    worked: list[str] = []
    todos = ["one", "two"]

    async def claim(now: Any, *, lease: str, lease_until: Any) -> str | None:
        if len(todos) == 2:
            clock.pass_(30)  # the process is stopped while its answer is on its way
        return todos.pop() if todos else None

    async def work(batch: Any) -> None:
        worked.extend(batch)

    rounds = Rounds(claim=claim, work=work, most=1, clock=clock, ids=ids)
    assert await rounds.run() == 0
    assert worked == []
    assert await rounds.run() == 1
    assert worked == ["one"]

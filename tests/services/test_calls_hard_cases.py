"""What a hostile reading of the calls asked for: no ring after the end, no call that holds up others, no way around."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any

import pytest

from models.billing.meter import WalletMeter
from models.calls.call import Call, Reason, State
from models.calls.store import CALLS
from models.db import Database
from models.errors import Refusal
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Phone, Process, Town, answer, candidate, offer, rings_of


def no_ring_after_the_end(phone: Phone) -> None:
    over: set[str] = set()
    for letter in phone.inbox:
        call_id = letter.payload["callId"]
        if letter.event == "CALL_ENDED":
            over.add(call_id)
        assert letter.event != "CALL_REQUEST" or call_id not in over, phone.told()


def tell_the_ring_slowly(
    here: Process, db: Database, meanwhile: Callable[[], Coroutine[Any, Any, Any]]
) -> Any:
    """As soon as the call is durable, and before its ring is told, ``meanwhile`` begins and gets ample time."""
    announce = here.calls.announcer.announce
    begun: list[asyncio.Task[Any]] = []

    async def slow(call: Call, facts: Any, **more: Any) -> None:
        if facts[0].kind == "requested" and not begun:
            begun.append(asyncio.create_task(meanwhile()))
            for _ in range(30):  # round trips; what would overtake needs about ten
                await db.ping()
        await announce(call, facts, **more)

    here.calls.announcer.announce = slow  # type: ignore[method-assign]
    return begun


async def test_whoever_cancels_while_the_ring_is_being_told_leaves_no_ghost_ring(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = Town(db, clock, ids)
    await town.people("ann", "bob")
    here = town.process("here")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    begun = tell_the_ring_slowly(here, db, lambda: here.calls.end(ann.device, op_id="tap"))
    await ann.request(bob, op_id="tap")
    ended = await begun[0]
    assert ended.state is State.ENDED
    assert bob.told() == ["CALL_REQUEST", "CALL_ENDED"]
    assert await town.locks() == {}


async def test_a_double_tap_leaves_one_ring_and_no_ghost(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = Town(db, clock, ids)
    await town.people("ann", "bob")
    here = town.process("here")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    begun = tell_the_ring_slowly(here, db, lambda: ann.request(bob))
    first = await ann.request(bob)
    second = await begun[0]
    assert [letter.payload["callId"] for letter in bob.inbox] == [first.id, first.id, second.id]
    assert bob.told() == ["CALL_REQUEST", "CALL_ENDED", "CALL_REQUEST"]
    await town.audit()


async def test_candidates_that_waited_for_an_accept_in_another_process_are_not_lost(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = Town(db, clock, ids)
    await town.people("ann", "bob")
    here, there = town.process("here"), town.process("there")
    ann, bob = town.phone(here, "ann"), town.phone(there, "bob", rest=True)
    call = await ann.request(bob, offer=offer("one"))
    await ann.send(call, candidate(1, "one"), candidate(2, "one"))
    await bob.accept(call, answer=answer("two"))
    await here.calls.refresh([call.id])
    kept = await there.calls.signals("bob", call.id, after=1)
    assert [signal.body for signal in kept] == [candidate(1, "one"), candidate(2, "one")]


async def test_what_is_told_late_is_told_of_the_call_as_it_is_then(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    """The job that tells of many calls after a crash takes its time; meanwhile some of them end."""
    town = Town(db, clock, ids)
    await town.people("ann", "bob", "cid", "dan")
    dying, heir = town.process("dying"), town.process("heir")
    rings: list[Call] = []
    for caller, callee in (("ann", "bob"), ("cid", "dan")):
        caller_phone = town.phone(dying, caller)

        async def dead(*_: Any, **__: Any) -> None:
            raise OSError

        dying.calls.announcer.announce = dead  # type: ignore[method-assign]
        rings.append(await caller_phone.request(town.phone(heir, callee)))
    dan, cid = town.phone(heir, "dan"), town.phone(heir, "cid")
    clock.pass_(4)
    announce = heir.calls.announcer.announce

    async def slow(call: Call, *args: Any, **more: Any) -> None:
        if call.id == rings[0].id:
            heir.calls.announcer.announce = announce  # type: ignore[method-assign]
            await cid.end(rings[1])
        await announce(call, *args, **more)

    heir.calls.announcer.announce = slow  # type: ignore[method-assign]
    await heir.calls.run_untold()
    assert "CALL_ENDED" in dan.told()
    no_ring_after_the_end(dan)


async def test_a_call_that_cannot_be_moved_holds_up_no_other(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = Town(db, clock, ids)
    await town.people("ann", "bob", "cid", "dan")
    here = town.process("here")
    broken = await town.phone(here, "ann").request(town.phone(here, "bob"))
    clock.pass_(0.1)
    sound = await town.phone(here, "cid").request(town.phone(here, "dan"))
    await db[CALLS].update_one({"_id": broken.id}, {"$set": {"caller_leg.of_a_newer_version": 1}})
    clock.pass_(60)
    heir = town.process("heir")  # knows of no call, and rings no alarm
    await heir.calls.run_due()
    assert (await town.call(sound)).state is State.ENDED


async def test_the_lease_job_of_one_process_survives_a_call_that_it_cannot_read(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = Town(db, clock, ids)
    await town.people("ann", "bob", "cid", "dan")
    here, heir = town.process("here"), town.process("heir")
    broken = await town.phone(here, "ann").request(town.phone(here, "bob"))
    sound = await town.phone(here, "cid").request(town.phone(here, "dan"))
    await db[CALLS].update_one({"_id": broken.id}, {"$set": {"caller_leg.of_a_newer_version": 1}})
    await here.calls.beat()
    clock.pass_(10)
    await heir.calls.run_orphaned(8)
    assert (await town.call(sound)).caller_leg.lost_at is not None


async def test_legs_that_are_known_to_be_lost_are_not_looked_for_again(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    """They would stand in the way of the rest: one look brings a bounded number of calls."""
    town = Town(db, clock, ids)
    await town.people("ann", "bob")
    here, heir = town.process("here"), town.process("heir")
    caller, callee = town.phone(here, "ann"), town.phone(here, "bob")
    call = await caller.request(callee)
    await callee.accept(call)
    await here.calls.beat()
    clock.pass_(10)
    assert len(await town.store.with_legs_outside(["heir"])) == 1
    await heir.calls.run_orphaned(8)
    assert (await town.call(call)).state is State.RECONNECTING
    assert await town.store.with_legs_outside(["heir"]) == []


async def test_a_process_that_begins_while_it_is_asked_who_lives_is_not_taken_for_dead(
    db: Database, clock: VirtualClock, ids: CountingIds, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = Town(db, clock, ids)
    await town.people("ann", "bob")
    here, new = town.process("here"), town.process("new")
    ask = here.calls._store.processes.living_and_working
    made: list[Call] = []

    async def asked_before(since: datetime) -> tuple[list[str], list[str]]:
        answer = await ask(since)
        await new.calls.beat()
        made.append(await town.phone(new, "ann").request(town.phone(new, "bob")))
        return answer

    monkeypatch.setattr(here.calls._store.processes, "living_and_working", asked_before)
    await here.calls.run_orphaned(8)
    assert (await town.call(made[0])).caller_leg.lost_at is None


async def test_calling_somebody_who_is_busy_counts_as_an_attempt(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    """E54: each leaves a missed call in the other's history, so there must not be any number of them."""
    town = Town(db, clock, ids)
    await town.people("ann", "bob", "eve")
    here = town.process("here")
    here.calls._rings = rings_of(db, clock, per_pair=6)
    bob, eve = town.phone(here, "bob"), town.phone(here, "eve")
    await town.phone(here, "ann").request(bob)
    codes = []
    for _ in range(10):
        with pytest.raises(Refusal) as no:
            await eve.request(bob)
        codes.append(no.value.code)
    assert codes == ["CALL_BUSY"] * 6 + ["RATE_LIMITED"] * 4
    assert len(await town.calls_of("eve")) == 6


async def test_an_op_id_of_another_request_never_answers_with_that_call(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    """E9, also when the first answer is no longer kept."""
    town = Town(db, clock, ids)
    await town.people("ann", "bob", "cid")
    here = town.process("here")
    ann, bob, cid = (town.phone(here, name) for name in ("ann", "bob", "cid"))
    first = await ann.request(bob, op_id="tap-1")
    assert (await ann.request(bob, op_id="tap-1")).id == first.id
    with pytest.raises(Refusal) as no:
        await ann.request(cid, op_id="tap-1")
    assert no.value.code == "IDEMPOTENCY_MISMATCH"
    assert cid.told() == []


async def test_candidates_for_a_call_that_ends_while_it_is_being_read_are_refused(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = Town(db, clock, ids)
    await town.people("ann", "bob")
    here, heir = town.process("here"), town.process("heir")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await ann.request(bob)
    load: Callable[[str], Awaitable[Call | None]] = heir.calls._store.load

    async def slow(call_id: str) -> Call | None:
        found = await load(call_id)
        heir.calls._store.load = load  # type: ignore[method-assign]
        await heir.calls.end_all("bob")
        return found

    heir.calls._store.load = slow  # type: ignore[method-assign]
    with pytest.raises(Refusal) as no:
        await heir.calls.signal("ann", ann.device_id, call.id, [""])
    assert no.value.code == "CALL_ENDED"


async def test_a_fact_that_nobody_told_is_told_although_the_call_keeps_changing(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    """Quality reports come more often than the job waits; the fact is as old as it is all the same."""
    town = Town(db, clock, ids)
    await town.people("ann", "bob")
    here = town.process("here")
    ann, bob = town.phone(here, "ann").connect(), town.phone(here, "bob").connect()
    call = await ann.request(bob)
    announce = here.calls.announcer.announce

    async def dead(*_: Any, **__: Any) -> None:
        raise OSError

    here.calls.announcer.announce = dead  # type: ignore[method-assign]
    await bob.accept(call)
    here.calls.announcer.announce = announce  # type: ignore[method-assign]
    assert "CALL_ACCEPT" not in ann.told()
    for _ in range(3):
        clock.pass_(2)
        await ann.hears(call, 32)
        await bob.hears(call, 32)
    await here.jobs()
    assert ann.told().count("CALL_ACCEPT") == 1


async def test_flapping_media_does_not_make_a_call_grow_for_ever(
    db: Database, clock: VirtualClock, ids: CountingIds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.calls.moves.INTERVALS_MAX", 5)
    town = Town(db, clock, ids)
    await town.people("ann", "bob")
    here = town.process("here")
    ann, bob = town.phone(here, "ann").connect(), town.phone(here, "bob").connect()
    call = await ann.request(bob)
    await bob.accept(call)
    for _ in range(10):
        clock.pass_(1)
        await ann.hears(call, 32)
        clock.pass_(1)
        call = await ann.hears(call, 0)
    assert len(call.intervals) == 5
    assert (await bob.end(call)).end_reason is Reason.COMPLETED


class Till(WalletMeter):
    """A meter that cannot be reached the first time it has to settle."""

    asked: list[str]

    async def close(self, call: Call) -> None:
        self.asked.append(call.id)
        if len(self.asked) == 1:
            raise OSError
        await super().close(call)


async def test_e07_what_an_early_cancel_had_reserved_is_settled_in_the_end(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town = Town(db, clock, ids)
    await town.people("ann", "bob")
    here = town.process("here")
    here.meter.__class__, till = Till, here.meter
    till.asked = []
    ann, bob = town.phone(here, "ann").connect(), town.phone(here, "bob").connect()
    assert await here.calls.end(ann.device, op_id="tap") is None
    call = await ann.request(bob, op_id="tap")
    assert call.end_reason is Reason.CANCELLED
    clock.pass_(5)
    await here.jobs()
    await here.jobs()
    assert till.asked == [call.id, call.id]
    assert bob.told() == []
    assert await db[CALLS].find_one({"untold": {"$exists": True}}) is None

"""E30 to E42 of the calls' edge cases: lost sockets, lost media, take-overs, clocks."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from models.calls.call import Call, Reason, State
from models.db import Database
from models.errors import Refusal
from server import clock as server_clock
from server.clock import SystemClock
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Phone, Process, Race, Town, answer, greeting, offer


@pytest.fixture
async def town(db: Database, clock: VirtualClock, ids: CountingIds) -> Town:
    built = Town(db, clock, ids)
    await built.people("ann", "bob", "cid")
    return built


@pytest.fixture
def here(town: Town) -> Process:
    return town.process("p1")


async def refused(verb: Any) -> Refusal:
    with pytest.raises(Refusal) as no:
        await verb
    return no.value


async def talking(ann: Phone, bob: Phone, *, reports: bool = False) -> Call:
    call = await ann.request(bob, offer=offer("a1"), reports_media=reports)
    call = await bob.accept(call, answer=answer("b1"), reports_media=reports)
    if reports:
        await ann.connected(call)
        call = await bob.connected(call)
    assert call.state is State.ACTIVE
    return call


async def test_a_socket_that_comes_while_the_call_of_the_one_before_is_sought_is_not_lost(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    store = here.calls._store
    asked, answered = asyncio.Event(), asyncio.Event()

    class Slow:
        """The question which call the lost socket had is answered late."""

        async def lock_of(self, user_id: str) -> Any:
            asked.set()
            await answered.wait()
            return await store.lock_of(user_id)

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    here.calls._store = Slow()
    losing = asyncio.create_task(ann.drop())
    await asked.wait()
    call = await ann.request(bob)  # it was on its way when the socket went
    await ann.back()
    answered.set()
    await losing
    assert (await town.call(call)).caller_leg.lost_at is None
    await town.pass_(town.timers.caller_grace + 5, here)
    assert (await town.call(call)).state is State.RINGING


async def test_e30_a_phone_that_changes_networks_talks_on_in_the_same_call_and_the_gap_is_not_counted(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    await town.pass_(100, here, step=20)
    # No FIN: the heartbeat's silence is noticed after 15 s, and the phone was last heard of 15 s ago.
    town.clock.pass_(15)
    await ann.drop(unheard_seconds=15)
    assert (await town.call(call)).state is State.RECONNECTING
    assert bob.letters("CALL_UPDATED")[-1]["call"]["state"] == "reconnecting"
    await town.pass_(5, here)
    await ann.back()
    again = await ann.resume(call)
    assert (again.id, again.state) == (call.id, State.ACTIVE)
    town.clock.pass_(40)
    over = await ann.end(call)
    assert over.spoken_seconds() == 140
    assert over.duration_seconds() == 160
    assert [(i.end - i.start).seconds for i in over.intervals if i.end] == [100, 40]


async def test_e30_a_new_socket_before_the_old_ones_death_was_noticed_costs_nothing(
    town: Town, here: Process
) -> None:
    there = town.process("p2")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    old = Phone(here, "ann", ann.device_id)
    await ann.back(there)
    await old.drop(unheard_seconds=10)
    assert (await town.call(call)).state is State.ACTIVE, "the old socket's process has no lease any more"


async def test_e31_both_networks_gone_for_ten_seconds_is_survived(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    town.clock.pass_(10)
    await ann.drop()
    await bob.drop()
    await town.pass_(10, here)
    await ann.back()
    await ann.resume(call)
    assert (await town.call(call)).state is State.RECONNECTING, "one of them is still away"
    await bob.back()
    assert (await bob.resume(call)).state is State.ACTIVE


async def test_e31_after_thirty_seconds_the_call_is_lost_once(town: Town, here: Process) -> None:
    there = town.process("p2")
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    town.clock.pass_(10)
    await ann.drop()
    await bob.drop()
    town.clock.pass_(31)
    await Race(7).run(here=here.calls.tick(call.id), there=there.calls.tick(call.id))
    await town.pass_(4, here, there)
    over = await town.call(call)
    assert over.end_reason is Reason.CONNECTION_LOST
    assert over.spoken_seconds() == 10
    assert over.ended_at == over.intervals[-1].end + timedelta(seconds=30)  # type: ignore[operator]
    for name in ("ann", "bob"):
        assert (await town.log(name)).count("CALL_ENDED") == 1
    await town.audit()


async def test_e32_without_a_socket_but_with_media_the_call_goes_on_as_long_as_it_is_proven(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    await bob.hears(call, 800)
    await ann.drop()
    for _ in range(6):
        town.clock.pass_(10)
        await bob.hears(call, 800)
        await here.jobs()
        assert (await town.call(call)).state is State.ACTIVE
    proven = town.clock.now()
    await town.pass_(16, here)
    now = await town.call(call)
    assert (now.state, now.intervals[-1].end) == (State.RECONNECTING, proven), "counted to the last proof"
    await town.pass_(30, here)
    over = await town.call(call)
    assert (over.end_reason, over.spoken_seconds()) == (Reason.CONNECTION_LOST, 60)


async def test_e32_media_that_the_other_still_hears_brings_a_leg_without_a_socket_back(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    town.clock.pass_(10)
    await ann.drop()
    assert (await town.call(call)).state is State.RECONNECTING
    town.clock.pass_(5)
    assert (await bob.hears(call, 800)).state is State.ACTIVE
    town.clock.pass_(5)
    assert (await bob.end(call)).spoken_seconds() == 15


async def test_e33_without_media_but_with_sockets_an_ice_restart_is_asked_for_and_nothing_counted(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob, reports=True)
    town.clock.pass_(10)
    await bob.hears(call, 800)
    town.clock.pass_(4)
    await bob.hears(call, 0)
    now = await town.call(call)
    assert (now.state, now.spoken_seconds()) == (State.RECONNECTING, 10)
    for phone in (ann, bob):
        assert phone.letters("CALL_UPDATED")[-1]["restartIce"] is True
    await ann.describe(call, offer("a2"))
    await bob.describe(call, answer("b2"))
    town.clock.pass_(2)
    await bob.hears(call, 800)
    assert (await town.call(call)).state is State.ACTIVE
    town.clock.pass_(5)
    assert (await ann.end(call)).spoken_seconds() == 15


async def test_e34_an_app_that_was_killed_rejoins_or_calls_the_same_person_again(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    await ann.drop()
    town.clock.pass_(10)
    await ann.back()
    (live,) = await here.calls.recent("ann")
    assert (live.id, live.state) == (call.id, State.RECONNECTING)
    assert (await ann.resume(call)).state is State.ACTIVE
    await ann.drop()
    town.clock.pass_(10)
    await ann.back()
    again = await ann.request(bob)
    assert again.id != call.id
    assert again.state is State.RINGING
    assert (await town.call(call)).end_reason is Reason.CONNECTION_LOST
    assert bob.told()[-2:] == ["CALL_ENDED", "CALL_REQUEST"]
    await town.audit()


async def test_e34_the_other_one_calls_back_after_the_crash(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    await ann.drop()
    town.clock.pass_(5)
    again = await bob.request(ann)
    assert (again.state, again.caller.user_id) == (State.RINGING, "bob")
    assert (await town.call(call)).end_reason is Reason.COMPLETED
    await town.audit()


async def test_e35_after_an_app_that_never_comes_back_both_can_call_within_45_seconds(
    town: Town, here: Process
) -> None:
    for state in ("ringing", "accepted", "active"):
        ann, bob, cid = (town.phone(here, name) for name in ("ann", "bob", "cid"))
        call = await ann.request(bob, reports_media=True)
        if state != "ringing":
            await bob.accept(call, reports_media=True)
        if state == "active":
            await ann.connected(call)
            await bob.connected(call)
        here.doors.disconnect("ann", ann.device_id)  # and nobody says so: the lease job has to find out
        await town.pass_(45, here)
        assert (await town.call(call)).state is State.ENDED, state
        assert await town.locks() == {}
        ring = await cid.request(bob)
        await cid.end(ring)


async def test_e36_two_sockets_resume_and_the_newest_has_the_leg(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob", "phone")
    tablet = town.phone(here, "bob", "tablet")
    call = await talking(ann, bob)
    taken = await tablet.resume(call)
    assert taken.callee_leg is not None
    assert (taken.callee_leg.device_id, taken.callee_leg.epoch, taken.state) == ("tablet", 2, State.ACTIVE)
    assert bob.letters("CALL_ANSWERED_ELSEWHERE")[-1]["by"] == "takeover"
    assert [x["by"] for x in tablet.letters("CALL_ANSWERED_ELSEWHERE")] == ["accept"]
    await bob.drop()
    now = await town.call(call)
    assert now.state is State.ACTIVE, "the old device's socket is nobody's leg"
    assert now.version == taken.version, "and no ping-pong"


async def test_e36_two_devices_resume_at_once_and_one_has_the_leg(town: Town) -> None:
    for seed in range(12):
        here, there = town.process(f"h{seed}", raced=True), town.process(f"t{seed}", raced=True)
        ann, phone = town.phone(here, "ann"), town.phone(here, "bob", "phone")
        call = await talking(ann, phone)
        tablet, desk = town.phone(there, "bob", "tablet"), town.phone(here, "bob", "desk")
        await Race(seed).run(tablet=tablet.resume(call), desk=desk.resume(call))
        now = await town.call(call)
        assert now.callee_leg is not None
        assert now.callee_leg.device_id in ("tablet", "desk")
        assert (now.callee_leg.epoch, now.state) == (3, State.ACTIVE)
        await ann.end(call)


async def test_e37_after_a_takeover_the_old_device_is_refused(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob", "phone")
    tablet = town.phone(here, "bob", "tablet")
    call = await talking(ann, bob)
    await tablet.resume(call)
    for verb in (
        bob.describe(call, offer("late")),
        bob.connected(call),
        bob.hears(call, 800),
        bob.send(call, None),
        here.calls.ask_upgrade(bob.device, call.id, type="video"),
        bob.accept(call),
    ):
        assert (await refused(verb)).code == "CALL_ANSWERED_ELSEWHERE"
    assert ann.letters("SESSION_DESCRIPTION") == []


async def test_e37_a_caller_takes_a_ring_over_to_another_device(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann", "phone"), town.phone(here, "bob")
    laptop = town.phone(here, "ann", "laptop")
    call = await ann.request(bob, offer=offer("phone"))
    await laptop.resume(call, offer=offer("laptop"))
    assert ann.told() == ["CALL_ANSWERED_ELSEWHERE"]
    accepted = await bob.accept(call, answer=answer("for the phone"))
    assert accepted.negotiation.pending, "Bob's answer was to the offer of a device that has left"
    assert "answer" not in laptop.letters("CALL_ACCEPT")[0]
    assert [x["description"] for x in bob.letters("SESSION_DESCRIPTION")] == [offer("laptop")]
    await bob.describe(call, answer("for the laptop"))
    assert [x["description"] for x in laptop.letters("SESSION_DESCRIPTION")] == [answer("for the laptop")]


@pytest.mark.parametrize("state", ["ringing", "accepted", "active", "reconnecting"])
async def test_e38_after_the_loss_of_a_process_every_call_ends_by_its_deadlines(
    town: Town, here: Process, state: str
) -> None:
    """The processes' part of it is in the door tests; crashes between awaits are in ``test_calls_crashes``."""
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    await here.jobs()
    call = await ann.request(bob, reports_media=True)
    if state != "ringing":
        await bob.accept(call, reports_media=True)
    if state in ("active", "reconnecting"):
        await ann.connected(call)
        await bob.connected(call)
    if state == "reconnecting":
        await ann.drop()
    assert (await town.call(call)).state == state
    fresh = town.process("fresh")
    await town.pass_(45, fresh)
    over = await town.call(call)
    reason = {"ringing": Reason.CALLER_LOST, "accepted": Reason.CONNECT_FAILED}
    assert over.end_reason is reason.get(state, Reason.SERVER_RECOVERED)
    await town.audit()
    assert (await town.log("bob"))[-1] == "CALL_ENDED"


async def test_e39_phones_that_move_from_a_process_that_drains_keep_their_call_and_miss_nothing(
    town: Town, here: Process
) -> None:
    """That a device is told nothing twice is the doors' part."""
    there = town.process("p2")
    await there.calls.beat()  # as every process does before it takes sockets
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    heard: dict[str, set[int]] = {"ann": set(), "bob": set()}
    for phone in (ann, bob):
        heard[phone.user_id] |= {letter.seq for letter in phone.inbox if letter.seq}
        here.doors.disconnect(phone.user_id, phone.device_id)  # sent away: not lost
        await here.calls.ask_upgrade(ann.device, call.id, type="video")
        await here.calls.answer_upgrade(bob.device, call.id, accept=False)
        town.clock.pass_(1)
        _, missed = await greeting(await phone.back(there), max(heard[phone.user_id], default=0))
        heard[phone.user_id] |= {letter.seq for letter in missed if letter.seq}
        await here.jobs()
        await there.jobs()
    await here.calls.flush_told()
    here.life.dead = True
    await town.pass_(60, there)
    assert (await town.call(call)).state is State.ACTIVE
    assert (await ann.end(call)).spoken_seconds() == 62
    for phone in (ann, bob):
        heard[phone.user_id] |= {letter.seq for letter in phone.inbox if letter.seq}
        missed = (await there.mailbox.missed(phone.user_id, phone.device_id, 0)).letters
        assert heard[phone.user_id] == {letter.seq for letter in missed}


async def test_e40_a_hang_up_of_what_is_over_or_unknown_clears_the_screen(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    await ann.end(call)
    for phone in (ann, bob, town.phone(town.process("p2"), "bob")):
        over = await phone.end(call)
        assert (over.state, over.end_reason, over.ended_by) == (State.ENDED, Reason.COMPLETED, "ann")
    assert (await bob.reject(call)).end_reason is Reason.COMPLETED
    assert ann.told().count("CALL_ENDED") == 1
    no = await refused(here.calls.end(ann.device, call_id="01950000-0000-7000-8000-ffffffffffff"))
    assert no.code == "CALL_UNKNOWN"
    assert await here.calls.end(ann.device, op_id="never came") is None


async def test_e41_the_ring_counts_from_the_servers_start_whatever_a_client_believes(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), Phone(here, "bob", "bob-phone")
    await ann.request(bob)
    town.clock.pass_(30)
    (ring,) = await here.mailbox.rings("bob", [(await here.calls.recent("bob"))[0].id])
    assert ring.rings_until is not None
    assert (ring.rings_until - town.clock.now()).total_seconds() == 15


async def test_e41_a_process_whose_clock_is_five_minutes_behind_changes_neither_ring_nor_charge(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    town.clock.pass_(60)
    await ann.drop()
    ahead = town.clock.now()
    town.clock.pass_(-300)
    await ann.back()
    await ann.resume(call)
    over = await bob.end(call)
    assert over.ended_at == ahead
    assert over.spoken_seconds() == 60


def test_e41_the_servers_clock_does_not_follow_a_jump_of_the_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both clocks of the machine are taken in hand: the wall clock jumps, the monotonic one goes on."""

    class Machine:
        seconds, jump = 1000.0, timedelta()
        CLOCK_MONOTONIC = 0

        @classmethod
        def clock_gettime(cls, _: int) -> float:
            return cls.seconds

    wall = VirtualClock().now()

    class Wall:
        @staticmethod
        def now(_: Any) -> Any:
            return wall + timedelta(seconds=Machine.seconds - 1000.0) + Machine.jump

    monkeypatch.setattr(server_clock, "time", Machine)
    monkeypatch.setattr(server_clock, "datetime", Wall)
    clock = SystemClock()
    before = clock.now()
    Machine.jump = timedelta(minutes=-5)
    last = before
    for _ in range(45):
        Machine.seconds += 1
        assert clock.now() > last
        last = clock.now()
    assert abs((last - before).total_seconds() - 45) < 0.1, "a ring of 45 s is one of 45 s"


async def test_e42_a_locked_screen_stops_the_heartbeat_and_not_the_call(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob, reports=True)
    for second in range(0, 60, 5):
        town.clock.pass_(5)
        await bob.hears(call, 600)
        if second == 15:
            await ann.drop(unheard_seconds=15)
        await here.jobs()
    assert (await town.call(call)).state is State.ACTIVE
    await ann.back()
    town.clock.pass_(5)
    over = await ann.end(call)
    assert over.spoken_seconds() == 65, "and every second was proven"


async def test_a_call_that_never_connects_ends_after_thirty_seconds_for_nothing(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await ann.request(bob, reports_media=True)
    await bob.accept(call, reports_media=True)
    await bob.connected(call)
    await town.pass_(30, here, step=10)
    over = await town.call(call)
    assert (over.end_reason, over.cost_minor, over.intervals) == (Reason.CONNECT_FAILED, 0, ())


async def test_the_longest_call_ends_by_itself(town: Town, here: Process) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    assert here.alarms.armed[call.id] == town.clock.now() + timedelta(hours=4)
    town.clock.pass_(4 * 3600)
    await here.calls.tick(call.id)
    over = await town.call(call)
    assert (over.end_reason, over.spoken_seconds()) == (Reason.MAX_DURATION, 4 * 3600)


async def test_a_block_or_a_ban_ends_the_conversation_at_once_on_both_sides(
    town: Town, here: Process
) -> None:
    ann, bob = town.phone(here, "ann"), town.phone(here, "bob")
    call = await talking(ann, bob)
    await here.users.block("ann", "cid")
    assert (await town.call(call)).state is State.ACTIVE, "a block of somebody else is nothing to this call"
    await here.users.block("ann", "bob")
    assert (await town.call(call)).end_reason is Reason.POLICY
    assert ann.letters("CALL_ENDED")[0]["reason"] == bob.letters("CALL_ENDED")[0]["reason"] == "policy"
    call = await talking(town.phone(here, "cid"), bob)
    await here.calls.end_all("cid")
    assert (await town.call(call)).end_reason is Reason.POLICY
    await town.audit()

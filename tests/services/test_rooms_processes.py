"""Rooms that several processes serve: lost sockets, dead processes, races, and death between any two steps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest

from models.db import Database
from models.errors import Refusal
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Killed
from tests.services.roomkit import DEAD_AFTER_SECONDS, Phone, RoomHouse


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds) -> RoomHouse:
    built = RoomHouse(db, clock, ids)
    await built.people("ada", "bob", "eve", "kim")
    return built


async def met(house: RoomHouse, *phones: Phone, **fields: Any) -> str:
    """A room of ada's in which these phones are; its id."""
    room_id = await house.room(phones[0].process, **fields)
    for phone in phones:
        await phone.join(room_id)
    return room_id


# ------------------------------------------------------------------------------------------------------ lost sockets


async def test_a_device_back_within_the_grace_was_never_gone(house: RoomHouse) -> None:
    p = await house.process("p1")
    a, b = house.phone(p, "ada"), house.phone(p, "bob")
    room_id = await met(house, a, b)
    await b.drop()
    await house.pass_(house.timers.grace - 1, p)
    await house.phone(p, "eve").join(room_id)
    await b.back()
    await house.pass_(60, p)
    assert a.comings_and_goings() == ["+bob", "+eve"]
    (now,) = b.heard("room-updated")
    assert [one["id"] for one in now["room"]["participants"]] == ["ada", "bob", "eve"]
    await a.say(room_id, "hello")
    assert len(b.heard("chat-message")) == 1
    await house.audit()


async def test_a_device_that_stays_away_leaves_after_the_grace(house: RoomHouse) -> None:
    p = await house.process("p1")
    a, b = house.phone(p, "ada"), house.phone(p, "bob")
    room_id = await met(house, a, b)
    await b.drop()
    due = p.alarms.armed[f"room:{room_id}"]
    assert (due - house.clock.now()).total_seconds() == house.timers.grace
    house.clock.pass_(house.timers.grace)
    await p.rooms.alarm(f"room:{room_id}")
    assert a.comings_and_goings() == ["+bob", "-bob"]
    await b.back()
    assert b.heard("room-updated") == [], "it is in no room"
    await house.audit()


async def test_a_socket_that_nobody_said_is_gone_is_found_by_the_leases(house: RoomHouse) -> None:
    p = await house.process("p1")
    a, b = house.phone(p, "ada"), house.phone(p, "bob")
    await met(house, a, b)
    p.doors.disconnect("bob", "bob-phone")
    await house.pass_(house.timers.grace + 4, p)
    assert a.comings_and_goings() == ["+bob", "-bob"]


async def test_a_device_of_another_means_is_nobodys_socket(house: RoomHouse) -> None:
    """What a media server tells: it has no socket here that could be lost."""
    p = await house.process("p1")
    a = house.phone(p, "ada")
    room_id = await met(house, a)
    await p.rooms.entered(room_id=room_id, user_id="bob", device_id="livekit:1")
    await house.pass_(60, p)
    assert a.comings_and_goings() == ["+bob"]
    seen = house.clock.now()
    house.clock.pass_(5)
    for _ in range(2):
        await p.rooms.left(room_id=room_id, user_id="bob", device_id="livekit:1", at=seen)
    assert a.comings_and_goings() == ["+bob", "-bob"]
    with pytest.raises(Refusal):
        await p.rooms.entered(room_id="none", user_id="bob", device_id="livekit:1")


# --------------------------------------------------------------------------------------------------- other processes


async def test_who_was_at_a_process_that_only_slept_keeps_their_place(house: RoomHouse) -> None:
    p1, p2 = await house.process("p1"), await house.process("p2")
    a, b = house.phone(p1, "ada"), house.phone(p2, "bob")
    await met(house, a, b)
    await p1.jobs()
    await house.pass_(DEAD_AFTER_SECONDS + 4, p1)  # the other one sleeps, and its seat is lost
    await house.pass_(house.timers.grace + 20, p2, p1)
    assert a.comings_and_goings() == ["+bob"]
    await house.audit()


async def test_people_at_two_processes_meet(house: RoomHouse) -> None:
    p1, p2 = await house.process("p1"), await house.process("p2")
    a, b = house.phone(p1, "ada"), house.phone(p2, "bob")
    room_id = await met(house, a, b)
    await p1.jobs()
    assert a.comings_and_goings() == ["+bob"]
    assert [u["id"] for u in b.heard("existing-users")[0]["users"]] == ["ada"]
    assert p1.presence.state_of("bob") == p2.presence.state_of("ada") == "in_call"
    await a.say(room_id, "hello")
    await b.leave(room_id)
    await p2.jobs()
    await p1.jobs()
    assert len(b.heard("chat-message")) == 1
    assert a.comings_and_goings() == ["+bob", "-bob"]
    assert p1.presence.state_of("bob") == "offline", "not at this process, and in no room"


async def test_a_signal_for_a_device_at_another_process_goes_by_the_log(house: RoomHouse) -> None:
    p1, p2 = await house.process("p1"), await house.process("p2")
    a, b, e = house.phone(p1, "ada"), house.phone(p2, "bob"), house.phone(p1, "eve")
    room_id = await met(house, a, b, e)
    (here,) = p1.rooms.addressees(a.device, room_id, "eve") or []
    (there,) = await p1.rooms.route(a.device, room_id, "bob")
    assert (p1.rooms.elsewhere([here]), p1.rooms.elsewhere([there])) == (False, True)
    assert p1.rooms.signal_key() != p1.rooms.signal_key()


async def test_a_no_from_memory_is_asked_for_again(house: RoomHouse) -> None:
    """What another process has just done is not known here yet."""
    p1, p2 = await house.process("p1"), await house.process("p2")
    a, b = house.phone(p1, "ada"), house.phone(p2, "bob")
    room_id = await met(house, a)
    await b.join(room_id)
    assert p1.rooms.addressees(a.device, room_id, "bob") is None
    assert await a.to(room_id, "bob") == ["bob"]
    await p2.rooms.kick("ada", room_id, "bob")
    await p1.rooms.refresh()
    with pytest.raises(Refusal) as no:
        await a.to(room_id, "bob")
    assert no.value.code == "TARGET_UNKNOWN"


async def test_a_signal_for_all_asks_who_has_come_at_another_process(house: RoomHouse) -> None:
    p1, p2 = await house.process("p1"), await house.process("p2")
    a, b, e = house.phone(p1, "ada"), house.phone(p1, "bob"), house.phone(p2, "eve")
    room_id = await met(house, a, b)
    await e.join(room_id)
    assert p1.rooms.addressees(a.device, room_id, None) is None
    assert await a.to(room_id) == ["bob", "eve"]
    assert p1.rooms.addressees(a.device, room_id, "bob") is not None, "a named one may be asked of memory"


async def test_a_phone_moves_to_another_process_and_nobody_hears_of_it(house: RoomHouse) -> None:
    p1, p2 = await house.process("p1"), await house.process("p2")
    a, b = house.phone(p1, "ada"), house.phone(p1, "bob")
    room_id = await met(house, a, b)
    p1.doors.disconnect("bob", "bob-phone")
    await b.back(p2)
    await p1.rooms.lost("bob", "bob-phone", "p1", house.clock.now())
    await house.pass_(40, p1, p2)
    assert a.comings_and_goings() == ["+bob"]
    assert (await house.truth(room_id)).present[1].seats[0].process == "p2"


async def test_nobody_loses_a_seat_at_a_process_that_others_have_not_heard_of_yet(house: RoomHouse) -> None:
    p1, p2 = await house.process("p1"), await house.process("p2")
    b = house.phone(p2, "bob")
    await met(house, house.phone(p1, "ada"), b)
    await p1.rooms.run_orphaned(DEAD_AFTER_SECONDS, living=["p1"])
    (room,) = await p1.rooms._store.occupied()
    assert [seat.lost_at for one in room.participants for seat in one.seats] == [None, None]


async def test_nobody_loses_a_seat_at_a_process_that_begins_while_it_is_asked_who_lives(
    house: RoomHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    p1, p2 = await house.process("p1"), await house.process("p2")
    await met(house, house.phone(p1, "ada"), house.phone(p2, "bob"))

    async def asked_before(since: datetime) -> dict[str, datetime]:
        return {"p1": since}

    monkeypatch.setattr(p1.rooms._processes, "living", asked_before)
    await p1.rooms.run_orphaned(DEAD_AFTER_SECONDS)
    (room,) = await p1.rooms._store.occupied()
    assert [seat.lost_at for one in room.participants for seat in one.seats] == [None, None]


async def test_the_devices_of_a_killed_process_are_gone_since_its_last_beat(house: RoomHouse) -> None:
    p1, p2 = await house.process("p1"), await house.process("p2")
    a, b = house.phone(p1, "ada"), house.phone(p2, "bob")
    room_id = await met(house, a, b)
    await house.pass_(10, p1, p2)
    last_beat = house.clock.now()
    await house.pass_(DEAD_AFTER_SECONDS, p1)
    assert a.comings_and_goings() == ["+bob"], "its phones may come back to another one"
    await house.pass_(house.timers.grace + 2 - DEAD_AFTER_SECONDS, p1)
    assert a.comings_and_goings() == ["+bob", "-bob"]
    await a.leave(room_id)
    (line,) = await house.logs(room_id)
    assert line.ended_at == house.clock.now()
    assert line.user_ids == ("ada", "bob")
    assert (house.clock.now() - last_beat).total_seconds() <= house.timers.grace + 2


async def test_all_processes_killed_leave_no_log_open_and_no_stay_running(house: RoomHouse) -> None:
    p1 = await house.process("p1")
    b, e = house.phone(p1, "bob"), house.phone(p1, "eve")
    room_id = await met(house, b, e, rate_per_minute_minor=100)
    await house.pass_(10, p1)
    beat = house.clock.now()
    house.clock.pass_(3600)
    heir = await house.process("p2")
    await heir.jobs()
    await heir.jobs()
    (line,) = await house.logs(room_id)
    assert line.ended_at == beat
    assert {at for at, _ in house.till.ended.values()} == {beat}, (
        "nobody pays for the time in which nothing ran"
    )
    await house.audit()


async def test_phones_of_a_restarted_server_are_back_in_their_room(house: RoomHouse) -> None:
    p1 = await house.process("p1")
    a, b = house.phone(p1, "ada"), house.phone(p1, "bob")
    room_id = await met(house, a, b)
    await house.pass_(2, p1)
    house.clock.pass_(5)
    p2 = await house.process("p2")
    await a.back(p2)
    await b.back(p2)
    await house.pass_(60, p2)
    assert await house.present(room_id) == ["ada", "bob"]
    assert await a.to(room_id, "bob") == ["bob"]
    assert (a.comings_and_goings(), len(a.heard("room-updated"))) == ([], 1)


# ------------------------------------------------------------------------------------------------------------- races


async def test_of_forty_at_two_doors_exactly_eight_get_in(house: RoomHouse) -> None:
    p1, p2 = await house.process("p1"), await house.process("p2")
    names = [f"u{n:02}" for n in range(40)]
    await house.people(*names)
    room_id = await house.room(p1)
    phones = [house.phone((p1, p2)[n % 2], name) for n, name in enumerate(names)]

    async def try_(phone: Phone) -> str:
        try:
            await phone.join(room_id)
        except Refusal as no:
            return no.code
        return "in"

    outcomes = await asyncio.gather(*(try_(phone) for phone in phones))
    assert sorted(outcomes) == ["ROOM_FULL"] * 32 + ["in"] * 8
    inside = {phone.user_id for phone, outcome in zip(phones, outcomes, strict=True) if outcome == "in"}
    assert set(await house.present(room_id)) == inside
    (line,) = await house.logs(room_id)
    assert set(line.user_ids) == inside
    await house.audit()


async def test_the_database_itself_takes_no_more_than_a_room_holds(house: RoomHouse) -> None:
    p = await house.process("p1")
    room_id = await met(house, house.phone(p, "ada"), house.phone(p, "bob"), capacity=2)
    with pytest.raises(Exception, match="failed validation"):
        await house.db["rooms"].update_one({"_id": room_id}, {"$push": {"participants": {"user_id": "eve"}}})


async def test_places_that_come_and_go_at_two_processes_never_run_over(house: RoomHouse) -> None:
    p1, p2 = await house.process("p1"), await house.process("p2")
    names = [f"u{n}" for n in range(8)]
    await house.people(*names)
    room_id = await house.room(p1, capacity=3, rate_per_minute_minor=100)
    seen: list[int] = []

    async def restless(phone: Phone) -> None:
        for _ in range(4):
            try:
                await phone.join(room_id)
            except Refusal:
                continue
            seen.append(len((await house.truth(room_id)).participants))
            await phone.leave(room_id)

    await asyncio.gather(*(restless(house.phone((p1, p2)[n % 2], name)) for n, name in enumerate(names)))
    assert max(seen) <= 3
    assert await house.present(room_id) == []
    await house.audit()


async def test_the_same_person_joining_twice_at_once_pays_once(house: RoomHouse) -> None:
    p1, p2 = await house.process("p1"), await house.process("p2")
    room_id = await house.room(p1, rate_per_minute_minor=100)
    b, tablet = house.phone(p1, "bob"), house.phone(p2, "bob", "tablet")
    await asyncio.gather(b.join(room_id), tablet.join(room_id))
    (bob,) = (await house.truth(room_id)).present
    assert sorted(bob.devices) == ["bob-phone", "tablet"]
    assert len(house.till.running) == 1
    await house.audit()


async def test_messages_said_at_two_processes_have_dense_numbers(house: RoomHouse) -> None:
    p1, p2 = await house.process("p1"), await house.process("p2")
    a, b = house.phone(p1, "ada"), house.phone(p2, "bob")
    room_id = await met(house, a, b)
    await asyncio.gather(*((a, b)[n % 2].say(room_id, str(n)) for n in range(30)))
    page = await p1.talk.page("ada", room_id, before=None, after=None, limit=99)
    assert [said.line.seq for said in page.items] == list(range(30, 0, -1))
    await p1.jobs()
    await p2.jobs()
    for phone in (a, b):
        numbers = [one["seq"] for one in phone.heard("chat-message")]
        assert len(numbers) == len(set(numbers)) == 15


# ------------------------------------------------------------------------------------------------------------ crashes

Verb = Callable[[RoomHouse, str, Phone], Awaitable[Any]]


async def _join(house: RoomHouse, room_id: str, phone: Phone) -> None:
    await phone.join(room_id)


async def _leave(house: RoomHouse, room_id: str, phone: Phone) -> None:
    await phone.join(room_id)
    await phone.leave(room_id)


async def _say(house: RoomHouse, room_id: str, phone: Phone) -> None:
    await phone.join(room_id)
    await phone.say(room_id, "hello", "1")


async def _invite(house: RoomHouse, room_id: str, phone: Phone) -> None:
    await phone.process.rooms.invite("ada", room_id, ["kim"])


async def _kick(house: RoomHouse, room_id: str, phone: Phone) -> None:
    await phone.join(room_id)
    await phone.process.rooms.kick("ada", room_id, "bob")


async def _close(house: RoomHouse, room_id: str, phone: Phone) -> None:
    await phone.join(room_id)
    await phone.process.rooms.close("ada", room_id)


async def _end_log(house: RoomHouse, room_id: str, phone: Phone) -> None:
    await phone.join(room_id)
    await phone.process.rooms.end_log("ada", room_id)


# More than any of these verbs calls the driver.
STEPS_MAX = 60


@pytest.mark.parametrize("verb", [_join, _leave, _say, _invite, _kick, _close, _end_log])
async def test_a_process_may_die_at_any_step_and_nothing_is_lost_doubled_or_stuck(
    house: RoomHouse, verb: Verb
) -> None:
    heir = await house.process("heir")
    witness = house.phone(heir, "eve")
    survived = False
    for step in range(1, STEPS_MAX):
        dying = await house.process(f"dying-{step}")
        house.phone(dying, "bob")
        room_id = await house.room(heir, rate_per_minute_minor=100)
        await witness.join(room_id)
        await dying.rooms.refresh()
        before = len(witness.inbox)
        dying.life.calls, dying.life.dies_at = 0, step
        try:
            await verb(house, room_id, Phone(dying, "bob", "bob-phone"))
            survived = True
        except Killed:
            pass
        dying.life.dead = True
        # Until it is known to be dead, its socket's grace is over, and nobody has come to a place by then.
        for seconds in (DEAD_AFTER_SECONDS + 1, house.timers.grace, house.timers.arrive):
            await house.pass_(seconds, heir, step=seconds)
        await heir.jobs()
        await house.audit(sessions=verb is not _end_log)
        assert "bob" not in await house.present(room_id), "its socket went with the process"
        told = witness.told_once(before, room_id)
        marks = [x.event[5:] + x.payload.get("userId", "") for x in told if x.event.startswith("user-")]
        if verb is _close and not (await house.truth(room_id)).open:
            marks += ["disconnectedbob"] * len(marks)  # all went at once, and were told that
        assert marks in ([], ["connectedbob", "disconnectedbob"]), marks
        said = [x for x in told if x.event == "chat-message"]
        page = await heir.talk.page("ada", room_id, before=None, after=None, limit=9)
        assert len(said) == len(page.items) <= 1
        if (await house.truth(room_id)).open:
            await witness.leave(room_id)
        else:
            assert [x.event for x in told].count("room-closed") == 1
        house.processes.remove(dying)
        if survived:
            break
    assert survived, "STEPS_MAX is too small"
    assert step > 5


async def test_a_process_that_dies_with_the_money_taken_leaves_no_stay_running(house: RoomHouse) -> None:
    heir, dying = await house.process("heir"), await house.process("dying")
    room_id = await house.room(heir, rate_per_minute_minor=100)
    house.till.dies_after_begin = dying.life
    came = house.clock.now()
    with pytest.raises(Killed):
        await house.phone(dying, "bob").join(room_id)
    assert list(house.till.running.values()) == ["bob"]
    await house.pass_(house.timers.arrive + 2, heir)
    ((at, _),) = house.till.ended.values()
    assert at == came, "nobody was ever there"
    await house.audit()


async def test_somebody_kicked_while_paying_pays_nothing(house: RoomHouse) -> None:
    p1, p2 = await house.process("p1"), await house.process("p2")
    room_id = await house.room(p1, rate_per_minute_minor=100)
    begin = house.till.begin

    async def kicked_meanwhile(room: Any, participant: Any) -> str:
        await p2.rooms.kick("ada", room_id, "bob")
        house.till.ended.clear()  # as if its end had come to nothing yet
        return await begin(room, participant)

    house.till.begin = kicked_meanwhile  # type: ignore[method-assign]
    with pytest.raises(Refusal) as no:
        await house.phone(p1, "bob").join(room_id)
    assert no.value.code == "ROOM_KICKED"
    assert house.till.running == {}

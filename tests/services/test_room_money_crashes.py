"""A process that dies between any two awaits of a verb of a paid room, and verbs that race: the books are right.

As in ``test_billing_crashes``: the verb is run again and again by ever new people, its process dying one call to the
driver later each time, until the verb gets through. The books must agree right then; then time passes, other processes
run their jobs, and everybody has paid for exactly the time until they were last there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from models.calls.call import Reason, State
from models.db import Database
from models.errors import Refusal
from models.rooms.room import Gone, Participant, Room
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Killed, Race
from tests.services.paid_rooms import RATE, Guest, House, RoomTown

SECOND = RATE // 60
MONEY = 200 * SECOND
# Calls to the driver of the longest verb, with much to spare: more say that a verb does not end.
STEPS_MAX = 60
SEEDS = 40


@dataclass
class Scene:
    """A guest at the process that dies, an owner at the one that lives, and their room."""

    town: RoomTown
    doomed: House
    well: House
    guest: Guest
    owner: Guest
    room: Room


Act = Callable[[Scene], Awaitable[Any]]


async def joined(s: Scene) -> None:
    await s.guest.join(s.room)
    await s.doomed.calls.beat()


async def joined_with_two(s: Scene) -> None:
    await joined(s)
    await s.guest.at(s.doomed, f"{s.guest.user_id}-laptop").join(s.room)


async def ended_untold(s: Scene) -> None:
    """The money has ended the stay, and whoever wrote that died before the room heard of it."""
    grave = s.town.process(f"grave of {s.guest.user_id}")
    grave.life.dies_at = grave.life.calls + 3
    with pytest.raises(Killed):
        await grave.calls.tick((await s.town.stay(s.guest.user_id)).id)
    assert not (await s.town.stay(s.guest.user_id)).live
    assert (await s.town.room(s.room.id)).participant(s.guest.user_id) is not None


async def renew(s: Scene) -> None:
    await s.doomed.calls.renew((await s.town.stay(s.guest.user_id)).id)


async def kick(s: Scene) -> None:
    await s.doomed.rooms.kick(s.owner.user_id, s.room.id, s.guest.user_id)


async def cut_off(s: Scene) -> None:
    await s.doomed.calls.tick((await s.town.stay(s.guest.user_id)).id)


async def tell_late(s: Scene) -> None:
    await s.doomed.calls._tell_untold((await s.town.stay(s.guest.user_id)).id)


# For each verb what comes before it with the seconds that pass after each step, the verb, and the seconds paid for.
VERBS: dict[str, tuple[list[tuple[Act, float]], Act, int]] = {
    "join": ([], lambda s: s.guest.join(s.room), 0),
    "join by REST": ([], lambda s: replace(s.guest, rest=True).join(s.room), 0),
    "leave": ([(joined, 20)], lambda s: s.guest.leave(s.room), 20),
    "leave with the first of two": ([(joined_with_two, 20)], lambda s: s.guest.leave(s.room), 20),
    "kick": ([(joined, 20)], kick, 20),
    "close": ([(joined, 20)], lambda s: s.doomed.rooms.close(s.owner.user_id, s.room.id), 20),
    "renew": ([(joined, 60)], renew, 60),
    "cut off by the timer": ([(joined, 60), (renew, 60), (renew, 80)], cut_off, 200),
    "tell the room of it": ([(joined, 60), (renew, 60), (renew, 80), (ended_untold, 3)], tell_late, 200),
}


async def scenes_of(town: RoomTown, name: str, numbers: range) -> list[Scene]:
    scenes = []
    for n in numbers:
        await town.people(f"olu{n}", f"ann{n}")
        doomed, well = town.process(f"doomed{n}"), town.process(f"well{n}")
        owner = await town.guest(well, f"olu{n}")
        guest = await town.guest(doomed, f"ann{n}", MONEY)
        scenes.append(Scene(town, doomed, well, guest, owner, await owner.create()))
    for act, seconds in VERBS[name][0]:
        for scene in scenes:
            await act(scene)
        town.clock.pass_(seconds)
    for scene in scenes:
        await scene.doomed.calls.beat()
        await scene.well.calls.beat()
    return scenes


async def recovered(town: RoomTown, scenes: list[Scene]) -> None:
    """The other processes live, and one that never heard of it all; for longer than any grace."""
    fresh = town.process("fresh")
    for _ in range(14):
        town.clock.pass_(6)
        for scene in scenes:
            await scene.well.calls.beat()
        await fresh.jobs()


@pytest.mark.parametrize("name", VERBS)
async def test_wherever_a_process_dies_nobody_pays_after_leaving_and_nothing_stays_held(
    db: Database, clock: VirtualClock, ids: CountingIds, name: str
) -> None:
    town, (_, verb, seconds) = RoomTown(db, clock, ids), VERBS[name]
    (trial,) = await scenes_of(town, name, range(1))
    start = trial.doomed.life.calls
    await verb(trial)
    trial.doomed.life.dead = True
    steps = trial.doomed.life.calls - start
    assert 1 < steps < STEPS_MAX
    scenes = await scenes_of(town, name, range(1, steps + 1))
    for step, scene in enumerate(scenes, 1):
        scene.doomed.life.dies_at = scene.doomed.life.calls + step
        with pytest.raises(Killed):
            await verb(scene)
    await town.books()
    await recovered(town, [trial, *scenes])
    for scene in [trial, *scenes]:
        stays = await town.stays(scene.guest.user_id)
        assert sum(stay.cost_minor for stay in stays) == seconds * SECOND
        assert await town.pockets(scene.guest.user_id) == (MONEY - seconds * SECOND, 0)
        assert (await town.room(scene.room.id)).participants == ()
    await town.nobody_pays()


# ------------------------------------------------------------------------------------------------------------ races


async def raced(
    db: Database, clock: VirtualClock, ids: CountingIds, *, processes: int = 2
) -> tuple[RoomTown, list[House], Room]:
    town = RoomTown(db, clock, ids)
    await town.people("olu", "ann")
    houses = [town.process(f"p{n}", raced=True) for n in range(processes)]
    for house in houses:
        await house.calls.beat()
        house.calls.others_live = True
    room = await (await town.guest(houses[0], "olu")).create()
    await town.pay_in(houses[0], "ann", MONEY)
    return town, houses, room


async def tidied(town: RoomTown, *houses: House) -> None:
    for _ in range(4):
        town.clock.pass_(1)
        for house in houses:
            await house.jobs()


async def test_two_devices_that_come_in_at_once_at_two_processes_pay_by_one_stay(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, houses, room = await raced(db, clock, ids)
    phone, laptop = (
        Guest(house, "ann", device).connect()
        for house, device in zip(houses, ("phone", "laptop"), strict=True)
    )
    for seed in range(SEEDS):
        at = clock.now()
        answers = await Race(seed).run(phone=phone.join(room), laptop=laptop.join(room))
        assert [no.code for no in answers.values() if isinstance(no, Refusal)] in ([], ["SERVER_BUSY"])
        one = (await town.room(room.id)).participant("ann")
        assert one is not None
        running = [stay for stay in await town.stays("ann") if stay.state is State.ACTIVE]
        assert [stay.id for stay in running] == [one.stay_id]
        await phone.leave(room)
        await laptop.leave(room)
        await town.nobody_pays()
        assert clock.now() == at
        await tidied(town, *houses)


async def test_a_leaving_and_the_end_of_the_money_at_once_are_one_end(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, houses, room = await raced(db, clock, ids)
    for seed in range(SEEDS):
        name = f"ann{seed}"
        await town.people(name)
        guest = await town.guest(houses[0], name, 30 * SECOND)
        await guest.join(room)
        stay = await town.stay(name)
        clock.pass_(30)
        answers = await Race(seed).run(leaves=guest.leave(room), ends=houses[1].calls.tick(stay.id))
        assert not any(isinstance(one, Refusal) for one in answers.values())
        ended = await town.stay(name)
        assert ended.cost_minor == 30 * SECOND
        assert ended.end_reason in (Reason.COMPLETED, Reason.INSUFFICIENT_FUNDS)
        assert (await town.room(room.id)).participant(name) is None
    await tidied(town, *houses)
    await town.nobody_pays()


async def test_in_one_process_they_never_wait_for_each_other(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    """The room asks the stay to end inside of its turn, and the stay asks the room inside of its own."""
    town, (house, _), room = await raced(db, clock, ids)
    for n in range(10):
        name = f"ann{n}"
        await town.people(name)
        guest = await town.guest(house, name, 30 * SECOND)
        await guest.join(room)
        stay = await town.stay(name)
        clock.pass_(30)
        async with asyncio.timeout(20):
            await asyncio.gather(guest.leave(room), house.calls.tick(stay.id), house.calls.alarm(stay.id))
    await tidied(town, house)
    await town.nobody_pays()


async def test_a_stay_that_was_ended_before_it_began_never_begins(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    town, (one, other), room = await raced(db, clock, ids)
    guest = Guest(one, "ann", "phone").connect()
    for seed in range(SEEDS):
        # A place that is taken away (kicked, closed, too late) while its process is about to take the money.
        place = room_with(await town.room(room.id), f"stay{seed}")
        await Race(seed).run(
            begins=one.stays.begin(place, place.participants[-1]),
            ends=other.stays.end(f"stay{seed}", at=clock.now(), reason=Gone.NEVER_CAME),
        )
        assert [stay.id for stay in await town.stays("ann") if stay.live] == []
        with pytest.raises(Refusal) as no:
            await one.stays.begin(place, place.participants[-1])
        assert no.value.code == "ROOM_NOT_JOINED"
    await tidied(town, one, other)
    await town.nobody_pays()
    assert guest.letters("BILLING_TICK") == []


def room_with(room: Room, stay_id: str) -> Room:
    """The room as its process has it that is about to begin a stay."""
    one = Participant(user_id="ann", joined_at=room.created_at, stay_id=stay_id, pending=True)
    return replace(room, participants=(*room.participants, one))

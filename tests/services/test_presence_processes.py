"""Presence at several processes on one database: who moves, who dies, who was only taken for dead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from models.db import Database
from models.presence.rules import Seen
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import DEAD_AFTER_SECONDS, Killed, Process, Race, Raced, Town
from tests.services.presencekit import GONE_SECONDS, Device, beat, device, leases, pass_, states, turn

ONLINE = Seen("online")


@pytest.fixture
async def town(db: Database, clock: VirtualClock, ids: CountingIds) -> Town:
    built = Town(db, clock, ids)
    await built.people("ann", "bob", "cid")
    return built


@pytest.fixture
async def here(town: Town) -> Process:
    return town.process("here")


@pytest.fixture
async def there(town: Town, here: Process) -> Process:
    """The other process; both know of each other."""
    other = town.process("there")
    await beat(here, other, here)
    await turn(here, other)
    return other


async def test_who_comes_and_goes_elsewhere_is_told_here(town: Town, here: Process, there: Process) -> None:
    bob = await device(here, "bob")
    await bob.watch("ann")
    ann = await device(there, "ann")
    await turn(here)
    assert bob.told() == [("ann", "online")]
    await ann.say("away")
    await pass_(town, 2, there, here)
    assert here.presence.state_of("ann") == "away", "also in views of people, from memory"
    await ann.drop()
    gone_at = town.clock.now()
    await pass_(town, GONE_SECONDS + 0.5, there, here)
    assert bob.told()[1:] == [("ann", "away"), ("ann", "offline")]
    assert here.presence.state_of("ann") == "offline"
    assert await bob.watch("ann") == {"ann": Seen("offline", gone_at)}


async def test_devices_at_two_processes_are_one_person(town: Town, here: Process, there: Process) -> None:
    bob = await device(here, "bob")
    phone, tablet = await device(here, "ann", "phone"), await device(there, "ann", "tablet")
    await bob.watch("ann")
    await phone.drop()
    await pass_(town, GONE_SECONDS, there, here)
    assert bob.told() == []
    await tablet.say("away")
    await pass_(town, 2, there, here)
    await phone.connect()
    await pass_(town, 2, there, here)
    assert bob.told() == [("ann", "away"), ("ann", "online")]


async def test_two_first_devices_at_two_processes_at_once_are_both_kept(
    town: Town, here: Process, there: Process
) -> None:
    for n in range(20):
        await asyncio.gather(device(here, f"new-{n}", "phone"), device(there, f"new-{n}", "tablet"))
    assert all(len(held) == 2 for held in (await leases(town)).values())


async def test_a_process_that_starts_knows_who_is_connected_to_others(town: Town, here: Process) -> None:
    await beat(here)
    ann = await device(here, "ann")
    await ann.say("away")
    await device(here, "cid")
    await pass_(town, 30, here)  # longer ago than any look back
    new = town.process("new")
    await beat(new)
    await turn(new)
    assert [new.presence.state_of(name) for name in ("ann", "bob", "cid")] == ["away", "offline", "online"]


# ---------------------------------------------------------------------------------------------------------- moving


async def test_a_late_disconnect_at_the_old_process_takes_nothing_from_the_new_one(
    town: Town, here: Process, there: Process
) -> None:
    bob, ann = await device(here, "bob"), await device(here, "ann")
    await bob.watch("ann")
    moved = await device(there, "ann")
    assert await leases(town) == {"ann": [("phone", "there")], "bob": [("phone", "here")]}
    await ann.say("away", None)  # the last word of the old socket, late
    await ann.drop()
    assert (await leases(town))["ann"] == [("phone", "there")]
    await pass_(town, 6, here, there)
    assert bob.told() == []
    await moved.drop()
    await pass_(town, 6, here, there)
    assert bob.told() == [("ann", "offline")]


@pytest.mark.parametrize("seed", range(20))
async def test_in_whatever_order_a_device_leaves_here_and_comes_there_it_is_there(
    town: Town, seed: int
) -> None:
    here, there = town.process("here"), town.process("there")
    for process in (here, there):
        raced = Raced(process.presence._leases._store)
        raced.process = process.name  # type: ignore[attr-defined]
        process.presence._leases._store = raced  # type: ignore[assignment]
    ann, late = await device(here, "ann"), await device(here, "ann", "tablet")
    there.doors.connect("ann", "phone")
    await Race(seed).run(old=ann.drop(), new=there.presence.arrived("ann", "phone"))
    await late.drop()
    assert await leases(town) == {"ann": [("phone", "there")]}
    assert await Device(here, "bob", "phone").watch("ann") == {"ann": ONLINE}


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_a_flapping_socket_did_last_is_what_is_written(
    town: Town, here: Process, seed: int
) -> None:
    ann = await device(here, "ann")
    verbs = [ann.drop, ann.connect, ann.drop, ann.connect, ann.drop, ann.connect]
    Random(seed).shuffle(verbs)
    await asyncio.gather(*(verb() for verb in verbs))
    connected = here.presence._leases.lease("ann", "phone") is not None
    assert await leases(town) == ({"ann": [("phone", "here")]} if connected else {})
    assert connected == (verbs[-1] == ann.connect)


# ------------------------------------------------------------------------------------------------------------ dying


async def test_the_people_of_a_killed_process_are_gone_when_it_has_not_beaten_for_long(
    town: Town, here: Process, there: Process
) -> None:
    bob = await device(here, "bob")
    await device(there, "ann"), await device(there, "cid"), await device(here, "cid", "tablet")
    await bob.watch("ann", "cid")
    last_beat = town.clock.now()
    await pass_(town, DEAD_AFTER_SECONDS - 2, here)  # ``there`` is dead, and says nothing
    assert await bob.watch("ann", "cid") == {"ann": ONLINE, "cid": ONLINE}
    await pass_(town, 4 + GONE_SECONDS, here)
    assert bob.told() == [("ann", "offline")], "cid has a device left"
    assert await bob.watch("ann") == {"ann": Seen("offline", last_beat)}
    assert await leases(town) == {"bob": [("phone", "here")], "cid": [("tablet", "here")]}
    assert here.presence.state_of("ann") == "offline"


async def test_who_comes_back_from_a_killed_process_before_that_was_never_gone(
    town: Town, here: Process, there: Process
) -> None:
    bob = await device(here, "bob")
    await device(there, "ann")
    await bob.watch("ann")
    await pass_(town, 5, here)
    await device(here, "ann")
    await pass_(town, 20, here)
    assert bob.told() == []
    assert await leases(town) == {"ann": [("phone", "here")], "bob": [("phone", "here")]}


async def test_a_restart_shows_nobody_who_is_not_there(town: Town, here: Process) -> None:
    await beat(here)
    await device(here, "ann")
    died_at = town.clock.now()
    town.clock.pass_(60)
    new = town.process("new")
    await beat(new)  # what a process does before it takes its first socket
    bob = await device(new, "bob")
    assert await bob.watch("ann") == {"ann": Seen("offline", died_at)}
    assert new.presence.state_of("ann") == "offline"


async def test_of_a_process_that_is_long_forgotten_the_last_word_is_when_the_device_came(
    town: Town, here: Process
) -> None:
    ann = await device(here, "ann")  # this process never beats, or so long ago that its beat is gone
    came_at = town.clock.now()
    town.clock.pass_(60)
    new = town.process("new")
    await beat(new)
    assert await Device(new, "bob", "phone").watch("ann") == {"ann": Seen("offline", came_at)}
    assert ann.told() == []


async def test_a_process_that_was_taken_for_dead_enters_its_people_again(
    town: Town, here: Process, there: Process
) -> None:
    bob = await device(here, "bob")
    ann = await device(there, "ann")
    await ann.say("away", None)
    await bob.watch("ann")
    await pass_(town, 20, here)  # ``there`` stands still
    assert bob.told() == [("ann", "offline")]
    await pass_(town, 3, there, here)
    assert bob.told() == [("ann", "offline"), ("ann", "away")]
    assert (await leases(town))["ann"] == [("phone", "there")]


async def test_a_process_that_begins_while_the_dead_are_buried_is_not_among_them(
    town: Town, here: Process, there: Process
) -> None:
    new = town.process("new")
    store = here.presence._processes

    class Slow:
        """Between the question who lives and the look for the dead another process starts."""

        async def living(self, since):  # type: ignore[no-untyped-def]
            found = await store.living(since)
            await beat(new)
            await device(new, "ann")
            return found

        last_beats = staticmethod(store.last_beats)

    here.presence._processes = Slow()
    await here.presence.run_orphaned(DEAD_AFTER_SECONDS)
    assert (await leases(town))["ann"] == [("phone", "new")]


async def test_what_a_process_holds_that_others_have_not_heard_of_yet_is_not_taken_away(
    town: Town, here: Process, there: Process
) -> None:
    new = town.process("new")
    await beat(new)
    await device(new, "ann")
    await here.presence.run_orphaned(DEAD_AFTER_SECONDS, living=["here", "there"])
    assert (await leases(town))["ann"] == [("phone", "new")]


async def test_what_a_dead_process_held_is_taken_away_where_it_is_known_to_be_dead(
    town: Town, here: Process, there: Process
) -> None:
    await device(there, "ann")
    town.clock.pass_(DEAD_AFTER_SECONDS + 1)
    await here.presence.run_orphaned(DEAD_AFTER_SECONDS, living=["here", "there"])
    assert (await leases(town))["ann"] == [("phone", "there")]  # by the next beat it is known
    await here.presence.run_orphaned(DEAD_AFTER_SECONDS, living=["here"])
    assert (await leases(town)).get("ann", []) == []


Verb = Callable[[Town, Device, str], Awaitable[object]]


async def _come_and_go(town: Town, ann: Device, n: str) -> None:
    await ann.connect()
    await ann.say("away")
    await ann.say("online", "a conversation")
    await ann.drop()


async def _come_and_call(town: Town, ann: Device, n: str) -> None:
    await ann.connect()
    await ann.watch(f"bob{n}", f"cid{n}")
    phone = town.phone(ann.process, f"ann{n}", "phone")
    call = await phone.request(town.phone(ann.process, f"cid{n}", "phone"))
    await turn(ann.process)
    await phone.end(call)
    await turn(ann.process)
    await ann.process.presence.run_sweep()


@pytest.mark.parametrize("story", [_come_and_go, _come_and_call])
async def test_a_process_may_die_at_any_moment_and_in_the_end_watchers_know_who_is_there(
    town: Town, story: Verb
) -> None:
    """Each moment has people of its own, so that all of the dead are buried in one stretch of time."""
    survivor = town.process("survivor")
    await beat(survivor)
    watchers: list[Device] = []
    for dies_at in range(1, 200):
        n = str(dies_at)
        await town.people(f"ann{n}", f"bob{n}", f"cid{n}")
        dying = town.process(f"dying-{n}")
        await beat(dying, survivor)
        await turn(survivor)
        watchers.append(await device(survivor, f"bob{n}"))
        await watchers[-1].watch(f"ann{n}", f"cid{n}")
        dying.life.calls, dying.life.dies_at = 0, dies_at
        try:
            await story(town, Device(dying, f"ann{n}", "phone"), n)
            lived = True
        except Killed:
            lived = False
        dying.life.dead = True  # at the latest now
        if lived:
            break
    else:
        pytest.fail("the story does not end")
    await _ends(town, survivor)
    for n, bob in enumerate(watchers, 1):
        assert dict(bob.told()).get(f"ann{n}", "offline") == "offline", f"died at {n}"
    assert await leases(town) == {bob.user_id: [("phone", "survivor")] for bob in watchers}
    # And their people may come back elsewhere as if nothing had been.
    back = [await device(survivor, f"ann{n}") for n in range(1, len(watchers) + 1)]
    await pass_(town, 1.5, survivor, sweep=True)
    for n, bob in enumerate(watchers, 1):
        assert dict(bob.told())[f"ann{n}"] == "online", f"died at {n}"
    for ann in back:
        await ann.drop()
    await pass_(town, GONE_SECONDS + 1, survivor, sweep=True)
    for n, bob in enumerate(watchers, 1):
        assert dict(bob.told())[f"ann{n}"] == "offline", f"died at {n}"
        assert states(await bob.watch(f"ann{n}", f"cid{n}")) == ["offline", "offline"], f"died at {n}"
    assert await leases(town) == {bob.user_id: [("phone", "survivor")] for bob in watchers}


async def _ends(town: Town, survivor: Process) -> None:
    """Time passes until the dead are buried and their calls are over."""
    for _ in range(30):
        town.clock.pass_(2)
        await beat(survivor)
        await survivor.calls.run_due()
        await survivor.calls.run_untold()
        await survivor.presence.run_sweep()
        await turn(survivor)


# ------------------------------------------------------------------------------------------- what is on the screen


async def test_a_device_with_the_conversation_on_its_screen_is_known_at_every_process(
    town: Town, here: Process, there: Process
) -> None:
    phone, tablet = await device(here, "ann", "phone"), await device(there, "ann", "tablet")
    assert await here.presence.focused("ann", "c1") == set()
    await phone.say("online", "c1")
    await tablet.say("online", "c1")
    assert await here.presence.focused("ann", "c1") == {"phone", "tablet"}
    assert await there.presence.focused("ann", "c2") == await there.presence.focused("bob", "c1") == set()
    await phone.say("away", "c1")
    await tablet.say("online", "c2")
    assert await here.presence.focused("ann", "c1") == set()
    assert await here.presence.focused("ann", "c2") == {"tablet"}
    await tablet.drop()
    assert await here.presence.focused("ann", "c2") == set()


async def test_what_a_killed_process_had_on_its_screens_keeps_no_push_back_for_long(
    town: Town, here: Process, there: Process
) -> None:
    ann = await device(there, "ann")
    await ann.say("online", "c1")
    await pass_(town, DEAD_AFTER_SECONDS + 3, here)
    assert await here.presence.focused("ann", "c1") == set()

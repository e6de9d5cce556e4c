"""Who is there: told to those who watch, when it lasts, and to nobody who may not know."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest
from pymongo.errors import AutoReconnect

from models.db import Database
from models.presence.rules import HIDDEN, Seen
from models.presence.service import LOOK_MAX
from models.presence.store import PRESENCE as LEASES
from models.users.store import USERS
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Process, Town
from tests.services.presencekit import (
    GONE_SECONDS,
    SWEEP_SECONDS,
    beat,
    device,
    leases,
    pass_,
    states,
    turn,
)

ONLINE, AWAY, IN_CALL = Seen("online"), Seen("away"), Seen("in_call")


@pytest.fixture
async def town(db: Database, clock: VirtualClock, ids: CountingIds) -> Town:
    built = Town(db, clock, ids)
    await built.people("ann", "bob", "cid", "dot")
    return built


@pytest.fixture
async def here(town: Town) -> Process:
    process = town.process("here")
    await beat(process)
    return process


# -------------------------------------------------------------------------------------------------------- watching


async def test_the_answer_says_who_is_there_in_the_order_of_the_question_each_once(here: Process) -> None:
    bob, _ = await device(here, "bob"), await device(here, "cid")
    seen = await bob.watch("cid", "ann", "cid", "nobody", "bob")
    assert list(seen.items()) == [("cid", ONLINE), ("ann", HIDDEN), ("nobody", HIDDEN), ("bob", ONLINE)]


async def test_changes_are_told_to_the_watching_device_and_to_no_other(town: Town, here: Process) -> None:
    bob, tablet = await device(here, "bob"), await device(here, "bob", "tablet")
    cid = await device(here, "cid")
    await bob.watch("ann")
    ann = await device(here, "ann")
    await turn(here)
    await ann.drop()
    gone_at = town.clock.now()
    await pass_(town, GONE_SECONDS, here)
    assert bob.heard() == [
        {"userId": "ann", "state": "online", "lastSeenAt": None},
        {
            "userId": "ann",
            "state": "offline",
            "lastSeenAt": gone_at.isoformat(timespec="milliseconds")[:-6] + "Z",
        },
    ]
    assert (tablet.told(), cid.told()) == ([], [])


async def test_a_look_that_took_longer_than_the_next_one_changes_nothing(here: Process) -> None:
    bob, cid = await device(here, "bob"), await device(here, "cid")
    await device(here, "ann")
    await bob.watch("ann")
    reading, go = asyncio.Event(), asyncio.Event()

    async def slow(user_ids: Collection[str]) -> set[str]:
        if reading.is_set():
            return set()
        reading.set()
        await go.wait()
        return {"ann"}  # so it was, and she has hung up since

    here.presence._busy_among = (slow,)
    here.presence.changed("ann")
    looking = asyncio.create_task(here.presence.run_due())
    await reading.wait()
    assert states(await cid.watch("ann")) == ["online"]
    go.set()
    await looking
    assert (bob.told(), cid.told()) == ([], [])


async def test_a_second_request_replaces_the_first(town: Town, here: Process) -> None:
    bob = await device(here, "bob")
    await bob.watch("ann", "cid")
    assert states(await bob.watch("cid", "dot")) == ["offline", "offline"]
    for name in ("ann", "cid", "dot"):
        await device(here, name)
    await turn(here)
    assert sorted(bob.told()) == [("cid", "online"), ("dot", "online")]
    assert await bob.watch() == {}
    await pass_(town, 5, here, sweep=True)
    assert len(bob.told()) == 2


async def test_a_watch_ends_with_its_socket(town: Town, here: Process) -> None:
    bob = await device(here, "bob")
    await bob.watch("ann")
    await bob.drop()
    await bob.connect()
    await device(here, "ann")
    await pass_(town, 2, here)
    assert bob.told() == []
    here.doors.disconnect("bob", "phone")
    assert states(await bob.watch("ann")) == ["online"], (
        "a question of a socket that has just gone is harmless"
    )
    assert len(here.presence._watches) == 0


async def test_a_watch_whose_socket_went_without_a_word_is_found(town: Town, here: Process) -> None:
    bob = await device(here, "bob")
    await bob.watch("ann")
    here.doors.disconnect("bob", "phone")
    await beat(here)
    assert len(here.presence._watches) == 0
    assert await leases(town) == {}


async def test_a_connection_lost_for_less_than_three_seconds_is_not_told(town: Town, here: Process) -> None:
    bob, ann = await device(here, "bob"), await device(here, "ann")
    await bob.watch("ann")
    for _ in range(5):
        await ann.drop()
        await pass_(town, 2.5, here)
        await ann.connect()
        await pass_(town, 1, here)
    assert bob.told() == []
    assert here.presence.state_of("ann") == "online"


async def test_a_watcher_who_asks_while_a_loss_waits_is_answered_what_the_others_know(
    town: Town, here: Process
) -> None:
    bob, cid, ann = await device(here, "bob"), await device(here, "cid"), await device(here, "ann")
    await bob.watch("ann")
    await ann.drop()
    await pass_(town, 1, here)
    assert await cid.watch("ann") == {"ann": ONLINE}
    await pass_(town, GONE_SECONDS, here)
    assert bob.told() == cid.told() == [("ann", "offline")]


async def test_in_the_foreground_anywhere_is_online_and_in_the_background_everywhere_is_away(
    town: Town, here: Process
) -> None:
    bob = await device(here, "bob")
    phone, tablet = await device(here, "ann"), await device(here, "ann", "tablet")
    await bob.watch("ann")
    await phone.say("away")
    await pass_(town, 2, here)
    assert bob.told() == []
    await tablet.say("away")
    assert here.presence.state_of("ann") == "away"
    await pass_(town, 2, here)
    await phone.drop()
    await pass_(town, GONE_SECONDS, here)
    await tablet.say("online")
    await pass_(town, 2, here)
    assert bob.told() == [("ann", "away"), ("ann", "online")]


async def test_what_a_device_says_after_its_socket_has_gone_changes_nothing(
    town: Town, here: Process
) -> None:
    ann = await device(here, "ann")
    await ann.drop()
    await ann.say("online", "a conversation")
    assert await leases(town) == {}
    assert here.presence.state_of("ann") == "offline"


async def test_a_socket_that_went_while_it_was_greeted_leaves_no_lease(town: Town, here: Process) -> None:
    await here.presence.gone("ann", "phone", town.clock.now())
    await here.presence.arrived("ann", "phone")  # its connect is dealt with only now
    assert await leases(town) == {}


async def test_a_newer_socket_of_a_device_goes_on_as_what_the_device_said(town: Town, here: Process) -> None:
    ann = await device(here, "ann")
    await ann.say("away")
    await ann.connect()
    assert here.presence.state_of("ann") == "away"


# ---------------------------------------------------------------------------------------------------- calls


async def test_a_call_is_told_as_soon_as_it_rings_and_its_end_a_second_later(
    town: Town, here: Process
) -> None:
    dot, ann, bob = await device(here, "dot"), town.phone(here, "ann"), town.phone(here, "bob")
    await dot.watch("ann", "bob")
    call = await ann.request(bob)
    await here.presence.run_due()
    assert sorted(dot.told()) == [("ann", "in_call"), ("bob", "in_call")], "without any time"
    assert await dot.watch("ann", "bob") == {"ann": IN_CALL, "bob": IN_CALL}
    await bob.reject(call)
    await pass_(town, 1.5, here)
    # Neither has a lease here: calls are made without a socket as well.
    assert sorted(dot.told()[2:]) == []
    await pass_(town, 3, here)
    assert sorted(dot.told()[2:]) == [("ann", "offline"), ("bob", "offline")]


@pytest.mark.parametrize("end", ["hang up", "no answer"])
async def test_a_call_at_another_process_is_told_here_by_its_next_turn(
    town: Town, here: Process, end: str
) -> None:
    there = town.process("there")
    await beat(there, here)
    dot = await device(here, "dot")
    await device(there, "ann"), await device(there, "bob")
    ann, bob = town.phone(there, "ann", "phone"), town.phone(there, "bob", "phone")
    await turn(here)
    assert await dot.watch("ann", "bob") == {"ann": ONLINE, "bob": ONLINE}
    call = await ann.request(bob)
    await turn(there, here)
    assert sorted(dot.told()) == [("ann", "in_call"), ("bob", "in_call")]
    assert here.presence.state_of("ann") == "in_call"
    if end == "hang up":
        await bob.accept(call)
        await bob.end(call)
    else:
        town.clock.pass_(town.timers.ring)
        await there.calls.run_due()
    await turn(there)
    await pass_(town, 1.5, there, here)
    assert sorted(dot.told()[2:]) == [("ann", "online"), ("bob", "online")]
    assert here.presence.state_of("ann") == "online"


async def test_a_call_that_ends_here_leaves_nobody_busy_in_what_was_heard_of_other_processes(
    town: Town, here: Process
) -> None:
    there = town.process("there")
    await beat(there, here)
    await device(there, "ann")
    ann, bob = town.phone(there, "ann", "phone"), town.phone(here, "bob")
    call = await ann.request(bob)
    await turn(there, here)
    assert here.presence.state_of("ann") == "in_call"
    await bob.reject(call)
    assert here.presence.state_of("ann") == "online", "already in the snapshots that tell of the end"
    await turn(here)
    assert here.presence.state_of("ann") == "online"


# ------------------------------------------------------------------------------------------------ who may not know


@pytest.mark.parametrize(("blocker", "blocked"), [("ann", "bob"), ("bob", "ann")])
async def test_e61_a_block_in_either_direction_hides_whoever_is_watched(
    town: Town, here: Process, blocker: str, blocked: str
) -> None:
    bob, ann = await device(here, "bob"), await device(here, "ann")
    await ann.drop()
    await ann.connect()  # so that there is a time at which she was seen
    await here.users.block(blocker, blocked)
    assert await bob.watch("ann") == {"ann": HIDDEN}
    await ann.drop()
    await pass_(town, GONE_SECONDS, here, sweep=True)
    await ann.connect()
    town.phone(here, "ann")
    await town.phone(here, "cid").request(town.phone(here, "ann"))
    await pass_(town, GONE_SECONDS, here, sweep=True)
    assert bob.told() == []


@pytest.mark.parametrize(("blocker", "blocked"), [("ann", "bob"), ("bob", "ann")])
async def test_e61_a_block_while_somebody_watches_looks_like_leaving_and_nothing_comes_after_it(
    town: Town, here: Process, blocker: str, blocked: str
) -> None:
    bob, cid, ann = await device(here, "bob"), await device(here, "cid"), await device(here, "ann")
    await bob.watch("ann")
    await cid.watch("ann")
    await here.users.block(blocker, blocked)
    here.presence.changed(blocker, blocked)
    await here.presence.run_due()
    assert bob.heard() == [{"userId": "ann", "state": "offline", "lastSeenAt": None}]
    await ann.drop()
    await pass_(town, GONE_SECONDS, here)
    await ann.connect()
    await pass_(town, 1, here)
    assert len(bob.heard()) == 1
    assert cid.told() == [("ann", "offline"), ("ann", "online")], "others see her as before"
    await here.users.unblock(blocker, blocked)
    here.presence.changed(blocker, blocked)
    await here.presence.run_due()
    assert bob.told()[1:] == [("ann", "online")]


async def test_e61_a_block_at_another_process_is_heard_here(town: Town, here: Process) -> None:
    there = town.process("there")
    await beat(there, here)
    bob, _ = await device(here, "bob"), await device(here, "ann")
    await bob.watch("ann")
    await there.users.block("ann", "bob")
    there.presence.changed("ann", "bob")
    await turn(there, here)
    assert bob.told() == [("ann", "offline")]


async def test_e61_a_block_that_nobody_lived_to_mention_is_found_by_the_sweep(
    town: Town, here: Process
) -> None:
    bob = await device(here, "bob")
    await bob.watch("cid", "dot", "ann")
    await device(here, "ann")
    await turn(here)
    await here.users.block("ann", "bob")
    await pass_(town, SWEEP_SECONDS + 2, here, sweep=True)
    assert bob.told() == [("ann", "online"), ("ann", "offline")]


@pytest.mark.parametrize("status", ["banned", "deleted"])
async def test_who_is_banned_or_deleted_is_nobody(town: Town, here: Process, status: str) -> None:
    bob, ann = await device(here, "bob"), await device(here, "ann")
    await ann.drop()
    personal = ("email", "email_key", "username_key", "display_key", "password_hash")
    change = {"$set": {"status": status}}
    if status == "deleted":
        change["$unset"] = dict.fromkeys(personal, "")
    await town.db[USERS].update_one({"_id": "ann"}, change)
    assert await bob.watch("ann") == {"ann": HIDDEN}
    await ann.connect()
    await pass_(town, 2, here, sweep=True)
    assert bob.told() == []


# ----------------------------------------------------------------------------------------------------------- the cost


async def test_a_connection_costs_one_write_when_it_comes_one_when_it_goes_and_none_in_between(
    town: Town, here: Process
) -> None:
    def writes() -> int:
        return here.life.calls

    start = writes()
    ann = await device(here, "ann")
    assert writes() == start + 1
    await ann.say("online")
    await ann.connect()
    assert writes() == start + 1
    await ann.say("away")
    assert writes() == start + 2
    row = await town.db[LEASES].find_one({"_id": "ann"})
    await pass_(town, 60, here, sweep=True)
    assert await town.db[LEASES].find_one({"_id": "ann"}) == row
    start = writes()
    await ann.drop()
    assert writes() == start + 1
    row = await town.db[LEASES].find_one({"_id": "ann"})
    await pass_(town, 10, here)
    assert await town.db[LEASES].find_one({"_id": "ann"}) == row
    assert not here.presence._leases._left


async def test_many_changes_at_once_are_few_questions(town: Town, here: Process) -> None:
    names = [f"friend-{n}" for n in range(LOOK_MAX)]
    await town.people(*names)
    bob = await device(here, "bob")
    await bob.watch(*names)
    for name in names:
        await device(here, name)
    before = here.life.calls
    await here.presence.run_due()
    assert len(bob.told()) == LOOK_MAX
    assert here.life.calls - before <= 5
    before = here.life.calls
    await turn(here)
    assert here.life.calls == before, "and nothing is asked when nothing has changed"


# --------------------------------------------------------------------------------------------- without a database


async def test_what_could_not_be_written_for_want_of_a_database_is_written_and_told_later(
    town: Town, here: Process
) -> None:
    bob, ann = await device(here, "bob"), await device(here, "ann")
    await bob.watch("ann")
    breathe = here.life.breathe

    def away() -> None:
        raise AutoReconnect("no database")

    here.life.breathe = away  # type: ignore[method-assign]
    with pytest.raises(AutoReconnect):
        await ann.drop()
    with pytest.raises(AutoReconnect):
        await bob.watch("ann")
    here.life.breathe = breathe  # type: ignore[method-assign]
    assert await bob.watch("ann") == {"ann": HIDDEN}
    gone_at = town.clock.now()
    await beat(here)
    await pass_(town, GONE_SECONDS, here)
    assert await leases(town) == {"bob": [("phone", "here")]}
    assert await bob.watch("ann") == {"ann": Seen("offline", gone_at)}


async def test_a_look_that_fails_is_taken_up_again(town: Town, here: Process) -> None:
    bob = await device(here, "bob")
    await bob.watch("ann")
    await device(here, "ann")
    breathe = here.life.breathe

    def away() -> None:
        raise AutoReconnect("no database")

    here.life.breathe = away  # type: ignore[method-assign]
    with pytest.raises(AutoReconnect):
        await here.presence.run_due()
    here.life.breathe = breathe  # type: ignore[method-assign]
    await here.presence.run_due()
    assert bob.told() == [("ann", "online")]

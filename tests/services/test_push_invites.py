"""Invitations to rooms as pushes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from models.db import Database
from models.notify.invites.store import INVITES
from models.notify.rules import LEASE_SECONDS
from models.notify.service import Pushes
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Killed, Mortal
from tests.services.pushkit import ANN, BOB, PHONE, World, pushing


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds) -> AsyncIterator[World]:
    async with pushing(db, clock, ids) as built:
        yield built


async def invite(pushes: Pushes, room_id: str = "r1", user_id: str = BOB) -> None:
    await pushes.room_invited(room_id=room_id, room_name="Choir", by=ANN, user_id=user_id)


async def test_an_invitation_is_an_ordinary_notification(world: World) -> None:
    pushes = world.process()
    await invite(pushes)
    assert world.nudges == 1
    assert await pushes.run_due() == 1
    assert world.expo.pushed == [
        {
            "to": PHONE,
            "title": "Choir",
            "body": "Ann invites you",
            "sound": "default",
            "priority": "high",
            "ttl": 7 * 24 * 3600,
            "channelId": "messages",
            "collapseId": "r1",
            "data": {"type": "room_invite", "roomId": "r1", "roomName": "Choir", "by": ANN},
        }
    ]


async def test_the_same_invitation_is_told_once_a_minute_at_most(world: World) -> None:
    pushes, other = world.process(), world.process()
    for _ in range(3):
        await invite(pushes)
        await invite(other)
        await other.run_due()
    assert len(world.expo.pushed) == 1
    assert world.nudges == 1
    await invite(pushes, "r2")
    world.clock.pass_(60)
    await invite(pushes)
    await pushes.run_due()
    assert [message["data"]["roomId"] for message in world.expo.pushed] == ["r1", "r2", "r1"]


async def test_it_is_tried_for_an_hour_and_then_left(world: World) -> None:
    world.expo.mode = "down"
    pushes = world.process()
    await invite(pushes)
    for _ in range(20):
        await pushes.run_due()
        world.clock.pass_(400)
    assert world.expo.asked == 9
    assert await world.db[INVITES].count_documents({"due_at": {"$exists": True}}) == 0


async def test_nothing_is_kept_for_who_has_no_token(world: World) -> None:
    await invite(world.process(), user_id="nobody")
    assert await world.db[INVITES].count_documents({}) == 0


async def test_a_crash_at_any_await_loses_no_invitation(world: World) -> None:
    for dies_at in range(1, 20):
        life = Mortal(world.db)
        dying, heir = world.process(db=life), world.process()
        await invite(heir, f"r{dies_at}")
        life.dies_at = dies_at
        try:
            await dying.invites.run_due()
        except Killed:
            pass
        else:
            break
        world.clock.pass_(LEASE_SECONDS)
        await heir.run_due()
        told = [message["data"]["roomId"] for message in world.expo.pushed]
        assert told.count(f"r{dies_at}") in (1, 2)
        assert await heir.run_due() == 0
    else:
        pytest.fail("it never got through")
    assert dies_at > 3

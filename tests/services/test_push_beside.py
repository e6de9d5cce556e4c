"""What happens to one push does not delay another: wishes of a provider, hanging providers, faults of the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from models.db import Database
from models.notify.ports import Outcome, Push, Sent
from tests.fakes import CountingIds, VirtualClock
from tests.services.pushkit import CALL, PHONE, World, pushing

EVE = "01950000-0000-7000-8000-00000000000e"
OTHER_CALL = "01950000-0000-7000-8000-0000000000cb"


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds) -> AsyncIterator[World]:
    async with pushing(db, clock, ids) as built:
        yield built


class Quick:
    """A provider that takes everything at once."""

    def __init__(self) -> None:
        self.took: list[str] = []

    async def send(self, pushes: Sequence[Push]) -> list[Outcome]:
        self.took += [push.note.value for push in pushes]
        return [Outcome(sent=Sent.OK) for _ in pushes]


class Hangs:
    """A provider that answers only when it is let go."""

    def __init__(self) -> None:
        self.arrived, self.go = asyncio.Event(), asyncio.Event()

    async def send(self, pushes: Sequence[Push]) -> list[Outcome]:
        self.arrived.set()
        await self.go.wait()
        return [Outcome(sent=Sent.LATER) for _ in pushes]


async def test_what_expo_wishes_of_messages_does_not_silence_a_ring(world: World) -> None:
    pushes = world.process()
    await world.write(pushes, 1)
    world.clock.pass_(1)
    world.expo.mode, world.expo.retry_after = "too_many", "50"
    await pushes.messages.run_due()
    world.expo.mode = "ok"
    await world.ring(pushes)
    await pushes.run_due()
    assert world.told() == [(PHONE, "incoming_call")]
    world.clock.pass_(48)
    await pushes.messages.run_due()
    assert len(world.told()) == 1, "messages are held for as long as it wishes"


async def test_what_expo_wishes_of_one_ring_does_not_silence_the_next(world: World) -> None:
    world.drawer.put(EVE, "ExponentPushToken[eve]")
    pushes = world.process()
    world.expo.mode, world.expo.retry_after = "too_many", "40"
    await world.ring(pushes)
    await pushes.run_due()
    world.expo.mode = "ok"
    await world.ring(pushes, call_id=OTHER_CALL, callee=EVE)
    for _ in range(6):
        await pushes.run_due()
        world.clock.pass_(1)
    assert world.told() == [("ExponentPushToken[eve]", "incoming_call")]


async def test_a_wish_that_goes_beyond_the_end_of_a_ring_is_not_kept(world: World) -> None:
    pushes = world.process()
    world.expo.mode, world.expo.retry_after = "too_many", "60"
    await world.ring(pushes)
    await pushes.run_due()
    world.expo.mode = "ok"
    for _ in range(6):
        world.clock.pass_(1)
        await pushes.run_due()
    assert world.told() == [(PHONE, "incoming_call")]


async def test_nobody_waits_for_a_provider_by_which_only_others_are_reached(world: World) -> None:
    """Two rings of one round; the one goes by a provider that hangs, the other's callee answers meanwhile."""
    quick, hangs = Quick(), Hangs()
    world.drawer.put(EVE, "android", kind="FCM")
    pushes = world.process(FCM=quick, EXPO=hangs)
    await world.ring(pushes)
    await world.ring(pushes, call_id=OTHER_CALL, callee=EVE)
    round_ = asyncio.create_task(pushes.run_due())
    await hangs.arrived.wait()
    async with asyncio.timeout(10):
        while await world.db["pushes"].find_one({"_id": OTHER_CALL, "lease": {"$exists": True}}):
            pass
    world.over.add(OTHER_CALL)
    await pushes.stop_ringing(
        call_id=OTHER_CALL, call_type="video", caller={"id": "x"}, callee_id=EVE, missed=False
    )
    await pushes.run_due()
    assert quick.took == ["incoming_call", "call_cancelled"]
    assert not round_.done()
    hangs.go.set()
    await round_


async def test_a_fault_of_the_database_with_one_to_do_does_not_hold_up_the_others(world: World) -> None:
    world.drawer.put(EVE, "ExponentPushToken[eve]")
    pushes = world.process()
    await world.ring(pushes)
    await world.ring(pushes, call_id=OTHER_CALL, callee=EVE)
    still = pushes.rings._still_rings

    async def faulty(call_id: str) -> bool:
        if call_id == CALL:
            raise AutoReconnect("no primary")
        return await still(call_id)

    pushes.rings._still_rings = faulty
    with pytest.raises(AutoReconnect):
        await pushes.run_due()
    assert world.told() == [("ExponentPushToken[eve]", "incoming_call")]
    row = await world.db["pushes"].find_one({"_id": OTHER_CALL})
    assert row is not None
    assert "due_at" not in row, "settled, too"


async def test_a_fault_of_a_claim_does_not_hold_up_what_is_claimed(world: World) -> None:
    pushes = world.process()
    await world.ring(pushes)
    rounds = pushes.rings._sounding
    claim, claims = rounds._claim, 0

    async def faulty(*args: Any, **more: Any) -> Any:
        nonlocal claims
        claims += 1
        if claims == 2:
            raise AutoReconnect("no primary")
        return await claim(*args, **more)

    rounds._claim = faulty
    await pushes.run_due()
    assert world.told() == [(PHONE, "incoming_call")]

"""Receipts: what Expo says a quarter of an hour later of what it took, and what follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from models.db import Database
from models.notify.receipts.service import QUIET
from models.notify.receipts.store import RECEIPTS, Receipt, ReceiptStore
from models.notify.rules import LEASE_SECONDS
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Killed, Mortal
from tests.services.pushkit import BOB, CALL, PHONE, TABLET, World, pushing

QUARTER = 15 * 60


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds) -> AsyncIterator[World]:
    async with pushing(db, clock, ids) as built:
        yield built


async def kept(world: World) -> int:
    return await world.db[RECEIPTS].count_documents({})


async def test_a_receipt_is_asked_for_after_a_quarter_of_an_hour_and_with_the_access_token(
    world: World,
) -> None:
    pushes = world.process()
    await world.ring(pushes)
    await pushes.run_due()
    world.clock.pass_(QUARTER - 1)
    assert await pushes.receipts.run_due() == 0
    assert world.expo.receipts_asked == []
    world.clock.pass_(1)
    assert await pushes.receipts.run_due() == 1
    assert world.expo.receipts_asked == [["00000000-0000-4000-8000-000000000000"]]
    assert world.expo.authorizations[-1] == "Bearer secret"
    assert await kept(world) == 0
    assert world.receipts_counted == [("EXPO", None)]


async def test_e19_a_device_that_is_gone_by_its_receipt_loses_its_token(world: World) -> None:
    world.drawer.put(BOB, TABLET)
    world.expo.receipt_errors = {PHONE: "DeviceNotRegistered"}
    pushes = world.process()
    await world.ring(pushes)
    await pushes.run_due()
    assert world.drawer.of(BOB) == [PHONE, TABLET], "the ticket said yes"
    world.clock.pass_(QUARTER)
    await pushes.receipts.run_due()
    assert world.drawer.of(BOB) == [TABLET]


async def test_e19_a_token_that_its_device_has_shown_anew_is_kept(world: World) -> None:
    world.expo.receipt_errors = {PHONE: "DeviceNotRegistered"}
    pushes = world.process()
    await world.ring(pushes)
    await pushes.run_due()
    world.clock.pass_(QUARTER)
    world.drawer.put("somebody else", PHONE)
    await pushes.receipts.run_due()
    assert world.drawer.of("somebody else") == [PHONE]


async def test_what_is_not_there_yet_is_asked_for_again_until_expo_has_forgotten_it(world: World) -> None:
    world.expo.silent = True
    pushes = world.process()
    await world.ring(pushes)
    await pushes.run_due()
    world.clock.pass_(QUARTER)
    assert await pushes.receipts.run_due() == 0
    assert await pushes.receipts.run_due() == 0
    assert len(world.expo.receipts_asked) == 1, "not at once"
    world.expo.silent = False
    world.clock.pass_(QUARTER)
    assert await pushes.receipts.run_due() == 1
    row = {"purge_at": {"$gt": world.clock.now()}}
    await world.ring(pushes, call_id=CALL.replace("ca", "cb"))
    await pushes.run_due()
    assert await world.db[RECEIPTS].count_documents(row) == 1, "the database forgets it after a day"


@pytest.mark.parametrize("mode", ["down", "malformed", "nonsense", "unsigned", "too_many"])
async def test_a_provider_that_is_away_is_asked_again_later(world: World, mode: str) -> None:
    pushes = world.process()
    await world.ring(pushes)
    await pushes.run_due()
    world.expo.mode = mode
    world.clock.pass_(QUARTER)
    assert await pushes.receipts.run_due() == 0
    world.expo.mode = "ok"
    world.clock.pass_(QUARTER)
    assert await pushes.receipts.run_due() == 1


@pytest.mark.parametrize("error", ["InvalidCredentials", "MismatchSenderId", "MessageTooBig"])
async def test_a_project_that_is_set_up_wrongly_is_counted_and_nothing_is_pushed_again(
    world: World, error: str
) -> None:
    world.expo.receipt_errors = {PHONE: error}
    pushes = world.process()
    await world.ring(pushes)
    await pushes.run_due()
    world.clock.pass_(QUARTER)
    await pushes.receipts.run_due()
    await pushes.run_due()
    assert world.receipts_counted == [("EXPO", error)]
    assert len(world.expo.pushed) == 1
    assert world.drawer.of(BOB) == [PHONE]
    assert await kept(world) == 0


async def test_a_device_that_gets_too_many_has_quiet_from_messages_but_not_from_calls(world: World) -> None:
    world.expo.receipt_errors = {PHONE: "MessageRateExceeded"}
    pushes = world.process()
    await world.write(pushes, 1, "first")
    world.clock.pass_(1)
    await pushes.messages.run_due()
    world.clock.pass_(QUARTER)
    await pushes.receipts.run_due()
    await world.write(pushes, 2, "second")
    world.clock.pass_(5)
    await pushes.messages.run_due()
    await world.ring(pushes)
    await pushes.run_due()
    assert [kind for _, kind in world.told()] == ["message", "incoming_call"]
    world.clock.pass_(QUIET.total_seconds())
    await pushes.messages.run_due()
    assert [kind for _, kind in world.told()] == ["message", "incoming_call", "message"]


async def test_many_are_asked_for_a_thousand_at_a_time_and_by_one_worker_each(world: World) -> None:
    pushes, other = world.process(), world.process()
    world.expo.tickets = {f"t{n}": PHONE for n in range(1100)}
    now = world.clock.now()
    kept = [Receipt(id=one, kind="EXPO", token=PHONE, sent_at=now) for one in world.expo.tickets]
    await ReceiptStore(world.db).keep(kept, now)
    world.clock.pass_(QUARTER)
    known = await asyncio.gather(pushes.receipts.run_due(), other.receipts.run_due())
    assert sum(known) == 1100
    asked = [one for ids in world.expo.receipts_asked for one in ids]
    assert len(asked) == len(set(asked)) == 1100
    assert max(len(ids) for ids in world.expo.receipts_asked) <= 1000


async def test_a_crash_at_any_await_costs_no_receipt(world: World) -> None:
    world.expo.receipt_errors = {TABLET: "DeviceNotRegistered"}
    for dies_at in range(1, 20):
        life = Mortal(world.db)
        dying, heir = world.process(db=life), world.process()
        world.drawer.put(BOB, TABLET)
        await world.ring(heir, call_id=f"01950000-0000-7000-8000-{dies_at:012d}")
        await heir.run_due()
        world.clock.pass_(QUARTER)
        life.dies_at = dies_at
        try:
            await dying.receipts.run_due()
        except Killed:
            pass
        else:
            break
        world.clock.pass_(LEASE_SECONDS)
        await heir.receipts.run_due()
        assert world.drawer.of(BOB) == [PHONE]
        assert await kept(world) == 0
    else:
        pytest.fail("it never got through")
    assert dies_at > 4


async def test_expo_is_left_alone_for_as_long_as_it_wishes(world: World) -> None:
    world.expo.mode, world.expo.retry_after = "too_many", "20"
    pushes = world.process()
    await world.ring(pushes)
    tried: Sequence[int] = []
    for second in range(45):
        before = world.expo.asked
        await pushes.run_due()
        tried = [*tried, second] if world.expo.asked > before else tried
        world.clock.pass_(1)
    assert tried == [0, 20, 40]

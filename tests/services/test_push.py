"""Pushes with a real database and a stand-in for Expo; E10-E12, E19 and E20 of the calls' edge cases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from models.db import Database
from models.notify.ports import Outcome, Push
from models.notify.rules import LEASE_SECONDS
from server.adapters.expo import ExpoSender
from tests.fakes import CountingIds, VirtualClock
from tests.services.pushkit import ANN, BOB, CALL, PHONE, TABLET, World, pushing


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds) -> AsyncIterator[World]:
    async with pushing(db, clock, ids) as built:
        yield built


async def test_a_ring_is_pushed_with_all_that_a_phone_needs_to_ring(world: World) -> None:
    pushes = world.process()
    await world.ring(pushes)
    world.clock.pass_(1.5)
    assert await pushes.run_due() == 1
    assert world.expo.pushed == [
        {
            "to": PHONE,
            "title": "Ann",
            "body": "Incoming video call",
            "sound": "default",
            "priority": "high",
            "ttl": 44,
            "channelId": "calls",
            "categoryId": "INCOMING_CALL",
            "interruptionLevel": "time-sensitive",
            "collapseId": CALL,
            "data": {
                "type": "incoming_call",
                "callId": CALL,
                "callType": "video",
                "caller": ANN,
                "startedAt": "2026-03-01T12:00:00.000Z",
                "expiresAt": "2026-03-01T12:00:45.000Z",
            },
        }
    ]
    assert world.expo.authorizations == ["Bearer secret"]


async def test_every_new_to_do_nudges_and_a_repeated_one_does_not(world: World) -> None:
    pushes = world.process()
    await world.ring(pushes)
    await world.ring(pushes)
    assert world.nudges == 1
    await world.stop(pushes, missed=True)
    await world.stop(pushes, missed=True)
    assert world.nudges == 2


async def test_e10_a_ring_that_was_cancelled_before_it_was_sent_is_never_sent_and_shows_as_missed(
    world: World,
) -> None:
    pushes = world.process()
    await world.ring(pushes)
    world.clock.pass_(0.05)
    await world.stop(pushes, missed=True)
    await pushes.run_due()
    assert world.told() == [(PHONE, "missed_call")]
    assert world.expo.pushed[0]["body"] == "Missed call from Ann"
    assert "categoryId" not in world.expo.pushed[0]


async def test_e10_a_ring_whose_call_is_over_is_not_sent_even_when_nobody_took_it_back(world: World) -> None:
    pushes = world.process()
    await world.ring(pushes)
    world.over.add(CALL)
    await pushes.run_due()
    assert world.told() == []
    await world.stop(pushes, missed=False)
    await pushes.run_due()
    assert world.told() == [], "what never rang needs no cancel"


async def test_e10_a_cancel_waits_for_the_ring_that_is_on_its_way(world: World) -> None:
    world.expo.hold = asyncio.Event()
    first, second = world.process(), world.process()
    await world.ring(first)
    sending = asyncio.create_task(first.run_due())
    await world.expo.arrived.wait()
    await world.stop(second, missed=False)
    assert await second.run_due() == 0
    world.expo.hold.set()
    await sending
    await second.run_due()
    assert world.told() == [(PHONE, "incoming_call"), (PHONE, "call_cancelled")]
    cancel = world.expo.pushed[1]
    assert cancel["_contentAvailable"] is True
    assert "title" not in cancel


async def test_e10_a_cancel_that_overtakes_its_ring_in_our_own_house_leaves_nothing_to_ring(
    world: World,
) -> None:
    pushes = world.process()
    await world.stop(pushes, missed=False)
    await world.ring(pushes)
    world.over.clear()
    await pushes.run_due()
    assert world.told() == []


async def test_e11_running_the_job_again_sends_nothing_twice(world: World) -> None:
    pushes, other = world.process(), world.process()
    await world.ring(pushes)
    await asyncio.gather(pushes.run_due(), other.run_due(), pushes.run_due())
    world.clock.pass_(LEASE_SECONDS + 1)
    assert await other.run_due() == 0
    assert world.told() == [(PHONE, "incoming_call")]


async def test_e11_killed_between_sending_and_noting_it_sends_again_with_the_same_call_id(
    world: World,
) -> None:
    class Killed(BaseException):
        pass

    class DyingSender:
        async def send(self, pushes: Sequence[Push]) -> Sequence[Outcome]:
            await world.sender.send(pushes)
            raise Killed

    dying = world.process(EXPO=DyingSender())
    await world.ring(dying)
    with pytest.raises(Killed):
        await dying.run_due()
    heir = world.process()
    assert await heir.run_due() == 0, "the lease of the dead holds"
    world.clock.pass_(LEASE_SECONDS)
    assert await heir.run_due() == 1
    first, second = world.expo.pushed
    assert first["data"] == second["data"]
    assert first["collapseId"] == second["collapseId"] == CALL
    assert second["ttl"] == first["ttl"] - LEASE_SECONDS


async def test_a_worker_whose_lease_was_taken_over_changes_nothing_when_it_wakes(world: World) -> None:
    world.expo.hold = asyncio.Event()
    slow, quick = world.process(), world.process()
    await world.ring(slow)
    sending = asyncio.create_task(slow.run_due())
    await world.expo.arrived.wait()
    world.clock.pass_(LEASE_SECONDS)
    world.expo.arrived.clear()
    world.expo.mode = lambda number: "ok" if number == 1 else "down"
    taking_over = asyncio.create_task(quick.run_due())
    await world.expo.arrived.wait()
    world.expo.hold.set()
    await asyncio.gather(sending, taking_over)
    # The heir's failure stands, whatever the late worker believes: the ring is due again after the back-off.
    world.expo.mode = "ok"
    world.clock.pass_(5)
    assert await quick.run_due() == 1
    assert world.told() == [(PHONE, "incoming_call")] * 2


async def test_e12_a_phone_that_was_off_finds_one_missed_call_and_no_ring(world: World) -> None:
    """The ring may not outlive the call at the provider; the notice of it may."""
    pushes = world.process()
    await world.ring(pushes)
    await pushes.run_due()
    world.clock.pass_(45)
    await world.stop(pushes, missed=True)
    await pushes.run_due()
    await world.stop(pushes, missed=True)
    await pushes.run_due()
    day = 24 * 3600
    still_held = [message for message in world.expo.pushed if message["ttl"] > day]
    assert [message["data"]["type"] for message in still_held] == ["missed_call"]
    assert world.told() == [(PHONE, "incoming_call"), (PHONE, "missed_call")]


async def test_e12_a_ring_that_nobody_could_send_in_time_is_not_sent_late(world: World) -> None:
    pushes = world.process()
    await world.ring(pushes)
    world.clock.pass_(45)
    await pushes.run_due()
    assert world.told() == []


async def test_e19_a_dead_token_is_deleted_and_the_other_devices_ring(world: World) -> None:
    world.drawer.put(BOB, TABLET, "garbage]")
    world.expo.dead = {PHONE}
    pushes = world.process()
    await world.ring(pushes)
    await pushes.run_due()
    assert world.drawer.of(BOB) == [TABLET]
    world.clock.pass_(60)
    await pushes.run_due()
    assert len(world.expo.requests) == 1, "nothing is tried again"
    await world.stop(pushes, missed=True)
    await pushes.run_due()
    assert world.told()[-1] == (TABLET, "missed_call")


async def test_e20_a_slow_provider_delays_neither_the_ring_nor_its_end_nor_other_rings(world: World) -> None:
    world.expo.hold = asyncio.Event()
    pushes = world.process()
    await world.ring(pushes)
    sending = asyncio.create_task(pushes.run_due())
    await world.expo.arrived.wait()
    # The provider has the first ring and says nothing; all of this returns all the same.
    await world.stop(pushes, missed=True)
    world.expo.arrived.clear()
    await world.ring(pushes, call_id=CALL.replace("ca", "cb"))
    another = asyncio.create_task(pushes.run_due())
    await world.expo.arrived.wait()
    assert world.expo.asked == 2
    assert not sending.done()
    world.expo.hold.set()
    await asyncio.gather(sending, another)
    await pushes.run_due()
    assert sorted(kind for _, kind in world.told()) == ["incoming_call", "incoming_call", "missed_call"]


async def test_e20_a_provider_that_never_answers_counts_as_a_failed_try(world: World) -> None:
    hasty = ExpoSender(url=world.expo.url, total_seconds=0.05)
    pushes = world.process(EXPO=hasty)
    world.expo.hold = asyncio.Event()
    await world.ring(pushes)
    assert await pushes.run_due() == 1
    world.expo.hold = None
    world.clock.pass_(1)
    assert await world.process().run_due() == 1
    await hasty.close()


@pytest.mark.parametrize("mode", ["down", "too_many", "malformed", "nonsense", "unsigned"])
async def test_e20_a_failing_provider_is_tried_again_with_growing_waits_until_the_rings_end(
    world: World, mode: str
) -> None:
    pushes = world.process()
    world.expo.mode = mode
    await world.ring(pushes)
    tried_at = []
    for second in range(60):
        if await pushes.run_due():
            tried_at.append(second)
        world.clock.pass_(1)
    assert tried_at == [0, 1, 3, 7, 12, 17, 22, 27, 32, 37, 42]
    assert world.told() == []


async def test_e20_a_ring_goes_out_when_the_provider_is_back(world: World) -> None:
    pushes = world.process()
    world.expo.mode = lambda number: "down" if number <= 2 else "ok"
    await world.ring(pushes)
    for _ in range(10):
        await pushes.run_due()
        world.clock.pass_(1)
    assert world.told() == [(PHONE, "incoming_call")]
    assert world.expo.pushed[0]["ttl"] == 42


async def test_a_missed_call_is_tried_for_an_hour_and_then_left(world: World) -> None:
    pushes = world.process()
    world.expo.mode = "down"
    await world.stop(pushes, missed=True)
    await pushes.run_due()
    world.clock.pass_(3500)
    await pushes.run_due()
    assert world.expo.asked == 2
    world.clock.pass_(3600)
    await pushes.run_due()
    assert world.expo.asked == 2
    assert await pushes.run_due() == 0, "it is not even looked at again"


async def test_a_missed_call_that_waited_for_a_worker_beyond_its_hour_is_left(world: World) -> None:
    pushes = world.process()
    await world.stop(pushes, missed=True)
    world.clock.pass_(3600)
    assert await pushes.run_due() == 1
    assert world.told() == []


async def test_only_the_devices_that_were_not_reached_are_tried_again(world: World) -> None:
    world.drawer.put(BOB, TABLET)
    world.expo.ticket_errors = {TABLET: "MessageRateExceeded"}
    pushes = world.process()
    await world.ring(pushes)
    await pushes.run_due()
    world.expo.ticket_errors = {}
    world.clock.pass_(1)
    await pushes.run_due()
    assert world.told() == [(PHONE, "incoming_call"), (TABLET, "incoming_call"), (TABLET, "incoming_call")]


async def test_a_device_that_can_never_be_told_is_left_alone(world: World) -> None:
    world.expo.ticket_errors = {PHONE: "MessageTooBig"}
    pushes = world.process()
    await world.ring(pushes)
    await pushes.run_due()
    world.clock.pass_(1)
    assert await pushes.run_due() == 0
    assert world.drawer.of(BOB) == [PHONE]


async def test_tokens_of_a_kind_without_a_sender_are_left_alone(world: World) -> None:
    world.drawer.put(BOB, "apns-voip-token", kind="APNS_VOIP")
    pushes = world.process()
    await world.ring(pushes)
    await pushes.run_due()
    assert world.told() == [(PHONE, "incoming_call")]


async def test_nobody_to_push_to_is_no_trouble(world: World) -> None:
    """Nothing is kept for a person without a token, and a token that goes before its push is sent leaves nothing."""
    pushes = world.process()
    await world.ring(pushes)
    world.drawer.tokens.clear()
    assert await pushes.run_due() == 1
    await world.ring(pushes, call_id="another")
    await world.stop(pushes, missed=True, call_id="another")
    assert await pushes.run_due() == 0
    assert world.told() == []


async def test_the_device_that_took_the_call_is_told_of_no_end(world: World) -> None:
    pushes = world.process()
    world.drawer.put(BOB, TABLET)
    await world.ring(pushes)
    await pushes.run_due()
    await world.stop(pushes, missed=False, answered_on=f"d:{TABLET}")
    await pushes.run_due()
    assert [row for row in world.told() if row[1] != "incoming_call"] == [(PHONE, "call_cancelled")]

"""The Expo adapter against the stand-in: sizes, projects, odd tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from models.notify.ports import Note, Push, Sent
from server.adapters.expo import PRESSING_THREADS, ExpoSender
from tests.fakes import VirtualClock
from tests.standins.expo import ExpoStandIn


@pytest.fixture
async def expo() -> AsyncIterator[ExpoStandIn]:
    standin = ExpoStandIn()
    await standin.start()
    yield standin
    await standin.stop()


@pytest.fixture
async def sender(expo: ExpoStandIn) -> AsyncIterator[ExpoSender]:
    made = ExpoSender(url=expo.url)
    yield made
    await made.close()


def push(name: str) -> Push:
    token = name if "[" in name else f"ExponentPushToken[{name}]"
    return Push(note=Note.MISSED, token=token, data={"type": "x"}, ttl_seconds=30, title="T", body="B")


async def sent(sender: ExpoSender, pushes: Sequence[Push]) -> list[Sent]:
    """What became of each."""
    return [outcome.sent for outcome in await sender.send(pushes)]


async def test_more_than_a_hundred_pushes_go_in_several_requests_and_results_keep_their_order(
    expo: ExpoStandIn, sender: ExpoSender
) -> None:
    expo.dead = {"ExponentPushToken[t7]", "ExponentPushToken[t249]"}
    results = await sent(sender, [push(f"t{n}") for n in range(250)])
    assert sorted(len(request) for request in expo.requests) == [50, 100, 100]
    assert [n for n, one in enumerate(results) if one is Sent.GONE] == [7, 249]
    assert sum(one is Sent.OK for one in results) == 248


async def test_a_failed_request_does_not_cost_the_others_their_tickets(
    expo: ExpoStandIn, sender: ExpoSender
) -> None:
    expo.mode = lambda number: "down" if number == 2 else "ok"
    results = await sent(sender, [push(f"t{n}") for n in range(300)])
    assert sum(one is Sent.OK for one in results) == 200
    assert sum(one is Sent.LATER for one in results) == 100


async def test_tokens_of_two_projects_are_told_in_requests_of_their_own(
    expo: ExpoStandIn, sender: ExpoSender
) -> None:
    expo.projects = {"ExponentPushToken[b]": "@us/other"}
    assert await sent(sender, [push("a"), push("b"), push("c")]) == [Sent.OK] * 3
    assert len(expo.pushed) == 3


async def test_both_shapes_of_tokens_are_sent_and_garbage_is_not(
    expo: ExpoStandIn, sender: ExpoSender
) -> None:
    results = await sent(sender, [push("ExpoPushToken[x]"), push("ExponentPushToken[x]; rm"), push("y")])
    assert results == [Sent.OK, Sent.GONE, Sent.OK]
    assert [message["to"] for message in expo.pushed] == ["ExpoPushToken[x]", "ExponentPushToken[y]"]


async def test_without_an_access_token_nothing_is_signed(expo: ExpoStandIn, sender: ExpoSender) -> None:
    await sender.send([push("a")])
    assert expo.authorizations == [None]


async def test_a_provider_that_is_not_there_is_a_try_for_later(expo: ExpoStandIn, sender: ExpoSender) -> None:
    await expo.stop()
    assert await sent(sender, [push("a")]) == [Sent.LATER]


async def test_after_its_time_nothing_more_is_asked(expo: ExpoStandIn) -> None:
    """What splits a refused request in two must not go on sending when its outcome counts for nothing."""
    hasty = ExpoSender(url=expo.url, total_seconds=0)
    assert await sent(hasty, [push("a"), push("b")]) == [Sent.LATER] * 2
    await hasty.close()
    assert expo.asked == 0


async def test_one_spoiled_message_does_not_keep_the_others_from_being_sent(
    expo: ExpoStandIn, sender: ExpoSender
) -> None:
    expo.spoiled = {"ExponentPushToken[t5]"}
    results = await sent(sender, [push(f"t{n}") for n in range(9)])
    assert [n for n, one in enumerate(results) if one is not Sent.OK] == [5]
    assert results[5] is Sent.NEVER


async def test_a_sender_that_is_closed_leaves_pushes_to_others(expo: ExpoStandIn, sender: ExpoSender) -> None:
    await sender.close()
    assert await sent(sender, [push("a")]) == [Sent.LATER]
    assert expo.asked == 0


async def test_a_ring_that_ends_while_it_waits_for_a_thread_is_not_sent(
    expo: ExpoStandIn, clock: VirtualClock
) -> None:
    """All threads for rings are at a provider that hangs; others wait behind them until the call of one is over."""
    sender = ExpoSender(url=expo.url, now=clock.now)

    def ring(name: str, seconds: int) -> Push:
        over = clock.now() + timedelta(seconds=seconds)
        return replace(push(name), note=Note.RING, ttl_seconds=seconds, expires_at=over)

    expo.hold = asyncio.Event()
    busy = [asyncio.create_task(sender.send([ring(f"t{n}", 45)])) for n in range(PRESSING_THREADS)]
    await expo.arrived.wait()
    late = asyncio.create_task(sender.send([ring("short", 2), ring("long", 45)]))
    await asyncio.sleep(0)
    clock.pass_(2)
    expo.hold.set()
    assert [one.sent for one in await late] == [Sent.LATER, Sent.OK]
    await asyncio.gather(*busy)
    ttl = {message["to"]: message["ttl"] for message in expo.pushed}
    assert ttl["ExponentPushToken[long]"] == 43
    assert "ExponentPushToken[short]" not in ttl
    await sender.close()

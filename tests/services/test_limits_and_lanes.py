"""Ways around the limits and the lanes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from handlers.context import Context
from models.errors import Refusal
from server.funnel import Limits
from server.lanes import Lanes
from server.limits import LocalWindows, TokenBucket
from tests.fakes import VirtualClock


def limits_of(auth_per_minute: int) -> Limits:
    return Limits(auth_per_minute, windows=LocalWindows(), clock=VirtualClock())


async def guesses(limits: Limits, asks: list[dict[str, Any]]) -> int:
    """How many of the asks, each from an address of its own, pass."""
    passed = 0
    for number, ask in enumerate(asks):
        ctx = Context(services=None, address=f"192.0.2.{number}")  # type: ignore[arg-type]
        try:
            await limits.credentials(ctx, ask, "POST /api/auth/login")
        except Refusal:
            continue
        passed += 1
    return passed


@pytest.mark.parametrize(
    "ways",
    [
        [{"identifier": "", "email": "ada@example.org"}],
        [{"identifier": None, "email": "ada@example.org"}],
        [{"identifier": 7, "email": "ada@example.org"}],
        [{"phone": "+234 801 234 5678"}, {"phone": "+2348012345678"}, {"identifier": "+234-801-234-5678"}],
        [{"phoneNumber": "+2348012345678"}, {"phone_number": "+2348012345678"}],
        [{"email": "ada@example.org"}, {"email": "\uff41da@example.org"}, {"email": " ADA@Example.org"}],
        [{"username": "ada"}, {"username": " A\uff44a "}],
    ],
)
async def test_an_account_is_the_same_account_however_it_is_written(ways: list[dict[str, Any]]) -> None:
    assert await guesses(limits_of(10), [ways[number % len(ways)] for number in range(40)]) == 10


def test_who_calls_by_rest_gets_no_second_allowance_under_another_device_id() -> None:
    limits, passed = limits_of(10), 0
    for number in range(300):
        ctx = Context(
            services=None,  # type: ignore[arg-type]
            user_id="ada",
            session_id="s",
            device_id=f"made up {number}",
        )
        try:
            limits.check("event", ctx)
        except Refusal:
            continue
        passed += 1
    assert 100 <= passed < 110


async def test_a_place_in_a_lane_that_is_given_up_as_its_turn_comes_is_just_given_up() -> None:
    lanes = Lanes()
    first = lanes.turn("call")
    await first.__aenter__()

    async def wait() -> None:
        async with lanes.turn("call"):
            pass

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await first.__aexit__(None, None, None)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert lanes.free("call")


def test_who_was_quiet_for_long_has_the_burst_and_no_more() -> None:
    bucket = TokenBucket(rate=50, burst=200)
    allowance = bucket.of("a device", 0.0)
    assert all(allowance.take(1_000_000.0) for _ in range(200))
    assert not allowance.take(1_000_000.0)
    assert bucket.take("a device", 1_000_000.0) == 20, "it is one allowance, whoever takes from it"
    assert bucket.take("another", 1_000_000.0) == 0

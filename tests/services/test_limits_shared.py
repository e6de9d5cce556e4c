"""Windows in Redis (``server.limits_shared``): one allowance for all processes, and none of them stands without it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from models.ports import Window
from server.limits import LocalWindows
from server.limits_shared import SharedWindows
from tests.doors.redis_server import RedisServer
from tests.patience import PATIENT_MS

NOW = 1_772_366_400.0
ONE = Window("sign-in 192.0.2.1", 5, 60.0)


@asynccontextmanager
async def processes(url: str, count: int, told: list[bool]) -> AsyncIterator[list[SharedWindows]]:
    made = [
        SharedWindows(url, name="town", told=told.append, timeout_seconds=PATIENT_MS / 1000)
        for _ in range(count)
    ]
    try:
        yield made
    finally:
        for one in made:
            await one.close()


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    server = await RedisServer(tmp_path).start()
    yield server
    await server.kill()


async def test_processes_have_one_allowance_together_also_for_what_comes_at_once(redis: RedisServer) -> None:
    async with processes(redis.url, 3, []) as made:
        waits = await asyncio.gather(*(made[n % 3].take(ONE, now=NOW) for n in range(30)))
        assert sorted(waits) == [0] * 5 + [60_000] * 25
        assert await made[1].take(ONE, now=NOW + 59.999) == 1
        assert await made[2].take(ONE, now=NOW + 60) == 0
        assert await made[0].take(Window("another", 5, 60.0), now=NOW) == 0


async def test_the_user_whom_the_guide_describes_may_count(redis: RedisServer) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "deploy.md").read_text()
    (words,) = re.findall(r"^ACL SETUSER user (.+)$", guide, re.MULTILINE)
    async with Redis.from_url(redis.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "user", "reset", *words.split())  # type: ignore[no-untyped-call]
    told: list[bool] = []
    async with processes(redis.url.replace("//", "//user:password@"), 1, told) as (shared,):
        assert [await shared.take(ONE, now=NOW) for _ in range(6)] == [0] * 5 + [60_000]
        assert (shared.up, told) == (True, [True])
        assert await shared._redis.publish("ringmeter:{town}:p:one", "a message") == 0


async def test_redis_and_memory_count_alike(redis: RedisServer) -> None:
    steps = [
        0,
        1,
        2,
        3,
        4,
        5,
        59,
        60,
        60.5,
        61,
        62.5,
        63,
        64,
        119,
        121,
        122,
        300,
        300,
        300,
        300,
        300,
        300,
        301,
    ]
    local = LocalWindows()
    async with processes(redis.url, 1, []) as (shared,):
        for step in steps:
            wait = await local.take(ONE, now=NOW + step)
            assert await shared.take(ONE, now=NOW + step) == wait, step


async def test_who_is_refused_by_the_first_window_takes_nothing_from_the_next(redis: RedisServer) -> None:
    address, account = Window("address", 1, 60.0), Window("account", 2, 60.0)
    async with processes(redis.url, 1, []) as (shared,):
        for windows in (shared, LocalWindows()):
            assert await windows.take(address, account, now=NOW) == 0
            assert [await windows.take(address, account, now=NOW) for _ in range(9)] == [60_000] * 9
            assert await windows.take(account, now=NOW) == 0
            assert await windows.take(account, now=NOW) == 60_000


async def test_a_clock_that_was_set_back_locks_for_one_span_at_most(redis: RedisServer) -> None:
    async with processes(redis.url, 1, []) as (shared,):
        assert [await shared.take(ONE, now=NOW + 86_400) for _ in range(5)] == [0] * 5
        assert await shared.take(ONE, now=NOW) == 60_000


async def test_what_redis_keeps_is_gone_with_its_span_and_never_more_than_it_needs(
    redis: RedisServer,
) -> None:
    async with processes(redis.url, 1, []) as (shared,):
        for step in range(50):
            await shared.take(ONE, now=NOW + 61 * step)
        (key,) = await shared._redis.keys("*")
        assert await shared._redis.llen(key) <= ONE.most
        assert 0 < await shared._redis.pttl(key) <= 60_000


async def test_without_redis_each_goes_on_by_itself_from_where_it_was_and_says_so_once(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    async with processes(redis.url, 1, told) as (shared,):
        assert [await shared.take(ONE, now=NOW) for _ in range(3)] == [0] * 3
        await redis.kill()
        with capture_logs() as logs:
            waits = [await shared.take(ONE, now=NOW) for _ in range(6)]
        assert waits == [0, 0] + [60_000] * 4, "what was counted in Redis was counted here as well"
        assert [line["log_level"] for line in logs] == ["warning"]
        monkeypatch.setattr("server.limits_shared.REST_SECONDS", 0.0)
        await redis.start()
        shared._rests_until = 0.0
        with capture_logs() as logs:
            assert await shared.take(ONE, now=NOW) == 0, "it has begun anew, with nothing"
            assert await shared.take(ONE, now=NOW) == 0
        assert [line["log_level"] for line in logs] == ["info"]
        assert told == [True, False, True]


async def test_a_redis_that_is_frozen_is_waited_for_once(redis: RedisServer) -> None:
    shared = SharedWindows(redis.url, name="town", timeout_seconds=0.05)
    async with aclosing(shared_closing(shared)):
        redis.freeze()
        try:
            began = asyncio.get_running_loop().time()
            assert [await shared.take(ONE, now=NOW) for _ in range(3)] == [0] * 3
            assert not shared.up
            rested = shared._rests_until
            assert rested > began
            await shared.take(ONE, now=NOW)
            assert shared._rests_until == rested, "it was asked no second time"
        finally:
            redis.thaw()


async def shared_closing(shared: SharedWindows) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await shared.close()

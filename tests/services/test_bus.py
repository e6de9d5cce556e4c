"""The bus by itself: ways to Redis, what is dropped when Redis does not take it, and messages of nobody's making."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from models.ports import Letter
from server.bus import frames
from server.bus.bus import WAITING_BYTES_MAX, Bus
from server.clock import Tasks
from tests.doors.redis_server import RedisServer
from tests.doors.serverprocess import eventually
from tests.fakes import FakeDoors


class Sockets(FakeDoors):
    """The sockets of one process, as the bus needs them."""

    def deliver_now(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            for (user_id, _), inbox in self.devices.items():
                if user_id == letter.user_id:
                    inbox.append(letter)

    def pass_on(self, user_id: str, device_id: str, frame: bytes) -> bool:
        return False


class Ear:
    """Remembers."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def letters(self, letters: Sequence[Letter]) -> None:
        self.heard += letters

    async def changed(self, what: str, id: str, version: int) -> None:
        self.heard.append((what, id, version))

    def stirred(self, user_ids: Collection[str]) -> None:
        self.heard.append(sorted(user_ids))

    def another(self) -> None:
        """Somebody."""


@asynccontextmanager
async def bus(url: str, process: str) -> AsyncIterator[tuple[Bus, Sockets, Ear]]:
    tasks, doors, ear = Tasks(), Sockets(), Ear()
    made = Bus(url, name="tests", process=process, tasks=tasks)
    made.bind(doors=doors, ear=ear, others_live=lambda: True)
    made.start()
    try:
        yield made, doors, ear
    finally:
        made.stop()
        await tasks.drain(5)


class Servers(Protocol):
    """Makes a Redis, which is gone at the end of the test."""

    def __call__(self, *, password: str | None = None) -> RedisServer: ...


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Servers]:
    made: list[RedisServer] = []

    def make(*, password: str | None = None) -> RedisServer:
        made.append(RedisServer(tmp_path, password=password))
        return made[-1]

    yield make
    for one in made:
        await one.kill()


async def answered(bus: Bus) -> None:
    """What it has sent by now has been done, and what was sent to it has come."""
    before = bus.beats
    await asyncio.sleep(0)  # subscriptions are sent with the end of a turn of the loop
    bus.ask_back()
    await eventually(lambda: bus.beats > before)


@pytest.mark.parametrize("way", ["url", "unix_url"])
async def test_by_tcp_and_by_a_socket_with_a_password(servers: Servers, way: str) -> None:
    redis = await servers(password="between us").start()
    url = getattr(redis, way)
    async with bus(url, "p1") as (one, _, _), bus(url, "p2") as (two, doors, ear):
        inbox = doors.connect("ann", "phone")
        two.here("ann", connected=True)
        await eventually(lambda: one.reaches and two.reaches)
        letter = Letter(user_id="ann", event="HELLO", payload={"text": "ä\n"}, key="k", seq=7)
        one.carry([letter])
        one.changed("call", "c1", 3, users=["ann"], processes=["p2", "p1", None])
        await eventually(lambda: len(ear.heard) == 3)
        assert inbox == [letter]
        assert ear.heard == [letter, ("call", "c1", 3), ("call", "c1", 3)]
        two.here("ann", connected=False)
        await answered(two)
        one.carry([letter])
        await answered(one)
        await answered(two)
        assert len(inbox) == 1


async def test_a_wrong_password_is_no_connection(servers: Servers) -> None:
    redis = await servers(password="between us").start()
    async with bus(f"redis://:wrong@127.0.0.1:{redis.port}/0", "p1") as (one, _, _):
        refused = asyncio.get_running_loop().time() + 0.5
        await eventually(lambda: asyncio.get_running_loop().time() > refused)
        assert not one.reaches
        one.carry([Letter(user_id="ann", event="HELLO", payload={})])
        assert not one.published


async def test_what_redis_does_not_take_is_dropped_what_is_of_the_moment_first(servers: Servers) -> None:
    redis = await servers().start()
    async with bus(redis.url, "p1") as (one, _, _):
        await eventually(lambda: one.reaches)
        text = "x" * 100_000
        moment = Letter(user_id="ann", event="TYPING", payload={"text": text})
        kept = Letter(user_id="ann", event="MESSAGE", payload={"text": text}, key="k", seq=1)
        redis.freeze()
        try:
            for _ in range(200):
                one.carry([moment])
            first = one.published["letter"]
            assert 0 < first < 200
            one.carry([kept])
            assert one.published["letter"] == first + 1, "there is room for what is kept"
            for _ in range(2 * WAITING_BYTES_MAX // len(text)):
                one.carry([kept])
            assert one.published["letter"] < 2 * WAITING_BYTES_MAX // len(text)
            assert one.dropped > 200 - first
        finally:
            redis.thaw()
        before = one.beats
        await eventually(lambda: one.reaches and one.beats > before + 1)


async def test_what_is_not_understood_is_left_alone(servers: Servers) -> None:
    redis = await servers().start()
    async with bus(redis.url, "p1") as (one, _, ear), bus(redis.url, "p2") as (two, _, _):
        await eventually(lambda: one.reaches and two.reaches)
        for message in (b"", b"L", b"L\n\n", b"Zp9\n{}", b"Cp9\n[1]", frames.frame(b"L", b"p9", 1)):
            two._line.send("PUBLISH", "ringmeter:tests:p:p1", message)
        two.changed("room", "r1", 1, processes=["p1"])
        await eventually(lambda: ("room", "r1", 1) in ear.heard)
        assert one.reaches

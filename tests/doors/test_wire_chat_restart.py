"""Two official clients chat while their server goes and comes: nothing lost, nothing doubled, nothing out of order.

Each does what an app does: an ``opId`` for each message, the same one again when no ack came, and ``since`` in the next
handshake.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from server.app import drain
from tests.doors.conftest import PASSWORD, open_house
from tests.doors.phones import Exchange, Phone, PhoneFault
from tests.doors.serverprocess import ServerProcess, eventually, lodging

# Below a device's burst of 100 events, retries included.
BEFORE, AFTER = 30, 10
# Long enough for an answer of a server that lives; an ack that has not come by then will not come.
ACK_SECONDS = 3.0


@dataclass
class Writer:
    """An app with a queue of messages that it has no ack of yet."""

    phone: Phone
    name: str
    user_id: str
    token: str
    to: str = ""
    unsent: list[int] = field(default_factory=list)
    acked: dict[int, dict[str, Any]] = field(default_factory=dict)

    async def write(self, numbers: list[int]) -> None:
        """Send these messages back to back, and keep those that get no ack."""
        results = await asyncio.gather(*(self._send(n) for n in numbers))
        self.unsent = [n for n, done in zip(numbers, results, strict=True) if not done]

    async def _send(self, n: int) -> bool:
        payload = {"to": self.to, "text": f"{self.name} {n}", "opId": f"{n}"}
        try:
            ack = await self.phone.ack("CHAT_MESSAGE", payload, seconds=ACK_SECONDS)
        except PhoneFault:
            return False
        if ack["ok"]:
            self.acked[n] = ack["data"]
        return bool(ack["ok"])

    async def back(self, url: str) -> None:
        """Connect again, saying what was the last thing handled."""
        since = max((x["logSeq"] for x in self.heard()), default=0)
        await self.phone.use(token=self.token, deviceId=self.name, since=since)
        greeted = self.phone.names().count("SYNC")
        await self.phone.connect()
        await eventually(lambda: self.phone.names().count("SYNC") > greeted, what="a greeting")

    def heard(self) -> list[dict[str, Any]]:
        return self.phone.heard("CHAT_MESSAGE")


async def goes_on(one: Writer, other: Writer, url: str) -> None:
    """After the restart: both come back, send what has no ack again, write some more, and have everything."""
    assert one.unsent or other.unsent, "the server went in the middle of it"
    both = (one, other)
    await asyncio.gather(*(writer.back(url) for writer in both))
    for writer in both:
        left = writer.unsent
        await writer.write(left)
        assert writer.unsent == []
    await asyncio.gather(*(w.write(list(range(BEFORE, BEFORE + AFTER))) for w in both))
    all_of_them = {f"{w.name} {n}" for w in both for n in range(BEFORE + AFTER)}
    for writer, peer in ((one, other), (other, one)):
        await eventually(
            lambda w=writer: len(w.heard()) >= BEFORE + AFTER, what=f"all messages at {writer.name}"
        )
        await writer.phone.settled()
        heard = writer.heard()
        assert {x["text"] for x in heard} == {f"{peer.name} {n}" for n in range(BEFORE + AFTER)}
        assert len(heard) == BEFORE + AFTER, "nothing twice"
        assert [x["logSeq"] for x in heard] == sorted({x["logSeq"] for x in heard})
        assert [x["seq"] for x in heard] == sorted(x["seq"] for x in heard), (
            "in the order of the conversation"
        )
        own = {x["seq"]: x["text"] for x in writer.acked.values()}
        seen = {x["seq"]: x["text"] for x in heard} | own
        assert sorted(seen) == list(range(1, 2 * (BEFORE + AFTER) + 1)), "dense"
        assert set(seen.values()) == all_of_them
    # What each wrote stands in the order in which it was sent, as far as it went in one go.
    for writer in both:
        late = [writer.acked[n]["seq"] for n in range(BEFORE, BEFORE + AFTER)]
        assert late == sorted(late)


async def test_e57_two_chat_across_a_deploy(mongo_uri: str, exchange: Exchange) -> None:
    """The server drains; the next one is at the same port."""
    async with open_house(mongo_uri, exchange) as house:
        people = [await house.person(name) for name in ("ada", "bob")]
        phones = [await person.phone(f"{n}") for n, person in enumerate(people)]
        one, other = (
            Writer(phone, f"{n}", person.id, person.token)
            for n, (phone, person) in enumerate(zip(phones, people, strict=True))
        )
        one.to, other.to = other.user_id, one.user_id
        port = house.site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        # The first half is being answered when the drain begins; the second meets a closed door.
        first = [asyncio.ensure_future(w.write(list(range(BEFORE // 2)))) for w in (one, other)]
        await eventually(lambda: one.acked and other.acked, what="the first acks")
        await house.site.stop()
        leaving = asyncio.ensure_future(drain(house.app))
        await asyncio.gather(*first)
        halves = [writer.unsent for writer in (one, other)]
        await asyncio.gather(*(w.write(list(range(BEFORE // 2, BEFORE))) for w in (one, other)))
        for writer, half in zip((one, other), halves, strict=True):
            writer.unsent = half + writer.unsent
        async with asyncio.timeout(10):
            await leaving
        async with open_house(mongo_uri, exchange, database=house.db.db.name, port=port) as next_one:
            await goes_on(one, other, next_one.url)


@pytest.fixture
async def server(mongo_uri: str, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server of its own process, on a database of this test's own."""
    async with lodging(mongo_uri) as database:
        running = ServerProcess(tmp_path / "server", mongo_uri=mongo_uri, database=database)
        yield await asyncio.to_thread(running.start)
        await asyncio.to_thread(running.stop)


async def signed_up(address: str, name: str) -> tuple[str, str]:
    """The id and the token of somebody new."""
    username = f"{name}-{uuid4().hex[:8]}"
    body = {"email": f"{username}@example.org", "username": username, "password": PASSWORD}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{address}/api/auth/register", json=body) as answer,
    ):
        said = await answer.json()
        assert answer.status == 201, said
    return said["user"]["id"], said["accessToken"]


async def test_e57_two_chat_across_a_sigkill(server: ServerProcess, exchange: Exchange) -> None:
    """The server dies in the middle of a burst of both."""
    writers = []
    for name in ("ada", "bob"):
        user_id, token = await signed_up(server.address, name)
        phone = Phone(exchange, f"{name}/{user_id}")
        await phone.open(server.address, auth={"token": token, "deviceId": name})
        await phone.happens("SYNC")
        writers.append(Writer(phone, name, user_id, token))
    one, other = writers
    one.to, other.to = other.user_id, one.user_id
    half = BEFORE // 2
    await asyncio.gather(*(w.write(list(range(half))) for w in writers))
    assert [w.unsent for w in writers] == [[], []]
    writing = [asyncio.ensure_future(w.write(list(range(half, BEFORE)))) for w in writers]
    await eventually(lambda: any(len(w.acked) > half for w in writers), what="an ack in the second half")
    await asyncio.to_thread(server.kill)
    await asyncio.gather(*writing)
    if (
        not one.unsent and not other.unsent
    ):  # it was quicker than the signal: then these are what it dies over
        for w in writers:
            w.unsent = [BEFORE - 1]
    await asyncio.to_thread(server.start)
    await goes_on(one, other, server.address)
    for w in writers:
        await w.phone.forget()

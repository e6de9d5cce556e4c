"""Presence at two real servers on one database, one of which is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.doors.pyphone import PyPhone
from tests.doors.serverprocess import ServerProcess, eventually, lodging


@pytest.fixture
async def servers(mongo_uri: str, tmp_path: Path) -> AsyncIterator[list[ServerProcess]]:
    """Two servers on a database of this test's own."""
    secret = {"JWT_SECRET": "a secret of the tests, long enough for HS256"}
    async with lodging(mongo_uri) as database:
        both = [
            ServerProcess(tmp_path / name, mongo_uri=mongo_uri, database=database, **secret)
            for name in ("one", "two")
        ]
        await asyncio.to_thread(both[0].start)  # the first one may have to make the collections
        await asyncio.to_thread(both[1].start)
        yield both
        for server in both:
            await asyncio.to_thread(server.stop)


def seen(phone: PyPhone, person: PyPhone) -> list[str]:
    return [told["state"] for told in phone.all("PRESENCE") if told["userId"] == person.id]


async def watch(phone: PyPhone, *people: PyPhone) -> list[dict[str, Any]]:
    data = await phone.ask("PRESENCE_WATCH", userIds=[person.id for person in people])
    return list(data["presences"])


async def test_whoever_was_at_a_server_that_is_killed_is_gone_unless_they_come_back_elsewhere(
    servers: list[ServerProcess],
) -> None:
    one, two = servers
    async with AsyncExitStack() as phones:
        ann, cid, dot = [await phones.enter_async_context(PyPhone(one.address)) for _ in range(3)]
        bob = await phones.enter_async_context(PyPhone(two.address))
        for phone in (ann, cid, dot, bob):
            await phone.register()
        await bob.connect()
        assert [one["state"] for one in await watch(bob, ann, cid, dot)] == ["offline"] * 3
        for phone in (ann, cid, dot):
            await phone.connect()
        for phone in (ann, cid, dot):
            await eventually(
                lambda phone=phone: seen(bob, phone) == ["online"], what="heard from the other server"
            )
        call = await ann.ask("CALL_REQUEST", to=dot.id, type="audio")
        await eventually(lambda: seen(bob, ann) == seen(bob, dot) == ["online", "in_call"])
        await ann.ask("CALL_ENDED", callId=call["id"])
        await eventually(lambda: seen(bob, ann) == seen(bob, dot) == ["online", "in_call", "online"])

        for phone in (ann, cid, dot):
            phone.sio.reconnection = False
        await asyncio.to_thread(one.kill)
        await eventually(lambda: not cid.sio.connected, what="the phone has noticed")
        cid.address = two.address
        await cid.connect()
        await eventually(
            lambda: seen(bob, ann)[-1] == seen(bob, dot)[-1] == "offline", within=30, what="told of the dead"
        )
        assert seen(bob, cid) == ["online"], "who has come back was never gone"
        now = {told["userId"]: told for told in await watch(bob, ann, cid, dot)}
        assert [now[phone.id]["state"] for phone in (ann, cid, dot)] == ["offline", "online", "offline"]
        assert now[ann.id]["lastSeenAt"] is not None

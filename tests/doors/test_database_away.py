"""MongoDB goes away and comes back while the server runs and people are connected."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from server.mongod import EmbeddedMongod, number_in
from server.processes import KILL, send_signal
from tests.doors.pyphone import Pair, PyPhone, Refused
from tests.doors.serverprocess import ServerProcess, eventually

# A refusal is promised within two seconds; this is what a busy machine may add to it.
REFUSED_WITHIN = 8.0

Away = Callable[[EmbeddedMongod], Awaitable[None]]


async def killed(mongod: EmbeddedMongod) -> None:
    await mongod.kill()


async def frozen(mongod: EmbeddedMongod) -> None:
    """It is there and says nothing: what a cut cable looks like."""
    assert mongod.pid is not None
    os.kill(mongod.pid, signal.SIGSTOP)


async def back(mongod: EmbeddedMongod) -> None:
    assert mongod.pid is not None
    if mongod.alive():
        os.kill(mongod.pid, signal.SIGCONT)
    else:
        await mongod.restart()


@pytest.fixture
async def mongod(tmp_path: Path) -> AsyncIterator[EmbeddedMongod]:
    """A database of this test's own, to be ill-treated."""
    one = EmbeddedMongod(tmp_path / "mongod", fast=True)
    await one.start()
    yield one
    if one.pid is not None and one.alive():
        os.kill(one.pid, signal.SIGCONT)
    await one.stop()


@pytest.fixture
async def server(mongod: EmbeddedMongod, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    one = ServerProcess(tmp_path / "server", mongo_uri=mongod.uri)
    await asyncio.to_thread(one.start)
    yield one
    await asyncio.to_thread(one.stop)


async def health(phone: PyPhone) -> tuple[int, str, str | None]:
    async with phone.http.get(f"{phone.address}/health") as answer:
        body = await answer.json()
        return answer.status, body["database"], answer.headers.get("Retry-After")


@pytest.mark.parametrize("go_away", [killed, frozen])
async def test_while_the_database_is_away_all_is_refused_with_a_time_and_afterwards_all_goes_on(
    server: ServerProcess, mongod: EmbeddedMongod, go_away: Away
) -> None:
    pair = await (await Pair(server.address).arrive()).bring_to("active")
    caller, callee = pair.both
    try:
        await go_away(mongod)

        async with asyncio.timeout(REFUSED_WITHIN):
            with pytest.raises(Refused) as no:
                await caller.ask("CALL_SYNC")
        assert no.value.code == "DATABASE_AWAY"
        assert no.value.retry_after_ms is not None
        assert no.value.retry_after_ms > 0
        async with asyncio.timeout(REFUSED_WITHIN):
            with pytest.raises(Refused, match="DATABASE_AWAY"):
                await callee.ask("CHAT_MESSAGE", to=caller.id, text="Hello?", opId="op-1")
        async with asyncio.timeout(REFUSED_WITHIN):
            headers = {"Authorization": f"Bearer {caller.token}"}
            async with caller.http.get(f"{server.address}/api/calls/history", headers=headers) as answer:
                assert answer.status == 503
                assert int(answer.headers["Retry-After"]) >= 1
                assert (await answer.json())["error"]["code"] == "DATABASE_AWAY"
        async with asyncio.timeout(REFUSED_WITHIN):
            assert await health(caller) == (503, "down", "2")
        async with caller.http.get(f"{server.address}/health/live") as answer:
            assert answer.status == 200, "a restart would not help, so nobody should restart it"

        await back(mongod)

        async def well() -> bool:
            return (await health(caller))[0] == 200

        await eventually(well, within=40)
        assert [phone.connects for phone in pair.both] == [1, 1], "the sockets have stayed"
        call = await caller.insist("CALL_SYNC")
        assert [(one["id"], one["state"]) for one in call["calls"]] == [(pair.call_id, "active")]
        message = await callee.insist("CHAT_MESSAGE", to=caller.id, text="Hello?", opId="op-1")
        assert [one["id"] for one in [await caller.told("CHAT_MESSAGE")]] == [message["id"]]
        ended = await callee.insist("CALL_ENDED", callId=pair.call_id)
        assert ended["endReason"] == "completed"
        await caller.told("CALL_ENDED", pair.call_id)
        for phone in pair.both:
            phone.assert_each_once()
    finally:
        await pair.leave()


async def test_a_hang_up_that_meets_no_database_is_repeated_and_told_once_it_is_back(
    server: ServerProcess, mongod: EmbeddedMongod
) -> None:
    pair = await (await Pair(server.address).arrive()).bring_to("active")
    try:
        await mongod.kill()
        hanging_up = asyncio.ensure_future(pair.callee.insist("CALL_ENDED", callId=pair.call_id))
        with pytest.raises(Refused, match="DATABASE_AWAY"):
            await pair.callee.ask("CALL_SYNC")
        await mongod.restart()
        assert (await hanging_up)["endReason"] == "completed"
        for phone in pair.both:
            await phone.told("CALL_ENDED", pair.call_id)
            phone.assert_each_once()
    finally:
        await pair.leave()


async def test_the_server_starts_its_own_database_again_when_it_dies(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "server")
    await asyncio.to_thread(server.start)
    try:
        pair = await (await Pair(server.address).arrive()).bring_to("active")
        try:
            mongod = number_in(server.data_dir / "db" / "mongod.lock")
            assert mongod is not None
            send_signal(mongod, KILL)
            ended = await pair.caller.insist("CALL_ENDED", callId=pair.call_id)
            assert ended["endReason"] == "completed"
            await pair.callee.told("CALL_ENDED", pair.call_id)
            assert [phone.connects for phone in pair.both] == [1, 1]
            assert number_in(server.data_dir / "db" / "mongod.lock") not in (None, mongod)
            assert "the embedded MongoDB has died" in server.log()
        finally:
            await pair.leave()
    finally:
        await asyncio.to_thread(server.stop)

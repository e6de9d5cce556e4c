"""``run --processes N``: one port, several processes, which come and go while people talk."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
import pytest_asyncio

from models.db import Database
from tests.doors.phones import Exchange, Phone
from tests.doors.pyphone import ANSWER, OFFER, PyPhone
from tests.doors.redis_server import RedisServer
from tests.doors.serverprocess import ServerProcess, eventually, lodging
from tests.doors.talk import candidate

pytestmark = [pytest.mark.timeout(110), pytest.mark.asyncio(loop_scope="module")]


def serving(server: ServerProcess) -> dict[int, int]:
    """The children that have come to serve, by number: their process ids."""
    lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    return {line["number"]: line["pid"] for line in lines if line["event"] == "a process serves"}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@asynccontextmanager
async def several(mongo_uri: str, folder: Path, count: int) -> AsyncIterator[ServerProcess]:
    """Some processes at one port, with Redis."""
    async with lodging(mongo_uri) as database:
        redis = await RedisServer(folder).start()
        one = ServerProcess(
            folder / "server",
            mongo_uri=mongo_uri,
            database=database,
            words=("--processes", str(count)),
            REDIS_URL=redis.url,
            JWT_SECRET="a secret of the tests, long enough for HS256",
        )
        try:
            await asyncio.to_thread(one.start)
            yield one
            if one.process is not None:
                children = [pid for pid in serving(one).values() if alive(pid)]
                assert await asyncio.to_thread(one.drain) == 0
                assert not any(alive(pid) for pid in children)
        finally:
            await asyncio.to_thread(one.stop)
            await redis.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """Three of them, for a module of tests each of which leaves three."""
    async with several(mongo_uri, tmp_path_factory.mktemp("several"), 3) as one:
        yield one


async def spread(stack: AsyncExitStack, server: ServerProcess, count: int) -> list[PyPhone]:
    """Phones that have connected, to whichever processes."""
    phones = [await stack.enter_async_context(PyPhone(server.address)) for _ in range(count)]
    for phone in phones:
        await phone.register()
        await phone.connect()
    return phones


async def test_a_rolling_restart_ends_no_call_and_loses_and_doubles_nothing(server: ServerProcess) -> None:
    async with AsyncExitStack() as stack:
        ann, bob, cid, dan = await spread(stack, server, 4)
        calls = []
        for caller, callee in ((ann, bob), (cid, dan)):
            call = await caller.ask("CALL_REQUEST", to=callee.id, type="audio", offer=OFFER)
            await callee.told("CALL_REQUEST", call["id"])
            await callee.ask("CALL_ACCEPT", callId=call["id"], answer=ANSWER)
            await caller.told("CALL_ACCEPT", call["id"])
            calls.append((caller, callee, call["id"]))
        before, said = serving(server), server.log().count("all processes are new")
        server.signal(signal.SIGHUP)
        await eventually(
            lambda: server.log().count("all processes are new") > said, within=60, what="all are replaced"
        )
        assert len(serving(server)) == len(before) + 3
        assert not any(alive(pid) for pid in before.values())
        for number, (caller, callee, call_id) in enumerate(calls):
            for phone in (caller, callee):
                await eventually(lambda phone=phone: phone.sio.connected, what="the phone is back")
            sent = f"hello {number}"
            await caller.insist("CHAT_MESSAGE", to=callee.id, text=sent, opId=sent)
            await eventually(
                lambda callee=callee, sent=sent: [m["text"] for m in callee.all("CHAT_MESSAGE")] == [sent]
            )
            for phone in (caller, callee):
                state = (await phone.insist("CALL_RESUME", callId=call_id))["state"]
                assert state in ("active", "reconnecting")
            assert (await caller.call_now(call_id))["state"] == "active"
            await caller.insist("ICE_CANDIDATE", callId=call_id, candidate=candidate(number))
            await callee.told("ICE_CANDIDATE", call_id)
            await caller.insist("CALL_ENDED", callId=call_id)
            await callee.told("CALL_ENDED", call_id)
        for phone in (ann, bob, cid, dan):
            phone.assert_each_once()


async def test_a_process_that_is_killed_is_followed_by_another_and_its_calls_go_on(
    server: ServerProcess,
) -> None:
    async with AsyncExitStack() as stack:
        phones = await spread(stack, server, 6)
        calls = []
        for caller, callee in zip(phones[::2], phones[1::2], strict=True):
            call = await caller.ask("CALL_REQUEST", to=callee.id, type="audio")
            await callee.told("CALL_REQUEST", call["id"])
            await callee.ask("CALL_ACCEPT", callId=call["id"])
            calls.append((caller, callee, call["id"]))
        before = serving(server)
        os.kill(next(pid for pid in before.values() if alive(pid)), signal.SIGKILL)
        await eventually(lambda: len(serving(server)) > len(before), what="another one serves")
        for caller, callee, call_id in calls:
            for phone in (caller, callee):
                await eventually(lambda phone=phone: phone.sio.connected, what="the phone is back")
                await phone.insist("CALL_RESUME", callId=call_id)
            assert (await caller.call_now(call_id))["state"] == "active"
            await caller.insist("CALL_ENDED", callId=call_id)
            await callee.told("CALL_ENDED", call_id)
        for phone in phones:
            phone.assert_each_once()


async def test_clients_that_poll_find_their_process(server: ServerProcess, exchange: Exchange) -> None:
    async with AsyncExitStack() as stack:
        (ann,) = await spread(stack, server, 1)
        phones: list[Phone] = []
        for number, transports in enumerate([None, None, None, ["polling"], ["polling"], ["polling"]]):
            phone = Phone(exchange, f"poll-{uuid4().hex}")
            options = {} if transports is None else {"transports": transports}
            if transports is None:
                options = {"transports": ["polling", "websocket"]}  # the client's own default
            auth = {"token": ann.token, "deviceId": f"p{number}"}
            await phone.open(server.address, auth=auth, **options)
            phones.append(phone)
        for phone in phones:
            await phone.happens("*connect")
            await phone.happens("SYNC")
            for _ in range(3):
                await phone.ask("CALL_SYNC", {})
        (bob,) = await spread(stack, server, 1)
        await bob.ask("CHAT_MESSAGE", to=ann.id, text="to all", opId="1")
        for phone in phones:
            await phone.happens("CHAT_MESSAGE")
            await phone.close()
            await phone.forget()


async def test_the_figures_of_all_processes_are_on_the_page_of_any(server: ServerProcess) -> None:
    async with aiohttp.ClientSession() as http:

        async def page() -> str:
            async with http.get(f"{server.address}/metrics", headers={"Connection": "close"}) as answer:
                return await answer.text()

        # A process that has just been replaced has a number of its own.
        await eventually(lambda: len([pid for pid in serving(server).values() if alive(pid)]) == 3)
        there = {str(number) for number, pid in serving(server).items() if alive(pid)}
        for _ in range(6):
            told = await page()
            assert set(re.findall(r'^ringmeter_info\{.*process="(\d+)"\} 1', told, re.MULTILINE)) == there
            assert told.count("# TYPE ringmeter_info ") == 1


async def test_the_children_of_a_killed_parent_go(mongo_uri: str, tmp_path: Path) -> None:
    async with several(mongo_uri, tmp_path, 2) as server:
        children = serving(server)
        assert len(children) == 2
        await asyncio.to_thread(server.kill)
        await eventually(
            lambda: not any(alive(pid) for pid in children.values()), what="the children are gone"
        )


async def _is_watched(worker: ServerProcess) -> None:
    """It says how it is and what waits, at a port where nothing else is."""
    found = re.search(r'"port":(\d+).*"working"|"working".*"port":(\d+)', worker.log().replace(" ", ""))
    assert found, worker.log()
    address = f"http://127.0.0.1:{found[1] or found[2]}"
    async with aiohttp.ClientSession() as http:
        for path, status in (("/health", 200), ("/health/live", 200), ("/api/calls", 404), ("/", 404)):
            async with http.get(address + path) as answer:
                assert answer.status == status

        async def backlog() -> bool:
            async with http.get(f"{address}/metrics") as answer:
                return 'ringmeter_backlog{queue="pushes"} 0.0' in await answer.text()

        await eventually(backlog)


async def test_a_worker_does_what_a_server_leaves_to_it(mongo_uri: str, tmp_path: Path) -> None:
    env = {"RING_SECONDS": "1", "JWT_SECRET": "a secret of the tests, long enough for HS256"}
    async with lodging(mongo_uri) as database:
        one = ServerProcess(tmp_path / "one", mongo_uri=mongo_uri, database=database, JOBS="own", **env)
        await asyncio.to_thread(one.start)
        worker = ServerProcess(tmp_path / "worker", mongo_uri=mongo_uri, database=database, **env)
        worker.begin("worker", "--port", "0")
        db = Database(mongo_uri, database)

        async def ended() -> bool:
            found = await db["calls"].find_one({"_id": call["id"]})
            return bool(found and found["state"] == "ended")

        try:
            async with AsyncExitStack() as stack:
                ann, bob = await spread(stack, one, 2)
                call = await ann.ask("CALL_REQUEST", to=bob.id, type="audio")
                await asyncio.to_thread(one.kill)
                await eventually(ended, what="the ring has run out, which only the worker can know")
            await _is_watched(worker)
            assert await asyncio.to_thread(worker.drain) == 0
        finally:
            for server in (one, worker):
                await asyncio.to_thread(server.stop)
            await db.close()

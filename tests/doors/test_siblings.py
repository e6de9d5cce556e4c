"""What passes requests on between the processes at one port (``server.siblings``), where a request names no transport
that there is."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web

from server.siblings import PATH, Siblings

UNKNOWN = {"code": 1, "message": "Session ID unknown"}


@pytest.fixture
def folder() -> Iterator[Path]:
    # Short: the path of a socket has room for a hundred letters.
    with TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def siblings(folder: Path) -> Siblings:
    return Siblings(folder, 1)


@pytest.fixture
async def address(siblings: Siblings) -> AsyncIterator[str]:
    """Process 1, which says of everything that is its own so."""

    async def own(_: web.Request) -> web.Response:
        return web.Response(text="own")

    app = web.Application()
    siblings.join(app, SimpleNamespace(generate_id=lambda: "x"))
    app.router.add_get(PATH, own)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}{PATH}"
    await runner.cleanup()


async def refusing(folder: Path) -> web.AppRunner:
    """Process 2, which refuses as Engine.IO does."""

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=400, text='"Invalid session"')

    app = web.Application()
    app.router.add_get(PATH, refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "2.sock")).start()
    return runner


async def test_invented_numbers_leave_nothing_behind(siblings: Siblings, address: str) -> None:
    async with aiohttp.ClientSession() as client:
        for number in ("1000", "1001", "999999999", "0", "²", "٣"):
            async with client.get(address, params={"sid": f"a.{number}"}) as answer:
                assert (answer.status, await answer.text()) == (200, "own"), number
    assert siblings._sessions == {}


async def test_of_a_process_that_has_died_nothing_is_kept(
    siblings: Siblings, address: str, folder: Path
) -> None:
    runner = await refusing(folder)
    async with aiohttp.ClientSession() as client:
        async with client.get(address, params={"sid": "a.2"}) as answer:
            assert (answer.status, await answer.text()) == (400, '"Invalid session"')
        assert set(siblings._sessions) == {2}
        await runner.cleanup()
        (folder / "2.sock").touch()  # as one that was killed leaves it
        async with client.get(address, params={"sid": "a.2"}) as answer:
            assert (answer.status, await answer.json()) == (400, UNKNOWN)
    assert siblings._sessions == {}


async def test_a_refused_upgrade_is_a_refusal_and_no_fault(address: str, folder: Path) -> None:
    runner = await refusing(folder)
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with (
        aiohttp.ClientSession() as client,
        client.get(
            address, params={"EIO": "4", "transport": "websocket", "sid": "a.2"}, headers=upgrade
        ) as answer,
    ):
        assert (answer.status, await answer.json()) == (400, UNKNOWN)
    await runner.cleanup()


async def test_a_process_that_stands_still_is_a_refusal_and_no_fault(
    address: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.siblings.POLL_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind(str(folder / "2.sock"))
        frozen.listen()
        async with aiohttp.ClientSession() as client, client.get(address, params={"sid": "a.2"}) as answer:
            assert (answer.status, await answer.json()) == (400, UNKNOWN)

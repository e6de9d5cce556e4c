"""A WebSocket as the engine serves it: RFC 6455 and Engine.IO 4, by a client that writes its frames by hand."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from aiohttp import ClientSession, WSMsgType, web

import server.engine
import server.protocol
from server.clock import Tasks
from server.engine import BACKLOG_MAX, WiredSocket
from server.packets import GuardedPacket, Json
from server.protocol import SignalingServer
from server.websockets import PlainWebSocket, untried, use_websockets

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


@dataclass
class Served:
    """A server with nothing behind it, and what it was told."""

    sio: SignalingServer
    url: str
    port: int
    tasks: Tasks
    events: list[Any] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    shortcuts: list[bytes] = field(default_factory=list)
    takes_shortcuts: bool = False


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Served]:
    tasks = Tasks()
    sio = SignalingServer(
        async_mode="aiohttp",
        serializer=GuardedPacket,
        json=Json,
        cors_allowed_origins=[],
        http_compression=False,
        max_http_buffer_size=100_000,
        **options,
    )
    home = Served(sio, "", 0, tasks)

    def take(sid: str, eio_sid: str, namespace: str, ack_id: int | None, data: Any) -> None:
        home.events.append(data)
        if ack_id is not None:
            sio.acknowledge(eio_sid, namespace, ack_id, {"ok": True})

    def shortcut(wire: server.engine.Wire, data: bytes) -> bool:
        home.shortcuts.append(data)
        return home.takes_shortcuts

    async def connected(sid: str, environ: Any, auth: Any = None) -> bool:
        return True

    async def disconnected(sid: str, reason: str) -> None:
        home.gone.append(reason)

    sio.take, sio.tasks = take, tasks
    sio.on("connect", connected)
    sio.on("disconnect", disconnected)
    sio.eio.use_wires(tasks, shortcut)
    app = web.Application()
    sio.attach(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    home.port = runner.addresses[0][1]
    home.url = f"http://127.0.0.1:{home.port}/socket.io/?EIO=4"
    try:
        yield home
    finally:
        await sio.shutdown()
        sio.eio.pings.abort()
        await runner.cleanup()
        await tasks.drain(2)


def masked(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    """One frame of a client (RFC 6455 §5.2)."""
    mask = os.urandom(4)
    size = len(data)
    if size < 126:
        head = struct.pack("!BB", fin << 7 | opcode, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", fin << 7 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", fin << 7 | opcode, 0x80 | 127, size)
    return head + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))


class Hand:
    """A client that says exactly what a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, *frames: bytes) -> None:
        self._writer.write(b"".join(frames))
        await self._writer.drain()

    async def say(self, *texts: str) -> None:
        await self.send(*(masked(TEXT, text.encode()) for text in texts))

    async def frame(self) -> tuple[int, bytes]:
        """The next frame of the server."""
        first, second = await self._reader.readexactly(2)
        assert first & 0x80, "the server sends no fragments"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await self._reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self._reader.readexactly(8))
        return first & 0x0F, await self._reader.readexactly(size)

    async def text(self) -> str:
        """The next text, whatever else comes before it."""
        while True:
            opcode, data = await self.frame()
            assert opcode != CLOSE, data
            if opcode == TEXT:
                return data.decode()

    async def closed(self) -> int:
        """The code with which the server closes; 0 where it just goes."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                opcode, data = await self.frame()
                if opcode == CLOSE:
                    return int(struct.unpack("!H", data[:2])[0])
        return 0

    async def ended(self) -> bool:
        """Whether the connection ends."""
        with suppress(ConnectionError):
            while await self._reader.read(4096):
                pass
        return True

    def pause(self) -> None:
        """Read nothing, not even into a buffer."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def leave(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def dialled(home: Served, *, sid: str = "", connects: bool = True) -> AsyncIterator[Hand]:
    """A WebSocket whose handshake is done, and the Socket.IO connect with it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", home.port)
    path = "/socket.io/?EIO=4&transport=websocket" + (f"&sid={sid}" if sid else "")
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    hand = Hand(reader, writer)
    if connects:
        assert (await hand.text()).startswith("0{")
        await hand.say("40")
        assert (await hand.text()).startswith("40{")
    try:
        async with asyncio.timeout(20):
            yield hand
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def test_a_request_that_has_become_a_websocket_leaves_nothing_of_http_behind() -> None:
    async with served() as home, dialled(home):
        (socket,) = home.sio.eio.sockets.values()
        assert isinstance(socket, WiredSocket)
        left = [task for task in asyncio.all_tasks() if "RequestHandler" in repr(task.get_coro())]
        assert left == []


async def test_what_opens_a_transport_cannot_be_guessed() -> None:
    async with served() as home:
        made = {home.sio.eio.generate_id() for _ in range(1000)}
        assert len(made) == 1000
        assert {len(sid) for sid in made} == {32}, "24 bytes of chance in base64"
        async with dialled(home):
            (sid,) = home.sio.eio.sockets
            assert re.fullmatch(r"[A-Za-z0-9_-]{32}", sid)


async def test_frames_in_pieces_of_any_size_are_what_they_are_in_one() -> None:
    async with served() as home, dialled(home) as hand:
        frame = masked(TEXT, b'421["SAY",{"n":1}]')
        for byte in frame:
            await hand.send(bytes((byte,)))
        assert await hand.text() == '431[{"ok":true}]'
        parts = [b'422["SAY",', b'{"n":', b"2}]"]
        await hand.send(
            masked(TEXT, parts[0], fin=False), masked(0, parts[1], fin=False), masked(PING, b"between")
        )
        assert await hand.frame() == (PONG, b"between")
        await hand.send(masked(0, parts[2]))
        assert await hand.text() == '432[{"ok":true}]'
        assert home.events == [["SAY", {"n": 1}], ["SAY", {"n": 2}]]


async def test_what_came_with_the_handshake_is_heard() -> None:
    async with served() as home:
        reader, writer = await asyncio.open_connection("127.0.0.1", home.port)
        writer.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n" + masked(TEXT, b"40") + masked(TEXT, b'427["SAY"]')
        )
        await reader.readuntil(b"\r\n\r\n")
        hand = Hand(reader, writer)
        said = [await hand.text() for _ in range(3)]
        assert [text[:2] for text in said] == ["0{", "40", "43"]
        hand.leave()


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([masked(CLOSE, struct.pack("!H", 1000))], 1000),
        ([masked(CLOSE, b"")], 1000),
        ([masked(CLOSE, struct.pack("!H", 1005))], 1002),
        ([masked(TEXT, b'42["\xff"]')], 1002),
        ([masked(3, b"x")], 1002),
        ([masked(0, b"x")], 1002),
        ([masked(PING, b"x" * 126)], 1002),
        ([masked(TEXT, b"4" * 100_001)], 1009),
        ([b"\xc1\x80\x00\x00\x00\x00"], 1002),
        ([masked(TEXT, b"x")], 1002),
        ([masked(TEXT, b"bnot base64!")], 1002),
    ],
    ids=[
        "bye", "bye without a word", "a code of nobody's", "no UTF-8", "an opcode of nobody's", "a middle without a"
        " beginning", "a ping too long", "too large", "compressed unasked", "no packet", "no base64",
    ],
)  # fmt: skip
async def test_what_is_against_the_protocol_is_answered_by_the_code_for_it(
    frames: list[bytes], code: int
) -> None:
    async with served() as home:
        async with dialled(home) as hand:
            await hand.send(*frames)
            assert await hand.closed() == code
            await hand.send(masked(CLOSE, struct.pack("!H", code)))
            assert await hand.ended()
        await home.tasks.drain(1)
        assert len(home.gone) == 1
        assert not home.sio.eio.sockets


async def test_after_our_goodbye_nothing_is_heard_and_who_does_not_answer_it_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server.engine, "CLOSE_SECONDS", 0.05)
    async with served() as home, dialled(home) as hand:
        (sid,) = home.sio.eio.sockets
        home.sio.show_out(sid, "of the test")
        await hand.say('421["SAY"]')
        assert await hand.closed() == 1000
        assert await hand.ended()
        assert home.events == []


async def test_events_keep_their_order_with_what_the_library_has_to_see_in_between() -> None:
    async with served() as home, dialled(home) as hand:
        frames = [masked(TEXT, f'42["SAY",{n}]'.encode()) for n in range(3)]
        with_attachment = [
            masked(TEXT, b'451-5["SAY",{"_placeholder":true,"num":0}]'),
            masked(BINARY, b"\x00\x01"),
        ]
        await hand.send(*frames[:2], *with_attachment, frames[2], masked(TEXT, b'429["SAY",9]'))
        assert await hand.text() == '435[{"ok":true}]'
        assert await hand.text() == '439[{"ok":true}]'
        assert [event[1] if isinstance(event, list) else "bad" for event in home.events] == [
            0,
            1,
            "bad",
            2,
            9,
        ]


async def test_a_shortcut_is_tried_first_and_never_past_a_frame_that_waits() -> None:
    async with served() as home, dialled(home) as hand:
        home.takes_shortcuts = True
        await hand.say('42["FAST",1]')
        await hand.say("3", '421["FAST",2]', "40/none,", '42["AFTER",3]', '424["AFTER",4]')
        assert (await hand.text()).startswith("44/none,")
        assert await hand.text() == '434[{"ok":true}]'
        assert [bytes(data[:9]) for data in home.shortcuts] == [b'42["FAST"', b'421["FAST']
        assert home.events == [["AFTER", 3], ["AFTER", 4]]


async def test_a_client_that_sends_faster_than_it_is_served_is_read_no_further() -> None:
    async with served() as home, dialled(home) as hand:
        (socket,) = home.sio.eio.sockets.values()
        paused, go = asyncio.Event(), asyncio.Event()
        receive = type(socket).receive

        async def slowly(self: Any, pkt: Any) -> None:
            await go.wait()
            await receive(self, pkt)

        transport = socket.wire.transport

        class Watched:
            def __getattr__(self, name: str) -> Any:
                if name == "pause_reading":
                    paused.set()
                return getattr(transport, name)

        socket.wire.transport = Watched()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(socket), "receive", slowly)
            await hand.say(*(f'42["SAY",{n}]' for n in range(2 * BACKLOG_MAX)))
            await paused.wait()
            go.set()
            await hand.say('421["SAY","last"]')
            assert await hand.text() == '431[{"ok":true}]'
        assert [event[1] for event in home.events] == [*range(2 * BACKLOG_MAX), "last"]


async def test_an_upgrade_from_polling_loses_nothing_and_keeps_the_order() -> None:
    async with served() as home, ClientSession() as http:

        async def poll() -> str:
            async with http.get(f"{home.url}&transport=polling&sid={sid}") as answer:
                return await answer.text()

        async with http.get(f"{home.url}&transport=polling") as answer:
            sid = Json.loads((await answer.text())[1:])["sid"]
        async with http.post(f"{home.url}&transport=polling&sid={sid}", data="40") as answer:
            assert await answer.text() == "OK"
        assert (await poll()).startswith("40{")
        waiting = asyncio.create_task(poll())
        async with dialled(home, sid=sid, connects=False) as hand:
            await hand.say("2probe")
            assert await hand.text() == "3probe"
            assert await waiting == "6"
            for n in range(3):
                home.sio.tell(sid, "NEWS", n)
            await hand.say("5")
            assert [await hand.text() for _ in range(3)] == [f'42["NEWS",{n}]' for n in range(3)]
            await hand.say('421["SAY",1]')
            assert await hand.text() == '431[{"ok":true}]'
            assert isinstance(home.sio.eio.sockets[sid], WiredSocket)


async def test_an_upgrade_that_goes_no_further_is_closed_and_one_of_a_session_that_has_gone_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server.engine, "UPGRADE_SECONDS", 0.05)
    async with served() as home, ClientSession() as http:
        async with http.get(f"{home.url}&transport=polling") as answer:
            sid = Json.loads((await answer.text())[1:])["sid"]
        async with dialled(home, sid=sid, connects=False) as hand:
            assert await hand.closed() == 1008
        monkeypatch.setattr(server.engine, "UPGRADE_SECONDS", 20)
        async with dialled(home, sid=sid, connects=False) as hand:
            await hand.say("2probe")
            assert await hand.text() == "3probe"
            await home.sio.eio.disconnect(sid)
            await hand.say("5")
            assert await hand.closed() == 1008
    assert not home.sio.eio.pings._turns


async def test_of_two_upgrades_of_a_session_the_first_to_finish_has_it() -> None:
    async with served() as home, ClientSession() as http:
        async with http.get(f"{home.url}&transport=polling") as answer:
            sid = Json.loads((await answer.text())[1:])["sid"]
        async with (
            dialled(home, sid=sid, connects=False) as first,
            dialled(home, sid=sid, connects=False) as second,
        ):
            for hand in (first, second):
                await hand.say("2probe")
                assert await hand.text() == "3probe"
            await first.say("5", "40")
            assert (await first.text()).startswith("40{")
            await second.say("5")
            assert await second.closed() == 1008
            await first.say('421["SAY",1]')
            assert await first.text() == '431[{"ok":true}]'


async def test_an_upgrade_that_fails_leaves_the_polling_as_it_was() -> None:
    async with served() as home, ClientSession() as http:
        async with http.get(f"{home.url}&transport=polling") as answer:
            sid = Json.loads((await answer.text())[1:])["sid"]
        async with dialled(home, sid=sid, connects=False) as hand:
            await hand.say("no probe")
            assert await hand.closed() == 1008
        async with http.post(f"{home.url}&transport=polling&sid={sid}", data="40") as answer:
            assert await answer.text() == "OK"
        async with http.get(f"{home.url}&transport=polling&sid={sid}") as answer:
            assert (await answer.text()).startswith("40{")


async def test_a_client_that_does_not_read_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.engine, "WAITING_BYTES_MAX", 300_000)
    async with served() as home, dialled(home) as hand:
        hand.pause()
        (sid,) = home.sio.eio.sockets
        for _ in range(1_000):
            home.sio.tell(sid, "NEWS", "x" * 50_000)
            await asyncio.sleep(0)
            if sid not in home.sio.eio.sockets:
                break
        else:
            pytest.fail("it would go on for ever")
        hand._writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert await hand.closed() == 1013
    assert home.gone == [home.sio.reason.TRANSPORT_CLOSE]


async def test_who_does_not_read_gets_no_pongs() -> None:
    async with served() as home, dialled(home) as hand:
        (socket,) = home.sio.eio.sockets.values()
        hand.pause()
        # More than the kernel takes for who does not read (tcp(7), tcp_wmem: 4 MB), and less than makes one be cut off.
        home.sio.tell(socket.sid, "NEWS", "x" * 12_000_000)
        assert socket.wire._paused
        waiting = socket.wire.waiting()
        for _ in range(100):
            socket.wire.frame(WSMsgType.PING, b"x" * 125)
        assert socket.wire.waiting() == waiting


async def test_a_read_of_very_many_frames_gives_others_their_turn_and_keeps_the_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server.engine, "AT_ONCE_MAX", 5)
    async with served() as home, dialled(home):
        (socket,) = home.sio.eio.sockets.values()
        home.takes_shortcuts = True
        socket.wire.data_received(b"".join(masked(TEXT, f'42["SAY",{n}]'.encode()) for n in range(20)))
        assert len(home.shortcuts) == 5
        await home.tasks.drain(5)
        assert [event[1] for event in home.events] == list(range(5, 20))


async def test_who_polls_and_does_not_come_for_what_waits_is_sent_away() -> None:
    async with served() as home, ClientSession() as http:
        async with http.get(f"{home.url}&transport=polling") as answer:
            sid = Json.loads((await answer.text())[1:])["sid"]
        async with http.post(f"{home.url}&transport=polling&sid={sid}", data="40") as answer:
            assert await answer.text() == "OK"
        for n in range(server.protocol.WAITING_MAX + 10):
            home.sio.tell(sid, "NEWS", n)
        await home.tasks.drain(1)
        assert sid not in home.sio.eio.sockets or home.sio.eio.sockets[sid].closed
        assert home.gone == [home.sio.reason.SERVER_DISCONNECT]


async def test_who_answers_pings_stays_and_who_does_not_goes() -> None:
    async with served() as home, dialled(home) as well, dialled(home):
        pings, now = home.sio.eio.pings, asyncio.get_running_loop().time()
        every, timeout = home.sio.eio.ping_interval, home.sio.eio.ping_timeout
        for turn in range(1, 5):
            pings.sweep(now + turn * (every + 0.1))
            opcode, data = await well.frame()
            assert (opcode, data) == (TEXT, b"2")
            await well.say("3", '421["SAY"]')
            assert await well.text() == '431[{"ok":true}]'
            if turn * every < timeout + every:
                assert home.gone == []
        await home.tasks.drain(1)
        assert home.gone == [home.sio.reason.PING_TIMEOUT]
        assert len(home.sio.eio.sockets) == 1


async def test_with_versions_that_were_not_tried_the_library_serves_and_says_so() -> None:
    assert untried() == []
    assert untried({"aiohttp": "3.15.0", "python-engineio": "4.15.1"}) == ["aiohttp 3.15.0"]
    with structlog.testing.capture_logs() as lines, pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            server.protocol,
            "use_websockets",
            lambda eio, make: use_websockets(
                eio, make, versions={"aiohttp": "4.0.0", "python-engineio": "4.15.1"}
            ),
        )
        async with served() as home, dialled(home) as hand:
            (socket,) = home.sio.eio.sockets.values()
            assert not isinstance(socket, WiredSocket)
            assert home.sio.eio._async["websocket"] is PlainWebSocket
            await hand.say('421["SAY",1]')
            assert await hand.text() == '431[{"ok":true}]'
            assert home.events == [["SAY", 1]]
            hand.pause()  # and who does not read is cut off there, too
            transport = home.sio.environ[socket.sid]["aiohttp.request"].transport
            for sent in range(5_000):
                home.sio.tell(socket.sid, "NEWS", "x" * 50_000)
                if sent % 50 == 0:
                    await asyncio.sleep(0)
                if transport.is_closing():
                    break
            assert transport.is_closing()
            await home.tasks.drain(2)
            assert home.gone
    assert [line["found"] for line in lines if line["log_level"] == "warning"] == [["aiohttp 4.0.0"]]

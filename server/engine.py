"""The fast path below python-socketio for WebSockets: from the loop's data callback to the peer's transport.

The library serves a WebSocket with a reader task, a task and a time-out for each frame, a queue and a writer task for
each connection. Here a connection that has become a WebSocket leaves aiohttp's request handling: its transport gets a
``Wire``, which parses with aiohttp's own reader, answers what needs no waiting in the callback itself and hands the
rest to the library in the order of arrival. Polling, binary packets, connects and disconnects stay the library's.

This leans on private parts of aiohttp and python-engineio. ``server.websockets`` knows the versions that it was tried
with; with others the library's own path is used.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import WSCloseCode, WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp.http_websocket import WebSocketError
from engineio import exceptions, packet
from engineio.async_socket import AsyncSocket

log = structlog.get_logger(__name__)

# What may wait in memory for a client that does not read; more than the longest page of a replay. It is then told to
# come back (RFC 6455 §7.4.1 and its registry: 1013, try again later), and catches up by the log.
WAITING_BYTES_MAX = 16 * 1024 * 1024
SLOW_READER = WSCloseCode.TRY_AGAIN_LATER
# After our close frame, for the client's.
CLOSE_SECONDS = 2.0
# From the handshake of an upgrade to its end.
UPGRADE_SECONDS = 10.0
# Frames dealt with at once in one callback; what more has come with them waits, so that others get their turn.
AT_ONCE_MAX = 200
# Frames that wait for the library; beyond this nothing is read from the client.
BACKLOG_MAX = 256

_TEXT, _BINARY = WSMsgType.TEXT, WSMsgType.BINARY
_EVENT = b"42"

# The beginnings of small text frames (RFC 6455 §5.2), by the length of what they carry.
_SMALL = 2048
_HEADS = [
    b"\x81" + (size.to_bytes(1, "big") if size < 126 else b"\x7e" + size.to_bytes(2, "big"))
    for size in range(_SMALL)
]

# A frame (bytes of the packet from its type on) that was dealt with at once, or not.
Shortcut = Callable[["Wire", bytes], bool]


class Wire(asyncio.Protocol):
    """One client's WebSocket.

    ``connection`` is whatever the owner of ``shortcut`` keeps for it. ``pinged_at`` is there from a ping to its pong,
    in seconds of the loop. ``_at_once`` is true while nothing has to go before the next frame.
    """

    __slots__ = (
        "_at_once",
        "_backlog",
        "_closing",
        "_drained",
        "_end",
        "_left",
        "_paused",
        "_probing",
        "_reader",
        "_shortcut",
        "_sink",
        "_spawn",
        "connection",
        "pinged_at",
        "socket",
        "transport",
    )

    def __init__(
        self,
        socket: AsyncSocket,
        transport: asyncio.Transport,
        *,
        shortcut: Shortcut,
        spawn: Callable[..., asyncio.Task[Any]],
        upgrades: bool,
    ) -> None:
        self.socket = socket
        self.transport = transport
        self.connection: Any = None
        self.pinged_at: float | None = None
        self._shortcut = shortcut
        self._spawn = spawn
        # An upgrade from polling (Engine.IO protocol 4): "2probe" is awaited, then "5".
        self._probing = b"2probe" if upgrades else None
        self._backlog: deque[tuple[WSMsgType, bytes]] | None = None
        self._at_once = False
        self._paused = False
        self._closing = False
        self._drained: asyncio.Future[None] | None = None
        self._end: asyncio.TimerHandle | None = None
        self._left = AT_ONCE_MAX
        if upgrades:
            self._end = asyncio.get_running_loop().call_later(UPGRADE_SECONDS, self._give_up)
        self._sink: _Sink | None = _Sink(self, 1, loop=asyncio.get_running_loop())
        self._reader: WebSocketReader | None = WebSocketReader(
            self._sink, socket.server.max_http_buffer_size, False, False
        )

    # ----------------------------------------------------------------------------------------- asyncio's callbacks

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._reader is None:
            return
        self._left = AT_ONCE_MAX
        broken, _ = self._reader.feed_data(data)
        if broken and self._closing:
            self.transport.close()  # whatever it says to our goodbye is no longer to be understood
        elif broken and self._sink is not None:
            fault = self._sink.exception()
            self.close(fault.code if isinstance(fault, WebSocketError) else WSCloseCode.PROTOCOL_ERROR)

    def pause_writing(self) -> None:
        """The client takes less than we send."""
        self._paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """The transport has gone; the library learns it as it always does."""
        self._closing, self._at_once = True, False
        self._reader = self._sink = None
        if self._end is not None:
            self._end.cancel()
        self.resume_writing()
        if self._probing is not None:
            if not self.socket.upgraded:
                self.socket.upgrading = False  # a probe that failed leaves the polling session as it was
        else:
            reason = self.socket.server.reason.TRANSPORT_CLOSE
            self._spawn(self.socket.close(wait=False, abort=True, reason=reason), "transport lost")

    # -------------------------------------------------------------------------------------------------------- out

    def text(self, data: bytes) -> None:
        """Send one text frame, whose bytes go to the transport now."""
        if self._closing:
            return
        transport = self.transport
        size = len(data)
        if size < _SMALL:
            transport.write(_HEADS[size] + data)
        elif size < 65536:
            transport.write(b"\x81\x7e" + size.to_bytes(2, "big") + data)
        else:
            transport.write(b"\x81\x7f" + size.to_bytes(8, "big") + data)
        if self._paused and transport.get_write_buffer_size() > WAITING_BYTES_MAX:
            log.info("slow reader cut off", waiting=transport.get_write_buffer_size())
            self.close(SLOW_READER, b"SLOW_READER")

    def packet(self, pkt: packet.Packet) -> None:
        """Send one Engine.IO packet."""
        encoded = pkt.encode()
        if isinstance(encoded, str):
            self.text(encoded.encode())
        else:
            self._control(0x2, encoded)

    def close(self, code: int = WSCloseCode.OK, why: bytes = b"") -> None:
        """Begin the closing handshake (RFC 6455 §7); the transport goes with its end, or soon without one."""
        if self._closing:
            return
        self._control(0x8, code.to_bytes(2, "big") + why)
        self._closing, self._at_once = True, False
        if self._end is not None:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self.abort)
        if code == SLOW_READER:
            # Its end may never be read: what it is owed is the log's business from here on.
            reason = self.socket.server.reason.TRANSPORT_CLOSE
            self._spawn(self.socket.close(wait=False, abort=True, reason=reason), "slow reader")

    def abort(self) -> None:
        """Let the transport go at once, unless it has gone."""
        if self._reader is not None:
            self.transport.abort()

    async def drained(self) -> None:
        """Wait until the client has taken (nearly) all that was sent; for ever if it never does."""
        while self._paused:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    def waiting(self) -> int:
        """Bytes that the client has not taken."""
        return int(self.transport.get_write_buffer_size())

    def _control(self, opcode: int, data: bytes) -> None:
        if not self._closing:
            size = len(data)
            head = size.to_bytes(1, "big") if size < 126 else b"\x7e" + size.to_bytes(2, "big")
            self.transport.write(bytes((0x80 | opcode,)) + head + data)

    # --------------------------------------------------------------------------------------------------------- in

    def frame(self, kind: WSMsgType, data: Any) -> None:
        """One frame of the client, whole."""
        if self._at_once and kind is _TEXT and self._left:
            self._left -= 1
            if data[:2] == _EVENT and self._shortcut(self, data):
                return
            if data[:1] == b"3":
                self.pinged_at = None
                return
        self._slowly(kind, data)

    def _slowly(self, kind: WSMsgType, data: Any) -> None:
        if self._closing:
            if kind is WSMsgType.CLOSE:
                self.transport.close()
        elif kind is WSMsgType.CLOSE:
            self.close(data or WSCloseCode.OK)
            self.transport.close()
        elif kind is WSMsgType.PING:
            if (
                not self._paused
            ):  # who does not read gets no pongs either (RFC 6455 §5.5.3: the latest is enough)
                self._control(0xA, data)
        elif kind is _TEXT or kind is _BINARY:
            if self._probing is not None:
                self._upgrade(data)
                return
            if self._backlog is None:
                self._backlog, self._at_once = deque(), False
                self._spawn(self._work(self._backlog), "frames")
            self._backlog.append((kind, data))
            if len(self._backlog) == BACKLOG_MAX:
                self.transport.pause_reading()

    def _upgrade(self, data: bytes) -> None:
        """One step of the upgrade from polling."""
        socket = self.socket
        if data != self._probing or socket.closed or socket.closing or socket.upgraded:
            self.close(WSCloseCode.POLICY_VIOLATION)
        elif data == b"2probe":
            self.socket.upgrading = True
            self.text(b"3probe")
            self.socket.queue.put_nowait(packet.Packet(packet.NOOP))  # ends the poll that is under way
            self._probing = b"5"
        else:
            self._probing = None
            self.open()

    def _give_up(self) -> None:
        """The upgrade has not come to its end."""
        self.close(WSCloseCode.POLICY_VIOLATION)

    def open(self) -> None:
        """From here on the socket is this wire: what has been waiting for it goes first."""
        socket = self.socket
        if self._end is not None:
            self._end.cancel()
            self._end = None
        polled, waiting = socket.connected, socket.queue
        socket.connected = socket.upgraded = True
        socket.upgrading = False
        socket.__class__, socket.wire = WiredSocket, self
        while not waiting.empty():
            pkt = waiting.get_nowait()
            waiting.task_done()  # or whoever waits for it to be taken would wait for ever
            if pkt is not None and pkt.packet_type != packet.NOOP:
                self.packet(pkt)
        if polled:
            waiting.put_nowait(packet.Packet(packet.NOOP))  # ends the poll that is under way, if one still is
        else:
            socket.queue = None
        self._at_once = True
        socket.server.pings.add(self)

    async def _work(self, backlog: deque[tuple[WSMsgType, bytes]]) -> None:
        """Give to the library what waits for it, one after the other."""
        done = 0
        try:
            while backlog:
                done += 1
                if done % AT_ONCE_MAX == 0:
                    await asyncio.sleep(0)
                kind, data = backlog.popleft()
                try:
                    encoded = data.decode() if kind is _TEXT else data
                    await self.socket.receive(packet.Packet(encoded_packet=encoded))
                except exceptions.UnknownPacketError:
                    continue
                except (ValueError, KeyError, IndexError) as error:  # not text, or no packet at all
                    log.debug("not a packet", error=repr(error))
                    self.close(WSCloseCode.PROTOCOL_ERROR)
                    return
        finally:
            self._backlog = None
            if not self._closing:
                self._at_once = True
                self.transport.resume_reading()


class _Sink(WebSocketDataQueue):  # type: ignore[misc]
    """Where aiohttp's reader puts what it has parsed."""

    def __init__(self, wire: Wire, limit: int, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(wire, limit, loop=loop)  # type: ignore[arg-type]
        self._frame = wire.frame

    def feed_data(self, message: Any, size: int) -> None:
        """One message, or control frame."""
        self._frame(message[0], message[1])


class WiredSocket(AsyncSocket):  # type: ignore[misc]
    """The library's session of a client whose WebSocket is a ``Wire``."""

    wire: Wire
    closing: bool
    closed: bool

    async def send(self, pkt: packet.Packet) -> None:
        """Send a packet."""
        self.wire.packet(pkt)

    def schedule_ping(self) -> None:
        """The sweep of all wires pings."""
        self.wire.pinged_at = None

    async def check_ping_timeout(self) -> bool:
        """Whether it is still there; the sweep finds out."""
        return not self.closed

    async def close(self, wait: bool = True, abort: bool = False, reason: str | None = None) -> None:
        """End the session, and the connection with it."""
        if self.closed or self.closing:
            return
        self.closing = True
        server = self.server
        try:
            await server._trigger_event(
                "disconnect", self.sid, reason or server.reason.SERVER_DISCONNECT, run_async=False
            )
        finally:
            self.closed = True
            server.sockets.pop(self.sid, None)
            if not abort:
                self.wire.packet(packet.Packet(packet.CLOSE))
            self.wire.close()


class Pings:
    """Who is pinged when: all at the same distance, so a queue in the order of their turns and no timer each."""

    def __init__(self, every: float, timeout: float, spawn: Callable[..., asyncio.Task[Any]]) -> None:
        self._every, self._timeout, self._spawn = every, timeout, spawn
        self._turns: deque[tuple[float, Wire]] = deque()

    def add(self, wire: Wire) -> None:
        """Ping it from now on."""
        self._turns.append((asyncio.get_running_loop().time() + self._every, wire))

    def sweep(self, now: float) -> None:
        """Ping those whose turn it is, and end those that have not answered in time. ``now``: seconds of the loop."""
        turns = self._turns
        while turns and turns[0][0] <= now:
            _, wire = turns.popleft()
            if wire.socket.closed:
                continue
            if wire.pinged_at is None:
                wire.pinged_at = now
                wire.text(b"2")
            elif now - wire.pinged_at >= self._timeout:
                reason = wire.socket.server.reason.PING_TIMEOUT
                self._spawn(wire.socket.close(wait=False, reason=reason), "ping timeout")
                continue
            turns.append((now + self._every, wire))

    def abort(self) -> None:
        """Let all connections go at once."""
        for _, wire in self._turns:
            wire.abort()
        self._turns.clear()

"""A phone of the generator: one Socket.IO connection, cheap enough not to be what is measured."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from tests.bench.frames import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    client_frame,
    connect_packet,
    event_packet,
    read_packet,
    server_frames,
)
from tests.bench.people import Person

now = time.perf_counter
CONNECT_SECONDS = 20.0
# Phones that connect at the same time.
CONNECTING_MAX = 20

OnEvent = Callable[["Phone", str, dict[str, Any], float], None]
OnAck = Callable[[dict[str, Any], float], None]
OnRelayed = Callable[["Phone", bytes, float], None]


def _nothing(phone: Phone, name: str, payload: dict[str, Any], at: float) -> None:
    """No one listens."""


class Phone(asyncio.Protocol):
    """``on_event(phone, name, payload, at)`` hears every event, ``at`` being ``perf_counter`` when its bytes came.

    ``on_connect(phone, at)`` is called when it begins to sign on; ``since`` is what it says then of its log.
    ``on_relayed``, where set, takes the raw text of each ICE candidate instead, so that none is parsed.
    """

    RELAYED = b'42["ICE_CANDIDATE"'

    def __init__(self, person: Person, *, since: int | None = None) -> None:
        self.person = person
        self.since = since
        self.user_id = person.user_id
        self.device_id = f"phone-{person.username}"
        self.on_event: OnEvent = _nothing
        self.on_relayed: OnRelayed | None = None
        self.on_connect: Callable[[Phone, float], None] = lambda phone, at: None
        self.closed = ""
        self._acks: dict[int, OnAck] = {}
        self._ack_id = 0
        self._buffer = bytearray()
        self._upgraded = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def connect(self, url: str) -> None:
        """Open the connection and sign on; back once ``SYNC`` has come."""
        parts = urlsplit(url)
        self._host = parts.netloc
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: self, parts.hostname or "", parts.port or 80)
        self.write = transport.write
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        self.write(
            (
                "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
                f"Host: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
            ).encode()
        )
        await asyncio.wait_for(self.ready, CONNECT_SECONDS)

    def emit(self, event: str, payload: Any, on_ack: OnAck | None = None) -> None:
        """Send an event; ``on_ack(ack, at)`` hears its ack."""
        ack_id = None
        if on_ack is not None:
            self._ack_id += 1
            ack_id = self._ack_id
            self._acks[ack_id] = on_ack
        self.write(client_frame(event_packet(event, payload, ack_id)))

    def close(self) -> None:
        """Hang up on the server."""
        self._transport.close()

    def take_socket(self) -> int:
        """Its socket for somebody else, who closes it and then gives back; until then nothing is heard here."""
        self._transport.pause_reading()
        return os.dup(self._transport.get_extra_info("socket").fileno())

    def give_back(self) -> None:
        """Hear again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Bytes of the server."""
        at = now()
        self._buffer += data
        if not self._upgraded:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._give_up(head.split(b"\r\n")[0].decode())
                return
            self._upgraded, self._buffer = True, bytearray(rest)
        for opcode, payload in server_frames(self._buffer):
            if opcode == TEXT:
                self._hear(payload, at)
            elif opcode == PING:
                self.write(client_frame(payload, PONG))
            elif opcode == CLOSE:
                self._give_up("closed by the server")

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of the connection."""
        self._give_up(repr(exc) if exc else "closed")

    def _hear(self, text: bytes, at: float) -> None:
        if self.on_relayed is not None and text.startswith(self.RELAYED):
            self.on_relayed(self, text, at)
            return
        engine = text[:1]
        if engine == b"2":
            self.write(client_frame(b"3"))
        elif engine == b"0":
            self.on_connect(self, at)
            auth = {"token": self.person.token, "deviceId": self.device_id}
            self.write(
                client_frame(connect_packet(auth if self.since is None else auth | {"since": self.since}))
            )
        elif engine == b"4":
            kind, number, data = read_packet(text)
            if kind == b"2":
                if data[0] == "SYNC" and not self.ready.done():
                    self.ready.set_result(None)
                self.on_event(self, data[0], data[1] if len(data) > 1 else {}, at)
            elif kind == b"3" and number is not None:
                on_ack = self._acks.pop(number, None)
                if on_ack is not None:
                    on_ack(data[0], at)
            elif kind == b"4":
                self._give_up(f"refused: {data}")

    def _give_up(self, why: str) -> None:
        self.closed = self.closed or why
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(why))


async def connect_all(phones: list[Phone], url: str, told: Callable[[], None]) -> None:
    """Connect many, some at a time; ``told`` is called for each that is there."""
    gate = asyncio.Semaphore(CONNECTING_MAX)

    async def one(phone: Phone) -> None:
        async with gate:
            await phone.connect(url)
        told()

    await asyncio.gather(*(one(phone) for phone in phones))

"""The frames of a client: WebSocket (RFC 6455) around Engine.IO 4 around Socket.IO 5, as little of them as is needed.

A client has to mask what it sends. The masks here are zero, so that a frame can be made once and sent many times:
the mask is a protection against intermediaries, and there are none here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import orjson

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
_FIN, _MASKED = 0x80, 0x80
_NO_MASK = b"\0\0\0\0"


def client_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One whole frame from a client."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", _FIN | opcode, _MASKED | size)
    elif size < 65536:
        head = struct.pack("!BBH", _FIN | opcode, _MASKED | 126, size)
    else:
        head = struct.pack("!BBQ", _FIN | opcode, _MASKED | 127, size)
    return head + _NO_MASK + payload


def server_frames(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """Take the whole frames out of what a server has sent: (opcode, payload). The rest stays in the buffer."""
    at, end = 0, len(buffer)
    try:
        while end - at >= 2:
            opcode, size, head = buffer[at] & 0x0F, buffer[at + 1], 2
            if size == 126:
                if end - at < 4:
                    break
                size, head = buffer[at + 2] << 8 | buffer[at + 3], 4
            elif size == 127:
                if end - at < 10:
                    break
                size, head = int.from_bytes(buffer[at + 2 : at + 10], "big"), 10
            if end - at < head + size:
                break
            start = at + head
            at = start + size
            yield opcode, bytes(buffer[start:at])
    finally:
        del buffer[:at]


def connect_packet(auth: dict[str, Any]) -> bytes:
    """Socket.IO CONNECT to the main namespace, in an Engine.IO message."""
    return b"40" + orjson.dumps(auth)


def event_packet(event: str, payload: Any, ack_id: int | None = None) -> bytes:
    """Socket.IO EVENT; with ``ack_id`` an ack is asked for."""
    return b"42%s%s" % (b"" if ack_id is None else str(ack_id).encode(), orjson.dumps([event, payload]))


def read_packet(text: bytes) -> tuple[bytes, int | None, Any]:
    """(kind, ack id, data) of a Socket.IO packet in an Engine.IO message: kind ``2`` is an event, ``3`` an ack."""
    kind, at = text[1:2], 2
    while text[at : at + 1].isdigit():
        at += 1
    number = int(text[2:at]) if at > 2 else None
    return kind, number, orjson.loads(text[at:]) if len(text) > at else None

"""What processes say to each other: a letter of kind, who says it, a line of JSON, and for letters the event's text.

``L<process>\\n[user, seq, device, …]\\n["EVENT",{…}]``. The text is encoded once, by whoever sends it.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import orjson

from models.ports import Letter

LETTER, FRAME, CHANGED, CLOSE, STIRRED, BEAT, HELLO = b"L", b"F", b"C", b"X", b"S", b"B", b"H"


def frame(kind: bytes, process: bytes, *said: Any) -> bytes:
    """A message of one kind."""
    return b"".join((kind, process, b"\n", orjson.dumps(said)))


def frame_head(process: bytes, user_id: str, device_id: str) -> bytes:
    """What goes before an Engine.IO frame with an event that is ready for that device."""
    return b"".join((FRAME, process, b"\n", orjson.dumps((user_id, device_id)), b"\n"))


def read_frame(rest: bytes) -> tuple[str, str, bytes]:
    """For whom a frame is, and the frame."""
    head, _, text = rest.partition(b"\n")
    user_id, device_id = orjson.loads(head)
    return user_id, device_id, text


def letter_of(user_id: str, device_id: str, frame: bytes) -> Letter:
    """The letter that a frame (``42["EVENT",{…}]``) would have been."""
    event, payload = orjson.loads(frame[2:])
    return Letter(user_id=user_id, event=event, payload=payload, only_device=device_id)


def letter_frame(process: bytes, letter: Letter) -> bytes:
    """A letter, its event ready to be sent on."""
    until = letter.rings_until
    said = (
        letter.user_id,
        letter.seq,
        letter.only_device,
        letter.except_device,
        letter.key,
        letter.call_id,
        None if until is None else round(until.timestamp() * 1000),
    )
    event = orjson.dumps((letter.event, letter.payload))
    return b"".join((LETTER, process, b"\n", orjson.dumps(said), b"\n", event))


def sender(message: bytes) -> tuple[bytes, bytes]:
    """The process that has sent a message, and what it says."""
    process, _, rest = message[1:].partition(b"\n")
    return process, rest


def read_letter(rest: bytes) -> Letter:
    """The letter of ``letter_frame``."""
    head, _, text = rest.partition(b"\n")
    user_id, seq, only, but, key, call_id, until = orjson.loads(head)
    event, payload = orjson.loads(text)
    return Letter(
        user_id=user_id,
        event=event,
        payload=payload,
        key=key,
        only_device=only,
        except_device=but,
        call_id=call_id,
        rings_until=None if until is None else datetime.fromtimestamp(until / 1000, UTC),
        seq=seq,
    )


def closing(user_id: str, session_ids: Collection[str] | None, code: str) -> tuple[Any, ...]:
    """What a ``CLOSE`` says."""
    return user_id, None if session_ids is None else sorted(session_ids), code

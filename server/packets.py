"""Socket.IO packets as they come from strangers: sizes, nesting and JSON are checked before anything else sees them.

A packet that breaks a rule keeps its ack id and carries a ``Bad`` instead of its data, so that the refusal is an
ordinary ack and the connection lives on (CONTRACT §1: every event gets exactly one answer).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson
from socketio import packet

FRAME_MAX = 128 * 1024
NESTING_MAX = 32
_HEAD = re.compile(r"[25](?:[0-9]+-)?(?:/[^,]*,)?[0-9]*")


class Json:
    """orjson under the names that python-socketio asks for."""

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        """Compact JSON text."""
        return orjson.dumps(value).decode()

    @staticmethod
    def loads(text: str | bytes) -> Any:
        """Strict JSON: NaN and Infinity are refused."""
        return orjson.loads(text)


@dataclass(frozen=True, slots=True)
class Bad:
    """What an event's data was found to be: the code of the refusal."""

    code: str


class GuardedPacket(packet.Packet):
    """The library's packet with our limits."""

    json = Json

    def decode(self, encoded_packet: Any) -> int:
        """Decode one text frame; the number of binary attachments that follow."""
        text = encoded_packet
        if isinstance(text, str) and text[:1] in ("2", "5"):
            code = too_deep_or_large(text)
            if code is None:
                try:
                    return int(super().decode(text) or 0)
                except (orjson.JSONDecodeError, RecursionError, UnicodeEncodeError):
                    code = "BAD_JSON"
            count = int(super().decode(_head(text)) or 0)
            self.data = Bad(code)
            return count
        try:
            return int(super().decode(text) or 0)
        except orjson.JSONDecodeError:
            return 0

    def add_attachment(self, attachment: Any) -> bool:
        """Count an attachment without keeping it. True when all are there."""
        return bool(super().add_attachment(b""))

    @classmethod
    def reconstruct_binary(cls, data: Any, attachments: list[bytes]) -> Any:
        """No event of ours takes binary."""
        return Bad("VALIDATION_FAILED")


def too_deep_or_large(text: str, most: int = FRAME_MAX) -> str | None:
    """The code of the rule that a JSON text breaks by its size or nesting, or None."""
    if len(text) > most or (len(text) * 3 > most and len(text.encode(errors="replace")) > most):
        return "PAYLOAD_TOO_LARGE"
    if text.count("[") + text.count("{") <= NESTING_MAX:
        return None
    depth, in_text, escaped = 0, False, False
    for char in text:
        if in_text:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_text = False
        elif char == '"':
            in_text = True
        elif char in "[{":
            depth += 1
            # The event's own array is not part of the payload's nesting.
            if depth > NESTING_MAX + 1:
                return "VALIDATION_FAILED"
        elif char in "]}":
            depth -= 1
    return None


def _head(text: str) -> str:
    """What stands before an event's body, whatever that is: type, number of attachments, namespace, ack id."""
    found = _HEAD.match(text)
    return found[0] if found else text[:1]

"""What a message and a conversation are: frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Who writes to one another. That of a pair has an id that follows from the two."""

    id: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message at its place: ``seq`` counts 1, 2, 3 … in its conversation, without a hole.

    ``device_id`` is the device that wrote it, which has it from the answer and is not told again.
    """

    id: str
    conversation_id: str
    seq: int
    sender_id: str
    device_id: str
    op_id: str
    text: str
    created_at: datetime

"""What a message is: frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A file that goes with a message, as it was when it was sent. ``thumbnail``: there is a small picture of it."""

    id: str
    kind: str
    content_type: str
    size_bytes: int
    filename: str | None
    width: int | None
    height: int | None
    thumbnail: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ciphertext:
    """A message's body for one device, which nobody else can read; ``type`` and ``body`` are the apps' own."""

    user_id: str
    device_id: str
    type: int
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a message of the server itself says of a group: ``what`` happened, to whom, and its name after it."""

    what: str
    user_ids: tuple[str, ...] = ()
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message as it is handed in: a text, a file, or both; or a body per device."""

    op_id: str
    text: str | None = None
    reply_to: str | None = None
    attachment_id: str | None = None
    ciphertexts: tuple[Ciphertext, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message at its place: ``seq`` counts 1, 2, 3 … in its conversation, without a hole.

    ``device_id`` is the device that wrote it, which has it from the answer and is not told again. ``op_print`` is what
    was asked for with its ``op_id``. ``hidden_from`` are members between whom and the sender there was a block; they
    never see it. ``version`` rises with an edit and with the deletion, which leaves nothing but the place.
    """

    id: str
    conversation_id: str
    seq: int
    sender_id: str
    device_id: str
    op_id: str
    text: str | None
    created_at: datetime
    op_print: str | None = None
    reply_to: str | None = None
    attachment: Attachment | None = None
    encrypted: bool = False
    ciphertexts: tuple[Ciphertext, ...] = ()
    note: Note | None = None
    hidden_from: frozenset[str] = frozenset()
    version: int = 1
    edited_at: datetime | None = None
    deleted_at: datetime | None = None

    def ciphertext_for(self, user_id: str, device_id: str) -> Ciphertext | None:
        """The body for that device."""
        mine = (one for one in self.ciphertexts if (one.user_id, one.device_id) == (user_id, device_id))
        return next(mine, None)

"""What chat needs of others, as protocols: who says it aloud, the files, the keys of devices."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from models.chat.conversations.conversation import Conversation
from models.chat.message import Message
from models.users.profile import Profile

DELIVERED, READ = "delivered", "read"


@dataclass(frozen=True, slots=True)
class Written:
    """A message, its sender as they are now, and whom it is for: those who were in when it was sent and may see it."""

    message: Message
    sender: Profile
    readers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """How far somebody has got (``delivered``) or read a conversation: up to and including ``seq``."""

    what: str
    conversation_id: str
    user_id: str
    seq: int
    at: datetime | None


class Announcer(Protocol):
    """Says things aloud; the durable ones once, however often they are said."""

    async def announce(self, conversation: Conversation, written: Sequence[Written], *, again: bool) -> None:
        """Tell new messages to their readers; ``again`` when somebody may have told them before."""
        ...

    async def wake(
        self, conversation: Conversation, written: Sequence[Written], *, muted: Collection[str]
    ) -> None:
        """Push new messages to those readers who want to be woken."""
        ...

    async def announce_change(self, written: Written, *, once: Collection[str], again: bool) -> None:
        """Tell an edited or deleted message to its readers, and a deletion to those of ``once`` who were told it."""
        ...

    async def announce_marker(
        self, marker: Marker, readers: Collection[str], *, except_device: str | None
    ) -> None:
        """Tell a marker to ``readers`` and to its owner's other devices."""
        ...

    async def announce_typing(
        self, typist: Profile, conversation_id: str, readers: Collection[str], *, typing: bool
    ) -> None:
        """Tell that somebody has begun to type, or has stopped."""
        ...


class AttachedFile(Protocol):
    """A stored file, as far as a message shows it."""

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def content_type(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def filename(self) -> str | None: ...
    @property
    def width(self) -> int | None: ...
    @property
    def height(self) -> int | None: ...
    @property
    def thumbnail(self) -> bool: ...


class Attachments(Protocol):
    """The files that people have uploaded."""

    async def attach(self, media_id: str, *, owner_id: str, conversation_id: str) -> AttachedFile:
        """Let a conversation's members see a file of ``owner_id``. Safe to repeat.

        Refuses with ``ATTACHMENT_UNKNOWN``.
        """
        ...

    async def detach(self, media_id: str, conversation_id: str) -> None:
        """A message with the file was deleted. Safe to repeat."""
        ...


class KeyDevices(Protocol):
    """The devices that can be written to end-to-end encrypted."""

    async def devices_of(self, user_ids: Collection[str]) -> Mapping[str, Collection[str]]:
        """The devices with keys of each of them."""
        ...

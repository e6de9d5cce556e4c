"""What pushes need of the world outside."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import ceil
from typing import Any, Protocol

KINDS = EXPO, FCM, APNS_VOIP = "EXPO", "FCM", "APNS_VOIP"


class Token(Protocol):
    """An address of a device at a push provider. ``kind`` is ``EXPO``, ``FCM`` or ``APNS_VOIP``."""

    @property
    def kind(self) -> str:
        """Which provider's."""
        ...

    @property
    def token(self) -> str:
        """The address itself, opaque but to its provider."""
        ...

    @property
    def device_id(self) -> str:
        """The device, as the sockets know it."""
        ...

    @property
    def user_id(self) -> str:
        """Whose device it is."""
        ...


class Note(StrEnum):
    """What a push tells. The word is the ``type`` of its data on the wire."""

    RING = "incoming_call"
    MISSED = "missed_call"
    CANCELLED = "call_cancelled"
    MESSAGE = "message"
    INVITED = "room_invite"

    @property
    def pressing(self) -> bool:
        """Whether a phone rings by it, or rings on without it: such pushes wait behind no others."""
        return self in (Note.RING, Note.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One notification for one device, in no provider's words.

    With a ``title`` it is shown; without one it only wakes the app with its ``data``. ``ttl_seconds`` is how long the
    provider may hold it for a device that is off; a ring also says when it is over (``expires_at``). Of several with
    one ``collapse_id`` the device shows the newest.
    """

    note: Note
    token: str
    data: Mapping[str, Any]
    ttl_seconds: int
    expires_at: datetime | None = None
    title: str | None = None
    body: str | None = None
    channel: str | None = None
    category: str | None = None
    collapse_id: str | None = None

    def left_seconds(self, now: datetime) -> int:
        """How long from ``now`` on a provider may hold it; 0 when it is over and must not be sent any more."""
        if self.expires_at is None:
            return self.ttl_seconds
        return max(0, ceil((self.expires_at - now).total_seconds()))


class Sent(StrEnum):
    """What became of a push."""

    OK = "ok"
    # The provider knows no such device any more: the token is dead.
    GONE = "gone"
    # Nobody knows, or not now: worth another try.
    LATER = "later"
    # It will never be taken like this.
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a provider said to a push, or later in the receipt of one.

    ``reason`` is its own word for a failure. ``receipt_id`` is for asking later whether a push that was taken got
    through. ``retry_after_seconds`` is its wish before another try. ``gone_since`` is when it knew that a token was
    dead; without it that is now.
    """

    sent: Sent
    reason: str | None = None
    receipt_id: str | None = None
    retry_after_seconds: float | None = None
    gone_since: datetime | None = None


class Sender(Protocol):
    """A push provider."""

    async def send(self, pushes: Sequence[Push]) -> Sequence[Outcome]:
        """Hand pushes over; one outcome for each, in order. Never raises for the provider's faults, always returns
        within ``SEND_SECONDS_MAX`` of models/notify/rules.py, and lets no push wait behind less pressing ones."""
        ...


class ReceiptSource(Protocol):
    """A push provider that says only later what became of what it took."""

    async def receipts(self, receipt_ids: Sequence[str]) -> Mapping[str, Outcome]:
        """The receipts that are there, by id, of at most ``RECEIPTS_MAX``; nothing when the provider is away."""
        ...


class Tokens(Protocol):
    """The devices' push tokens, which accounts keep."""

    async def of_users(self, user_ids: Collection[str]) -> Sequence[Token]:
        """The tokens of these people's signed-in devices."""
        ...

    async def dead(self, tokens: Mapping[str, datetime]) -> None:
        """Forget tokens that their provider no longer knew at the instant beside each; one that a device has shown
        anew since then is alive."""
        ...

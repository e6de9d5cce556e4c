"""What pushes need of the world outside."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One notification for one device, in no provider's words.

    With a ``title`` it is shown; without one it only wakes the app with its ``data``. ``ttl_seconds`` is how long the
    provider may hold it for a device that is off. Of several with one ``collapse_id`` the device shows the newest.
    """

    token: str
    data: Mapping[str, Any]
    ttl_seconds: int
    title: str | None = None
    body: str | None = None
    channel: str | None = None
    category: str | None = None
    urgent: bool = False
    collapse_id: str | None = None


class Sent(StrEnum):
    """What became of a push."""

    OK = "ok"
    # The provider knows no such device any more: the token is dead.
    GONE = "gone"
    # Nobody knows, or not now: worth another try.
    LATER = "later"
    # It will never be taken like this.
    NEVER = "never"


class Sender(Protocol):
    """A push provider."""

    async def send(self, pushes: Sequence[Push]) -> Sequence[Sent]:
        """Hand pushes over; one result for each, in order. Never raises for the provider's faults, always returns
        within ``SEND_SECONDS_MAX`` of models/notify/rules.py."""
        ...


class Tokens(Protocol):
    """The devices' push tokens, which accounts keep."""

    async def of_users(self, user_ids: Collection[str]) -> Sequence[Token]:
        """The tokens of these people's signed-in devices."""
        ...

    async def dead(self, tokens: Collection[str]) -> None:
        """Forget tokens that their provider no longer knows."""
        ...

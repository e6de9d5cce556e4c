"""Sign-ins as values, and the one port that only accounts need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from models.db import Session as Transaction


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, as an access token and the database say together. ``expires_at`` is the token's end."""

    user_id: str
    session_id: str
    role: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInDevice:
    """What a device said about itself when it signed in; all of it is hearsay."""

    id: str | None = None
    name: str | None = None
    platform: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One sign-in. ``generation`` counts its refresh tokens; ``ended_code`` says why it is over (None: it lives)."""

    id: str
    user_id: str
    generation: int
    device: SignInDevice
    created_at: datetime
    seen_at: datetime
    rotated_at: datetime | None
    expires_at: datetime
    ended_code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What is needed of an account to let somebody in. ``second_factor``: a code is asked for as well."""

    user_id: str
    password_hash: str
    status: str
    role: str
    second_factor: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """Sockets that must close: all of the user's, or those of ``session_ids``; ``code`` is what they are told."""

    id: str
    user_id: str
    session_ids: tuple[str, ...] | None
    code: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a client is given. ``expires_in`` in seconds is the access token's life. ``device_token``: see ``known``."""

    access_token: str
    refresh_token: str
    expires_in: int
    device_token: str
    token_type: str = "Bearer"  # noqa: S105 - the name of a scheme (RFC 6750)


@dataclass(frozen=True, slots=True, kw_only=True)
class PushToken:
    """Where a device can be woken. ``kind`` is EXPO, FCM or APNS_VOIP; ``device_id`` the app's own name for itself."""

    user_id: str
    device_id: str
    session_id: str
    kind: str
    token: str
    platform: str | None
    updated_at: datetime


# Told in the transaction of a change of what guards an account: whose, and when.
Beside = Callable[[str, datetime, Transaction], Awaitable[None]]


class Hasher(Protocol):
    """Slow hashes of passwords, made off the loop. Both verbs refuse with ``SERVER_BUSY`` when too many wait."""

    async def hash(self, password: str) -> str:
        """The hash to keep."""
        ...

    async def verify(self, password: str, kept: str | None) -> bool:
        """Whether the password is the one. ``kept=None`` (no such account) costs the same and is False."""
        ...

    def outdated(self, kept: str) -> bool:
        """Whether ``kept`` was made with another cost than hashes are made with now."""
        ...

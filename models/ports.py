"""What the models need of the world outside, as protocols. ``server/`` and the tests bring the real things."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """The present instant: aware, UTC, whole milliseconds, never going backwards within a process."""
        ...


class Ids(Protocol):
    """The only source of identifiers and of chance."""

    def new(self) -> str:
        """A new UUIDv7 as text: unique, and rising with time (RFC 9562 §5.7)."""
        ...


class Alarms(Protocol):
    """Local timers for punctuality. They are a convenience: a lost one is made good by the deadline job."""

    def set(self, key: str, at: datetime) -> None:
        """Ring once for ``key`` at ``at``; a later ``set`` of the same key replaces the earlier one."""
        ...

    def clear(self, key: str) -> None:
        """Forget ``key``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device of a user as a door sees it. ``process`` is None for a REST client, which holds no socket lease."""

    user_id: str
    device_id: str
    session_id: str
    process: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One event for one user.

    ``key`` makes a durable letter unique for its user: posting it twice tells it once. ``key=None`` is a letter that
    is only told to devices connected now. ``only_device`` and ``except_device`` narrow the addressees.
    ``call_id`` and ``rings_until`` let the replay drop a ring that is over (never a ghost ring).
    """

    user_id: str
    event: str
    payload: Mapping[str, Any]
    key: str | None = None
    only_device: str | None = None
    except_device: str | None = None
    call_id: str | None = None
    rings_until: datetime | None = None
    seq: int | None = field(default=None)


class Doors(Protocol):
    """The sockets of connected devices."""

    async def deliver(self, letters: Sequence[Letter]) -> None:
        """Send each letter to its user's devices that are connected now. Never raises for a dead socket."""
        ...

    def online(self, user_id: str) -> bool:
        """Whether any device of the user is connected."""
        ...

    def connected(self, user_id: str, device_id: str) -> bool:
        """Whether that device is connected to this process."""
        ...

    async def close(self, user_id: str, *, session_ids: Collection[str] | None = None, code: str) -> None:
        """Close the user's sockets (all, or those of the given sessions), telling ``code`` in an ``error`` event."""
        ...


class Pusher(Protocol):
    """Something that can wake a sleeping device. Must return at once; sending is somebody else's work."""

    async def ring(self, call: Any) -> None:
        """Ask that the callee's devices be woken for this ringing call."""
        ...

    async def stop_ringing(self, call: Any) -> None:
        """Ask that the ring be taken back, and a missed call told where it was one."""
        ...

"""What the models need of the world outside, as protocols. ``server/`` and the tests bring the real things."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol


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


class Chance(Protocol):
    """The only source of secrets: codes, seeds, keys."""

    def bytes(self, count: int) -> bytes:
        """That many bytes which nobody can guess."""
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
    ``at`` is the process that holds the socket of ``only_device``, where that is known.
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
    at: str | None = None


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

    def renew(self, user_id: str, device_id: str, expires_at: datetime) -> None:
        """The device has shown a fresh token: its socket may live until ``expires_at``."""
        ...

    async def close(self, user_id: str, *, session_ids: Collection[str] | None = None, code: str) -> None:
        """Close the user's sockets (all, or those of the given sessions), telling ``code`` in an ``error`` event."""
        ...


class Courier(Protocol):
    """The way to the other processes on the same database. Nothing here waits, and anything may be lost: whatever must
    be known is in the database, and is read there.
    """

    @property
    def reaches(self) -> bool:
        """Whether what is said now reaches the other processes at once."""
        ...

    def may_wait(self, work: str) -> bool:
        """Whether this turn of a job that reads what others have written can be left out: it is heard of anyway."""
        ...

    def carry(self, letters: Sequence[Letter]) -> None:
        """Letters for devices that are connected to other processes."""
        ...

    def close(self, user_id: str, *, session_ids: Collection[str] | None, code: str) -> None:
        """Close the user's sockets there, as ``Doors.close`` does here."""
        ...

    def changed(
        self,
        what: Literal["call", "room"],
        id: str,
        version: int,
        *,
        users: Collection[str] = (),
        processes: Collection[str | None] = (),
    ) -> None:
        """A call or room has a new version: to the processes that hold sockets of these users, and to these."""
        ...

    def stirred(self, user_ids: Collection[str]) -> None:
        """The presence of these people may have changed: to the processes at which somebody watches them."""
        ...

    def watching(self, user_id: str, *, watched: bool) -> None:
        """Somebody here watches that user now, or nobody does any more."""
        ...


class NoCourier:
    """A ``Courier`` where there is no way: others read the database by and by."""

    reaches = False

    def may_wait(self, work: str) -> bool:
        """Nothing can."""
        return False

    def carry(self, letters: Sequence[Letter]) -> None:
        """Nothing."""

    def close(self, user_id: str, *, session_ids: Collection[str] | None, code: str) -> None:
        """Nothing."""

    def changed(
        self,
        what: Literal["call", "room"],
        id: str,
        version: int,
        *,
        users: Collection[str] = (),
        processes: Collection[str | None] = (),
    ) -> None:
        """Nothing."""

    def stirred(self, user_ids: Collection[str]) -> None:
        """Nothing."""

    def watching(self, user_id: str, *, watched: bool) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Window:
    """At most ``most`` under ``key`` in any ``seconds``."""

    key: str
    most: int
    seconds: float


class Windows(Protocol):
    """How often what must be strict may happen, counted for all processes together where that can be had."""

    async def take(self, *windows: Window, now: float) -> int:
        """Count one in each, in this order, at ``now`` (seconds since 1970). 0; or the milliseconds until there is room
        in the first that is full, where it ends.
        """
        ...


class LiveCalls(Protocol):
    """What accounts need of calls: an end to them when a person may no longer talk."""

    async def end_all(self, user_id: str) -> None:
        """End the user's live call for reasons of policy (ban, deletion)."""
        ...

    async def end_between(self, user_id: str, other_id: str) -> None:
        """End the live call between the two (one has blocked the other)."""
        ...

    async def forget(self, user_id: str) -> None:
        """Take the person's name and picture out of their calls; the calls stay."""
        ...


class Pusher(Protocol):
    """What can wake a sleeping device for a call. Both verbs keep a to-do and return; sending is a job's work."""

    async def ring(
        self, *, call_id: str, call_type: str, caller: Mapping[str, Any], callee_id: str, expires_at: datetime
    ) -> None:
        """Wake the callee's devices for a ringing call. ``caller`` is a PublicUser in wire form."""
        ...

    async def stop_ringing(
        self,
        *,
        call_id: str,
        call_type: str,
        caller: Mapping[str, Any],
        callee_id: str,
        missed: bool,
        answered_on: str | None = None,
    ) -> None:
        """Take the ring back; with ``missed`` tell of a missed call, otherwise that it was cancelled or answered.

        ``answered_on`` is the device that took the call: it is told nothing, since to it the call is not over.
        """
        ...


class MessagePusher(Protocol):
    """What can wake a sleeping device for a message. Both verbs keep a to-do and return."""

    async def message(
        self,
        *,
        conversation_id: str,
        message_id: str,
        seq: int,
        sender: Mapping[str, Any],
        recipients: Collection[str],
        preview: str | None,
        title: str | None = None,
    ) -> None:
        """A message for people whose devices may sleep. Those of one conversation are told as one.

        ``sender`` is a PublicUser in wire form, ``preview`` what may be shown of the message (None: it is encrypted),
        ``title`` the name of a group.
        """
        ...

    async def message_changed(
        self, *, user_ids: Collection[str], conversation_id: str, message_id: str
    ) -> None:
        """A message has other words, or none: what it said before is kept no longer, to be shown to nobody."""
        ...

    async def message_read(self, *, user_id: str, conversation_id: str, seq: int) -> None:
        """The user has read up to number ``seq``: what was not pushed yet of it need not be."""
        ...

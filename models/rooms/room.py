"""A room as a value: its people with their devices, its running session, and the facts of its changes.

Everybody who is in a room stands in the room's own document, so that one guarded write decides who gets the last
place. A person has one place and may hold it with several devices (*seats*); they are *here* while they have a seat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from models.calls.call import Price


class Access(StrEnum):
    """Who may join: whoever knows the room's id, or only who was invited."""

    OPEN = "open"
    INVITE = "invite"


class Gone(StrEnum):
    """Why somebody is no longer in a room."""

    LEFT = "left"
    LOST = "connection_lost"
    NEVER_CAME = "never_came"
    KICKED = "kicked"
    FUNDS = "insufficient_funds"
    DURATION = "max_duration"
    POLICY = "policy"
    CLOSED = "closed"


class Closed(StrEnum):
    """Why a room is closed."""

    OWNER = "owner"
    EMPTY = "empty"
    POLICY = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A device in a room. ``process`` holds its socket; None: it is there by other means than a socket of ours.

    ``lost_at`` is when its socket was last known to live, once it is gone.
    """

    device_id: str
    process: str | None
    lost_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Somebody with a place in a room.

    Without a seat they are on their way (joined by REST) and lose the place at ``arriving_until``. ``stay_id`` is what
    they pay by; while it is ``pending`` nobody has taken the money yet and nobody hears of them. ``apart`` are those
    between whom and them a block stands: neither sees or hears the other here.
    """

    user_id: str
    joined_at: datetime
    seats: tuple[Seat, ...] = ()
    arriving_until: datetime | None = None
    stay_id: str | None = None
    pending: bool = False
    apart: frozenset[str] = frozenset()

    @property
    def here(self) -> bool:
        """Whether others see them in the room."""
        return bool(self.seats) and not self.pending

    @property
    def devices(self) -> tuple[str, ...]:
        """Their devices that are there by a socket, which can be told something."""
        return tuple(seat.device_id for seat in self.seats if seat.process is not None)

    def seat(self, device_id: str) -> Seat | None:
        """Their seat with that device."""
        return next((seat for seat in self.seats if seat.device_id == device_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One use of a room, from the first who came to the last who left: a line of the call logs.

    ``last_gone_at`` is the latest instant at which one of those who have left was there: who is last to be missed, a
    lost connection, need not be who was there last.
    """

    id: str
    started_at: datetime
    started_by: str
    last_gone_at: datetime | None = None


FactKind = Literal["joined", "left", "severed", "invited", "kicked", "closed"]


@dataclass(frozen=True, slots=True)
class Fact:
    """What has happened in a room, at which version of it."""

    kind: FactKind
    version: int
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A room at one version."""

    id: str
    version: int
    name: str | None
    type: Literal["audio", "video"]
    access: Access
    owner_id: str
    capacity: int
    # What a participant pays to the owner, as it was when the room was made.
    price: Price | None
    created_at: datetime
    invited_ids: tuple[str, ...] = ()
    kicked_ids: tuple[str, ...] = ()
    participants: tuple[Participant, ...] = ()
    session: Session | None = None
    # Since when nobody has a place; None while somebody has.
    emptied_at: datetime | None = None
    closed_at: datetime | None = None
    close_reason: Closed | None = None
    op_id: str | None = None
    untold: tuple[Fact, ...] = ()

    @property
    def open(self) -> bool:
        """Whether it can still be used."""
        return self.closed_at is None

    @property
    def present(self) -> tuple[Participant, ...]:
        """Those who are here, in the order in which they came."""
        return tuple(one for one in self.participants if one.here)

    def participant(self, user_id: str) -> Participant | None:
        """The place of a person."""
        return next((one for one in self.participants if one.user_id == user_id), None)

    def seen_by(self, viewer_id: str) -> tuple[Participant, ...]:
        """Those who are here for the eyes of ``viewer_id``: without whom a block keeps apart, and with themselves
        also while they are on their way.
        """
        return tuple(
            one
            for one in self.participants
            if (one.here and viewer_id not in one.apart) or (one.user_id == viewer_id and not one.pending)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timers:
    """Seconds: a lost socket's grace, the way from a REST join to a socket, an empty room's life."""

    grace: int = 15
    arrive: int = 60
    empty: int = 86_400

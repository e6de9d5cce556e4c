"""What rooms need of the rest of the house, as protocols."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from models.rooms.room import Fact, Gone, Participant, Room
from models.users.profile import Profile


class Stays(Protocol):
    """What a participant of a room with a price pays. One stay per participant and time in the room."""

    async def begin(self, room: Room, participant: Participant) -> str:
        """Reserve and start to charge ``participant`` under ``participant.stay_id``, which is also the answer.

        It stands in the room before this is called, so that a stay whose process died is always found and ended.
        Safe to repeat. Refuses with ``INSUFFICIENT_FUNDS`` and ``WALLET_FROZEN``, having charged nothing.
        """
        ...

    async def end(self, stay_id: str, *, at: datetime, reason: Gone) -> None:
        """Settle a stay as of ``at``, the last moment at which its participant is known to have been there.

        Safe to repeat, and for one that never began.
        """
        ...


class NoStays:
    """Rooms without a meter: nobody is let into one that has a price for nothing, since none can be made."""

    async def begin(self, room: Room, participant: Participant) -> str:
        """Nothing to charge."""
        assert participant.stay_id is not None
        return participant.stay_id

    async def end(self, stay_id: str, *, at: datetime, reason: Gone) -> None:
        """Nothing to settle."""


class Media(Protocol):
    """A server that carries the media of rooms: what one sends, all in the room receive."""

    async def ticket(self, room: Room, person: Profile | None, device_id: str) -> Mapping[str, Any] | None:
        """What a device needs to connect to it; None for one whose user has no place in the room."""
        ...

    async def devices(self, *, room_id: str, user_id: str, device_id: str) -> frozenset[str]:
        """The devices of the room as which this one is connected there."""
        ...


class Announcer(Protocol):
    """Says the facts of rooms aloud."""

    async def announce(
        self, room: Room, people: Mapping[str, Profile], facts: Sequence[Fact], *, again: bool
    ) -> None:
        """Tell facts; ``again`` after a crash, when some may have been told before."""
        ...

    async def returned(self, room: Room, people: Mapping[str, Profile], user_id: str, device_id: str) -> None:
        """Tell a device that was away for a moment what the room is like now."""
        ...


class Processes(Protocol):
    """The beats of the server processes, whoever writes them."""

    async def living(self, since: datetime) -> dict[str, datetime]:
        """Those that beat at or after ``since``, with their last beat."""
        ...

    async def last_beats(self, processes: Collection[str]) -> dict[str, datetime]:
        """When these beat last."""
        ...


class RoomPusher(Protocol):
    """What can wake a sleeping device for an invitation; it keeps a to-do and returns."""

    async def room_invited(
        self, *, room_id: str, room_name: str | None, by: Mapping[str, Any], user_id: str
    ) -> None:
        """Somebody was invited. ``by`` is a PublicUser in wire form."""
        ...

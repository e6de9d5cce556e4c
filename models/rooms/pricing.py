"""What it costs to be in a room: its rate with the platform's blocks, and its participants' stays as paid calls."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from models.calls.beginning import party_of
from models.calls.call import Party, Price, Reason, Role
from models.calls.meter import Meter
from models.calls.service import Calls
from models.errors import Refusal
from models.rooms.room import Gone, Participant, Room
from models.users.service import Users

# How a stay ends, and by whom, when its participant is gone from the room.
_ENDS: dict[Gone, tuple[Reason, Role | None]] = {
    Gone.LEFT: (Reason.COMPLETED, Role.CALLER),
    Gone.LOST: (Reason.CONNECTION_LOST, None),
    Gone.NEVER_CAME: (Reason.CONNECT_FAILED, None),
    Gone.KICKED: (Reason.COMPLETED, Role.CALLEE),
    Gone.CLOSED: (Reason.COMPLETED, Role.CALLEE),
    Gone.FUNDS: (Reason.INSUFFICIENT_FUNDS, None),
    Gone.POLICY: (Reason.POLICY, None),
}


class RoomStays:
    """``models.rooms.ports.Stays``: the participant is the caller of a stay, the owner its callee."""

    def __init__(self, *, calls: Calls, users: Users, meter: Meter) -> None:
        self._calls = calls
        self._users = users
        self._meter = meter

    def quote(self, room: Room) -> Price | None:
        """What a participant pays as things are now; None in a room that is free."""
        if room.price is None:
            return None
        # Only the rate and its currency are looked at.
        owner = Party(user_id=room.owner_id, username="", display_name="")
        return self._meter.quote(callee=_asking(owner, room), call_type=room.type)

    async def begin(self, room: Room, participant: Participant) -> str:
        """Reserve, and charge from now on. Refuses with ``INSUFFICIENT_FUNDS`` and ``WALLET_FROZEN``."""
        assert participant.stay_id is not None
        assert room.price is not None
        people = await self._users.profiles({participant.user_id, room.owner_id})
        if len(people) < 2:
            raise Refusal("USER_UNKNOWN")
        owner = _asking(party_of(people[room.owner_id]), room)
        stay = await self._calls.enter(
            participant.stay_id,
            room_id=room.id,
            type=room.type,
            payer=party_of(people[participant.user_id]),
            payee=owner,
            price=self._meter.quote(callee=owner, call_type=room.type),
        )
        return stay.id

    async def end(self, stay_id: str, *, at: datetime, reason: Gone) -> None:
        """Settle a stay as of ``at``."""
        why, by = _ENDS[reason]
        await self._calls.leave(stay_id, reason=why, at=at, by=by)


def _asking(owner: Party, room: Room) -> Party:
    """The owner with the rates of the room in place of those for calls."""
    assert room.price is not None
    rate = room.price.rate_per_minute_minor
    return replace(
        owner,
        rate_per_minute_minor=rate,
        video_rate_per_minute_minor=rate,
        currency=room.price.currency,
    )

"""What it costs to be in a room: its rate with the platform's blocks, and its participants' stays as paid calls."""

from __future__ import annotations

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
    Gone.DURATION: (Reason.MAX_DURATION, None),
    Gone.POLICY: (Reason.POLICY, None),
}


class RoomStays:
    """``models.rooms.ports.Stays``: the participant is the caller of a stay, the owner its callee."""

    def __init__(self, *, calls: Calls, users: Users, meter: Meter) -> None:
        self._calls = calls
        self._users = users
        self._meter = meter

    def price_of(self, rate_per_minute_minor: int, currency: str, type: str) -> Price:
        """The whole price of a room whose owner asks for a rate: as for a call to somebody with that rate."""
        owner = Party(
            user_id="",
            username="",
            display_name="",
            rate_per_minute_minor=rate_per_minute_minor,
            video_rate_per_minute_minor=rate_per_minute_minor,
            currency=currency,
        )
        return self._meter.quote(callee=owner, call_type=type)

    async def begin(self, room: Room, participant: Participant) -> str:
        """Reserve, and charge from now on. Refuses with ``INSUFFICIENT_FUNDS`` and ``WALLET_FROZEN``."""
        assert participant.stay_id is not None
        assert room.price is not None
        people = await self._users.profiles({participant.user_id, room.owner_id})
        if len(people) < 2 or not people[room.owner_id].active:
            raise Refusal("ROOM_UNKNOWN")  # one of the two is gone for good, or the payee may earn no more
        stay = await self._calls.enter(
            participant.stay_id,
            room_id=room.id,
            type=room.type,
            payer=party_of(people[participant.user_id]),
            payee=party_of(people[room.owner_id]),
            price=room.price,
        )
        return stay.id

    async def end(self, stay_id: str, *, at: datetime, reason: Gone) -> None:
        """Settle a stay as of ``at``."""
        why, by = _ENDS[reason]
        await self._calls.leave(stay_id, reason=why, at=at, by=by)

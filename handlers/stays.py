"""How paid stays in rooms meet the people: what a call says aloud, a room says of a stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from handlers.rooms_views import ROOM_KICKED
from models.calls.call import Call, Fact, Reason
from models.calls.engine import Announcer
from models.calls.switchboard import Forward
from models.mailbox.service import Mailbox
from models.ports import Letter
from models.rooms.room import Gone


class Removals(Protocol):
    """What the end of a stay asks of its room."""

    async def removed(self, room_id: str, user_id: str, *, reason: Gone, stay_id: str) -> None:
        """Take out who was there by this stay, and tell them why. Safe to repeat."""
        ...


# Why somebody is taken out whose stay has ended by itself.
_GONE = {Reason.INSUFFICIENT_FUNDS: Gone.FUNDS, Reason.MAX_DURATION: Gone.DURATION}


class StayTeller:
    """``models.calls.engine.Announcer`` for calls and stays: calls go on to theirs, a stay's end to its room.

    A stay is told of only by what ends it from within: of its beginning and of leaving, the room tells.
    """

    def __init__(self, *, calls: Announcer, rooms: Removals, mailbox: Mailbox) -> None:
        self._calls = calls
        self._rooms = rooms
        self._mailbox = mailbox

    async def announce(self, call: Call, facts: Sequence[Fact], *, again: bool) -> None:
        """Tell facts; the end of a stay takes its participant out of the room."""
        if call.room_id is None:
            await self._calls.announce(call, facts, again=again)
        elif any(fact.kind == "ended" for fact in facts):
            assert call.end_reason is not None
            reason = _GONE.get(call.end_reason, Gone.POLICY)
            await self._rooms.removed(call.room_id, call.caller.user_id, reason=reason, stay_id=call.id)

    async def cut(self, call: Call) -> None:
        """Say that the money is over, though that cannot be written down just now; it may be said again."""
        if call.room_id is None:
            await self._calls.cut(call)
            return
        payload = {"roomId": call.room_id, "reason": Gone.FUNDS.value}
        letter = Letter(user_id=call.caller.user_id, event=ROOM_KICKED, payload=payload)
        await self._mailbox.say_here([letter])

    async def forward(self, call: Call, forwards: Sequence[Forward]) -> None:
        """Send candidates."""
        await self._calls.forward(call, forwards)

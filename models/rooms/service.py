"""The verbs of a room, for the people in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from models.calls.call import Price
from models.calls.sdp import check_candidate, check_description
from models.errors import Refusal
from models.ports import Device
from models.rooms import rules
from models.rooms.coming import JOINED_MAX, Coming
from models.rooms.engine import Seen, Tools
from models.rooms.logs.store import CallLog, Totals
from models.rooms.room import Access, Closed, Participant, Room
from models.rooms.rules import Step
from models.users.profile import ACTIVE, Profile
from models.users.rules import one_line, visible

# Open rooms of one owner: more than a community with a room per topic has, and few enough to list and to close.
OWNED_MAX = 100
__all__ = ["JOINED_MAX", "Rooms", "Seen", "Tools"]

PriceOf = Callable[[int, str, str], Price]


@dataclass(frozen=True, slots=True)
class LogPage:
    """Call logs with the people in them, by id; ``more`` when there are older ones."""

    items: list[CallLog]
    people: dict[str, Profile]
    more: bool


class Rooms(Coming):
    """One per process: the verbs of people here and in ``Coming``, those of the server itself in ``Upkeep``."""

    def __init__(self, tools: Tools, *, capacity: int = 8, capacity_max: int = 8) -> None:
        super().__init__(tools)
        # Set by the wiring where there are tariffs: (rate per minute, currency, type of the room) → the whole price.
        self.price_of: PriceOf = lambda rate, currency, type: Price(
            rate_per_minute_minor=rate, currency=currency
        )
        self._capacity = capacity
        self._capacity_max = capacity_max

    # ----------------------------------------------------------------------------------------------------- a room

    async def create(
        self,
        user_id: str,
        *,
        name: str | None = None,
        type: Literal["audio", "video"] = "video",
        access: Access = Access.OPEN,
        capacity: int | None = None,
        rate_per_minute_minor: int | None = None,
        op_id: str | None = None,
    ) -> Seen:
        """Open a room. The same ``op_id`` again answers with the first one.

        Refuses with ``VALIDATION_FAILED`` (a capacity that cannot be served here, a name with nothing to see) and
        ``TOO_MANY_ROOMS``.
        """
        if op_id is not None and (known := await self._store.by_op(user_id, op_id)) is not None:
            return await self._seen(known)
        name = one_line(name) if name else name
        if name and not visible(name):
            raise Refusal("VALIDATION_FAILED", name=["There is nothing to see in it."])
        most = max(self._capacity, self._capacity_max)
        if capacity is not None and capacity > most:
            raise Refusal("VALIDATION_FAILED", capacity=[f"A room has at most {most} participants here."])
        if await self._store.open_of(user_id) >= OWNED_MAX:
            raise Refusal("TOO_MANY_ROOMS", most=OWNED_MAX)
        owner = await self._users.account(user_id)
        now = self._clock.now()
        room = Room(
            id=self._ids.new(),
            version=1,
            name=name,
            type=type,
            access=access,
            owner_id=user_id,
            capacity=capacity or self._capacity,
            price=self.price_of(rate_per_minute_minor, owner.profile.currency, type)
            if rate_per_minute_minor
            else None,
            created_at=now,
            emptied_at=now,
            op_id=op_id,
        )
        due = rules.deadline(room, self._timers)
        if not await self._store.create(room, deadline_at=due, now=now):
            assert op_id is not None, "only that can be there already"
            found = await self._store.by_op(user_id, op_id)
            assert found is not None
            room = found
        return await self._seen(room)

    async def mine(self, user_id: str, *, before: str | None, limit: int) -> tuple[list[Seen], bool]:
        """Rooms that somebody owns, was invited to or has been in, the newest first; whether there are older ones."""
        rooms = await self._store.page(user_id, before=before, most=limit + 1)
        ids = {room.owner_id for room in rooms}
        ids |= {one.user_id for room in rooms for one in room.participants}
        people = await self._users.profiles(ids)
        blocks = await self._users.blocks_among([user_id], ids - {user_id})
        apart = frozenset(one for block in blocks for one in block) - {user_id}
        return [Seen(room, people, apart) for room in rooms[:limit]], len(rooms) > limit

    # ---------------------------------------------------------------------------------------------------- the owner

    async def invite(self, user_id: str, room_id: str, user_ids: Collection[str]) -> Seen:
        """Invite people. All or none: refuses with ``USER_UNKNOWN``, ``USER_BLOCKED``, ``USER_UNAVAILABLE``
        (``userId`` says who), ``SELF_NOT_ALLOWED``, ``ROOM_NOT_OWNER``, ``ROOM_CLOSED``, ``VALIDATION_FAILED``.
        """
        rules.owned(await self._loaded(room_id), user_id)
        if user_id in user_ids:
            raise Refusal("SELF_NOT_ALLOWED")
        people = await self._users.profiles(user_ids)
        blocks = await self._users.blocks_among([user_id], user_ids)
        for one in user_ids:
            profile = people.get(one)
            if profile is None or profile.status not in (ACTIVE, "banned"):
                raise Refusal("USER_UNKNOWN", userId=one)
            if (user_id, one) in blocks:
                raise Refusal("USER_BLOCKED", userId=one)
            if (one, user_id) in blocks or not profile.active:
                raise Refusal("USER_UNAVAILABLE", userId=one)
        room = await self._apply(room_id, lambda room, now: rules.invite(room, by=user_id, user_ids=user_ids))
        return await self._seen(room)

    async def kick(self, user_id: str, room_id: str, other_id: str) -> Seen:
        """Show somebody out, who was in the room or invited to it, else ``TARGET_UNKNOWN``; ``ROOM_NOT_OWNER``.

        ``VALIDATION_FAILED`` when too many are kept out already.
        """
        room = await self._loaded(room_id)
        rules.owned(room, user_id)
        known = room.participant(other_id) is not None or other_id in (*room.invited_ids, *room.kicked_ids)
        if not known and await self._store.membership(room_id, other_id) is None:
            raise Refusal("TARGET_UNKNOWN", userId=other_id)
        room = await self._apply(
            room_id, lambda room, now: rules.kick(room, by=user_id, user_id=other_id, now=now)
        )
        return await self._seen(room)

    async def close(self, user_id: str, room_id: str) -> Seen:
        """End the room for good. Safe to repeat; refuses with ``ROOM_NOT_OWNER``."""

        def shut(room: Room, now: datetime) -> Step:
            if user_id != room.owner_id:
                raise Refusal("ROOM_NOT_OWNER", roomId=room.id)
            return rules.close(room, reason=Closed.OWNER, now=now)

        return await self._seen(await self._apply(room_id, shut))

    # ---------------------------------------------------------------------------------------------------- signaling

    def addressees(self, device: Device, room_id: str, target_id: str | None) -> list[Participant] | None:
        """To whom a signal goes, from memory; None when memory cannot say yes."""
        room = self.board.room(room_id)
        if room is None or (target_id is None and self._others_live()):
            return None  # who everybody is, another process may know better
        try:
            return rules.addressees(
                room, user_id=device.user_id, device_id=device.device_id, target_id=target_id
            )
        except Refusal:
            return None

    async def route(self, device: Device, room_id: str, target_id: str | None) -> list[Participant]:
        """As ``addressees``, with the truth. Refuses with ``ROOM_UNKNOWN``, ``ROOM_CLOSED``, ``ROOM_NOT_JOINED``
        and ``TARGET_UNKNOWN``.
        """
        found = self.addressees(device, room_id, target_id)
        if found is not None:
            return found
        room = await self.truth(room_id)
        return rules.addressees(room, user_id=device.user_id, device_id=device.device_id, target_id=target_id)

    def signal_key(self) -> str:
        """A key for a signal that goes by the log, since its addressee's socket is at another process."""
        return f"signal:{self._ids.new()}"

    def elsewhere(self, people: Sequence[Participant]) -> bool:
        """Whether any of them has a socket at another process, which only the log reaches just now."""
        return not self._courier.reaches and any(
            seat.process not in (self._process, None) for one in people for seat in one.seats
        )

    def checked(self, room_id: str, kind: Literal["offer", "answer", "candidate"], body: Any) -> Any:
        """A description or candidate as it may pass. Refuses with ``SDP_INVALID``, ``SDP_TOO_LARGE`` and
        ``VALIDATION_FAILED``.
        """
        if kind == "candidate":
            return check_candidate(body)
        room = self.board.room(room_id)
        try:
            return check_description(body, kind=kind, call_type=room.type if room else "video")
        except Refusal as no:
            if no.code != "CALL_UPGRADE_REQUIRED":
                raise
            raise Refusal("SDP_INVALID", reason="this room is for audio") from None

    # --------------------------------------------------------------------------------------------------------- logs

    async def logs(self, user_id: str, *, before: str | None, limit: int) -> LogPage:
        """The sessions that somebody was in, the newest first."""
        found = await self._store.logs.page(user_id, before=before, most=limit + 1)
        items = found[:limit]
        return LogPage(items, await self._named(items), len(found) > limit)

    async def log_totals(self, user_id: str) -> Totals:
        """The sessions that somebody was in, added up."""
        return await self._store.logs.totals(user_id)

    async def begin_log(self, user_id: str, room_id: str) -> LogPage:
        """The running session of a room that somebody may see; begun where they have a place and none runs.

        Refuses with ``ROOM_NOT_JOINED`` and as ``get``.
        """
        await self.get(user_id, room_id)
        session_id = self._ids.new()
        room = await self._apply(
            room_id,
            lambda room, now: rules.begin_session(room, user_id=user_id, session_id=session_id, now=now),
        )
        assert room.session is not None
        return await self._one_log(await self._store.logs.find(room.session.id))

    async def end_log(self, user_id: str, room_id: str) -> LogPage:
        """End the running session; without one the last that there was. People stay in the room.

        Refuses with ``ROOM_NOT_OWNER`` (neither the owner nor the last one), ``ROOM_UNKNOWN``, ``CALL_UNKNOWN``.
        """
        room = await self._loaded(room_id)
        session = room.session
        await self._apply(room_id, lambda room, now: rules.end_session(room, user_id=user_id, now=now))
        logs = self._store.logs
        line = await logs.find(session.id) if session else await logs.last_of(room_id)
        if line is None or user_id not in (line.owner_id, *line.user_ids):
            raise Refusal("CALL_UNKNOWN")
        return await self._one_log(line)

    async def _one_log(self, line: CallLog | None) -> LogPage:
        assert line is not None, "it is written with the move that begins the session"
        return LogPage([line], await self._named([line]), False)

    async def _named(self, logs: Sequence[CallLog]) -> dict[str, Profile]:
        return await self._users.profiles(
            {user_id for one in logs for user_id in (one.owner_id, *one.user_ids)}
        )

    # ----------------------------------------------------------------------------------------------------- for talk

    async def present(self, room_id: str) -> Room:
        """The room with everybody who is in it now: from memory where no other process may know better.

        Refuses with ``ROOM_UNKNOWN``.
        """
        room = self.board.room(room_id)
        return room if room is not None and not self._others_live() else await self.truth(room_id)

    async def truth(self, room_id: str) -> Room:
        """The room as it stands in the database. Refuses with ``ROOM_UNKNOWN``."""
        room = await self._loaded(room_id)
        self._learn(room)
        return room

    async def parted_from(self, room: Room, me: Participant) -> frozenset[str]:
        """Who is never to read what somebody says here now: a block is between them, whether or not they are here."""
        everywhere = await self._users.parted_from(me.user_id)
        return me.apart | (await self._store.people_among(room.id, everywhere) if everywhere else set())

    async def may_read(self, user_id: str, room_id: str) -> None:
        """Refuses who was never in the room, with ``ROOM_UNKNOWN``, ``ROOM_KICKED`` and ``ROOM_NOT_JOINED``, and with
        ``ROOM_UNKNOWN`` or ``USER_BLOCKED`` whom a block parts from the owner now.
        """
        room = await self._loaded(room_id)
        if user_id in room.kicked_ids:
            raise Refusal("ROOM_KICKED", roomId=room_id)
        if user_id == room.owner_id:
            return
        await self._welcome(room, user_id)
        line = await self._store.membership(room_id, user_id)
        if line is None or not line.joined:
            raise Refusal("ROOM_NOT_JOINED", roomId=room_id)

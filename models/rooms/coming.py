"""How somebody comes into a room and goes out of it again.

Who is let in is asked of the database before they get a place, and once more when they have it: a block or a ban that
is written in between is found by one of the two, since whoever writes it then takes out whom it finds inside.
"""

from __future__ import annotations

from datetime import datetime

from models.errors import Refusal
from models.ports import Device
from models.rooms import rules
from models.rooms.engine import Seen
from models.rooms.room import Gone, Participant, Room
from models.rooms.rules import Entrant, Step
from models.rooms.upkeep import Upkeep

# Rooms somebody is in at a time, on whichever devices: each is looked after when one of their sockets comes or goes.
JOINED_MAX = 20


class Coming(Upkeep):
    """The verbs of the door."""

    async def get(self, user_id: str, room_id: str) -> Seen:
        """A room for somebody who may see it. Refuses as ``join`` does, except for being full."""
        room = await self._loaded(room_id)
        apart = await self._welcome(room, user_id)
        if room.open or await self._store.membership(room_id, user_id) is None:
            rules.admit(room, user_id)
        return Seen(room, await self._people(room), apart)

    async def join(self, device: Device, room_id: str) -> Seen:
        """Come in with a device; without a socket (REST) only a place is held for a minute. Safe to repeat.

        Refuses with ``ROOM_UNKNOWN`` (also to whom the owner has blocked), ``USER_BLOCKED``, where a media server
        lets all hear all with either for a block with anybody there, ``ROOM_CLOSED``, ``ROOM_INVITE_ONLY``,
        ``ROOM_KICKED``, ``ROOM_FULL``, ``TOO_MANY_ROOMS``, ``INSUFFICIENT_FUNDS`` and ``WALLET_FROZEN``.
        """
        room = self.board.room(room_id) or await self._loaded(room_id)
        seat = device.device_id if device.process is not None else None
        return await self._come(room, device.user_id, seat, device.process)

    async def entered(self, *, room_id: str, user_id: str, device_id: str) -> None:
        """A device is in the room by other means than a socket of ours: a media server tells. Refuses as ``join``."""
        await self._come(await self._loaded(room_id), user_id, device_id, None)

    async def _come(self, room: Room, user_id: str, device_id: str | None, process: str | None) -> Seen:
        known = room.participant(user_id) is not None
        try:
            apart = None if known else await self._let_in(room, user_id)
            return await self._enter(room.id, user_id, device_id, process, apart)
        except rules.NotAsked:  # they were in the room, and are no longer
            apart = await self._let_in(await self._loaded(room.id), user_id)
            return await self._enter(room.id, user_id, device_id, process, apart)

    async def _let_in(self, room: Room, user_id: str) -> frozenset[str]:
        """Who is to be kept apart from somebody who comes anew. Refuses as ``join``."""
        apart = await self._welcome(room, user_id, joins=True)
        if len(await self._store.with_person(user_id, JOINED_MAX)) >= JOINED_MAX:
            raise Refusal("TOO_MANY_ROOMS", most=JOINED_MAX)
        return apart

    async def _enter(
        self,
        room_id: str,
        user_id: str,
        device_id: str | None,
        process: str | None,
        apart: frozenset[str] | None,
    ) -> Seen:
        who = Entrant(
            user_id=user_id,
            device_id=device_id,
            process=process,
            stay_id=self._ids.new(),
            session_id=self._ids.new(),
            apart=apart,
        )
        timers = self._timers
        room = await self._apply(room_id, lambda room, now: rules.enter(room, who, now, timers))
        if apart is not None:
            room = await self._looked_at_again(room, user_id)
        me = room.participant(user_id)
        if me is not None and me.pending:
            room = await self._paid(room, me, who)
        return await self._seen(room)

    async def _looked_at_again(self, room: Room, user_id: str) -> Room:
        """Somebody has a place, so whoever blocks or bans them from now on takes them out. And who has until now?"""
        try:
            apart = await self._welcome(room, user_id, joins=True)
            me = (await self._users.profiles([user_id])).get(user_id)
            if me is None or not me.active:
                raise Refusal("ROOM_UNKNOWN")
        except Refusal:
            await self.removed(room.id, user_id, reason=Gone.POLICY)
            raise
        place = room.participant(user_id)
        for other_id in sorted(apart - (place.apart if place is not None else frozenset())):
            room = await self._severed(room.id, user_id, other_id)
        return room

    async def _paid(self, room: Room, me: Participant, who: Entrant) -> Room:
        """Begin the stay of a pending place, which stands in the room already, and make the place theirs."""
        assert me.stay_id is not None
        stay_id, timers = me.stay_id, self._timers
        try:
            await self.stays.begin(room, me)
        except Refusal:
            await self._apply(
                room.id,
                lambda room, now: rules.withdraw(room, user_id=me.user_id, stay_id=stay_id, now=now),
            )
            raise
        paid = Entrant(
            user_id=who.user_id,
            device_id=who.device_id,
            process=who.process,
            stay_id=stay_id,
            session_id=who.session_id,
            paid=stay_id,
        )

        def come(room: Room, now: datetime) -> Step:
            one = room.participant(me.user_id)
            if one is None or one.stay_id != stay_id:
                rules.admit(room, me.user_id)  # kicked, closed: it says so
                raise Refusal("SERVER_BUSY")
            return rules.enter(room, paid, now, timers)

        try:
            return await self._apply(room.id, come)
        except Refusal:
            # Whoever took the place away has ended the stay, perhaps before it had begun.
            await self.stays.end(stay_id, at=me.joined_at, reason=Gone.NEVER_CAME)
            raise

    async def leave(self, device: Device, room_id: str) -> Seen:
        """Go out with this device, or without a socket (REST) with all of them. Safe to repeat."""
        room = self.board.room(room_id)
        if room is None or room.participant(device.user_id) is None:
            room = (await self.get(device.user_id, room_id)).room
        user_id, seat = device.user_id, device.device_id if device.process is not None else None
        by_media = frozenset[str]()
        if seat is not None and self.media is not None:
            by_media = await self.media.devices(room_id=room_id, user_id=user_id, device_id=seat)
        room = await self._apply(
            room_id,
            lambda room, now: rules.leave(room, user_id=user_id, device_id=seat, also=by_media, now=now),
        )
        return await self._seen(room)

    # -------------------------------------------------------------------------------------------------------- parts

    async def _welcome(self, room: Room, user_id: str, *, joins: bool = False) -> frozenset[str]:
        """Refuses with ``ROOM_UNKNOWN`` whom the owner has blocked, with ``USER_BLOCKED`` who has blocked the owner.

        Who in the room is kept apart from them by a block. Who joins where nobody can be kept apart is refused alike.
        """
        others = {room.owner_id, *(one.user_id for one in room.participants)} - {user_id}
        blocks = await self._users.blocks_among([user_id], others)
        inescapable = others if joins and self.media is not None else {room.owner_id}
        for blocker, blocked in sorted(blocks):
            if blocked == user_id and blocker in inescapable:
                raise Refusal("ROOM_UNKNOWN")
        for blocker, blocked in sorted(blocks):
            if blocker == user_id and blocked in inescapable:
                raise Refusal("USER_BLOCKED", userId=blocked)
        return frozenset(one for pair in blocks for one in pair if one != user_id)

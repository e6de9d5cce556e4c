"""The rooms with people in them as this process knows them: signals go by it, without a database.

It is right about what this process has done itself, and for what others do it is half a second behind while others
live. So its yes is taken, and its no is asked for again.

Nothing here awaits, so nothing here is interleaved.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace

from models.rooms.room import Room

# Emptied rooms remembered, so that what was read before the last one left does not bring them back.
EMPTIED_MAX = 10_000


class Board:
    """Occupied rooms by id, and the rooms of each person."""

    def __init__(self) -> None:
        self._rooms: dict[str, Room] = {}
        self._of_user: dict[str, set[str]] = {}
        self._emptied: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rooms)

    def rooms(self) -> Iterator[Room]:
        """All of them."""
        return iter(list(self._rooms.values()))

    def room(self, room_id: str) -> Room | None:
        """The newest version known here; None for one that is empty or unknown."""
        return self._rooms.get(room_id)

    def rooms_of(self, user_id: str) -> list[str]:
        """The rooms in which somebody has a place."""
        return sorted(self._of_user.get(user_id, ()))

    def seated(self, user_id: str, device_id: str) -> set[str]:
        """The rooms in which that device is."""
        found = set()
        for room_id in self._of_user.get(user_id, ()):
            one = self._rooms[room_id].participant(user_id)
            if one is not None and one.seat(device_id) is not None:
                found.add(room_id)
        return found

    def in_room(self, user_id: str) -> bool:
        """Whether somebody is here in any room: presence calls it ``in_call``."""
        for room_id in self._of_user.get(user_id, ()):
            one = self._rooms[room_id].participant(user_id)
            if one is not None and one.here:
                return True
        return False

    def update(self, room: Room) -> set[str]:
        """Take a newer version; those who have come into a room by it, or have gone out of one."""
        known = self._rooms.get(room.id)
        if room.version < (known.version if known is not None else self._emptied.get(room.id, 0)):
            return set()
        was = {one.user_id for one in known.present} if known else set()
        for one in known.participants if known else ():
            self._forget(one.user_id, room.id)
        if room.participants:
            self._rooms[room.id] = replace(room, untold=())
            self._emptied.pop(room.id, None)
            for one in room.participants:
                self._of_user.setdefault(one.user_id, set()).add(room.id)
        else:
            self._rooms.pop(room.id, None)
            self._emptied[room.id] = room.version
            if len(self._emptied) > EMPTIED_MAX:
                self._emptied.popitem(last=False)
        return was ^ {one.user_id for one in room.present}

    def _forget(self, user_id: str, room_id: str) -> None:
        rooms = self._of_user.get(user_id)
        if rooms is not None:
            rooms.discard(room_id)
            if not rooms:
                del self._of_user[user_id]

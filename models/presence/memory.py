"""What others see of a person's whereabouts, from memory alone."""

from __future__ import annotations

from collections.abc import Callable, Collection

from models.ports import Doors
from models.presence.rules import State


class Presence:
    """``Presence(doors, busy)``: the sockets here, and a function that says whether a user is in a call or a room.

    All that a view of a person needs. Whoever keeps leases and tells watchers is ``Whereabouts``.
    """

    def __init__(self, doors: Doors, busy: Callable[[str], bool]) -> None:
        self._doors = doors
        self._busy = busy

    def state_of(self, user_id: str) -> State:
        """``in_call`` while a call of theirs lives, else ``online`` with a socket, else ``offline``."""
        if self._busy(user_id):
            return "in_call"
        return "online" if self._doors.online(user_id) else "offline"

    def changed(self, *user_ids: str) -> None:
        """Look again at these people, soon: a call, a room or a block of theirs has changed. Here nobody watches."""


class Veiled(Presence):
    """``Veiled(presence, hidden)``: presence as somebody may see it to whom these people are hidden."""

    def __init__(self, presence: Presence, hidden: Collection[str]) -> None:
        super().__init__(presence._doors, presence._busy)
        self._presence = presence
        self._hidden = hidden

    def state_of(self, user_id: str) -> State:
        """``offline`` of whoever is hidden, and of others what holds."""
        return "offline" if user_id in self._hidden else self._presence.state_of(user_id)

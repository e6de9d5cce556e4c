"""What others see of a person's whereabouts, from memory alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from models.ports import Doors

State = Literal["online", "in_call", "offline"]


class Presence:
    """``Presence(doors, busy)``: the sockets, and a function that says whether a user is in a live call."""

    def __init__(self, doors: Doors, busy: Callable[[str], bool]) -> None:
        self._doors = doors
        self._busy = busy

    def state_of(self, user_id: str) -> State:
        """``in_call`` while a call of theirs lives, else ``online`` with a socket, else ``offline``."""
        if self._busy(user_id):
            return "in_call"
        return "online" if self._doors.online(user_id) else "offline"

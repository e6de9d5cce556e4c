"""Who brings messages to people."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from models.auth.codes.rules import Message, Way


class Brought(StrEnum):
    """What became of a message."""

    YES = "yes"
    # Not now: worth another try.
    LATER = "later"
    # It will never be taken like this.
    NEVER = "never"


class Messenger(Protocol):
    """The ways that are there. Never raises for a fault of the other side, and answers within a worker's lease."""

    def reaches(self, way: Way) -> bool:
        """Whether there is such a way at all."""
        ...

    async def bring(self, message: Message) -> Brought:
        """Hand a message over."""
        ...

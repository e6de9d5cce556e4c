"""What a conversation and a member's place in it are: frozen values."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

DIRECT, GROUP = "direct", "group"
OWNER, ADMIN, MEMBER = "owner", "admin", "member"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Who writes to one another. That of a pair has an id that follows from the two.

    ``members`` are those of now, in the order in which they came. A change of a group takes a number in the row of its
    messages, so that whoever has the next number knows who is in; ``version`` counts those changes.
    """

    id: str
    members: tuple[str, ...]
    kind: str = DIRECT
    name: str | None = None
    owner_id: str | None = None
    admins: frozenset[str] = frozenset()
    version: int = 1
    created_at: datetime | None = None
    active_at: datetime | None = None

    @property
    def is_group(self) -> bool:
        """Whether this is a group, and not a pair."""
        return self.kind == GROUP

    def has(self, user_ids: Collection[str]) -> bool:
        """Whether all of these are in it."""
        return all(user_id in self.members for user_id in user_ids)

    def other_than(self, user_id: str) -> str:
        """The other one of a pair."""
        return next(member for member in self.members if member != user_id)

    def role_of(self, user_id: str) -> str | None:
        """``owner``, ``admin`` or ``member``; None for who is not in it."""
        if user_id not in self.members:
            return None
        if user_id == self.owner_id:
            return OWNER
        return ADMIN if user_id in self.admins else MEMBER


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """One person's place in a conversation: which numbers they see, and how far they have got and read.

    They see what is above ``joined_seq``, and nothing above ``left_seq`` once they are out.
    """

    conversation_id: str
    user_id: str
    joined_seq: int = 0
    left_seq: int | None = None
    delivered_seq: int = 0
    delivered_at: datetime | None = None
    read_seq: int = 0
    read_at: datetime | None = None
    muted: bool = False
    untold: bool = False

    def sees(self, seq: int) -> bool:
        """Whether the message of that number is one of theirs to see."""
        return seq > self.joined_seq and (self.left_seq is None or seq <= self.left_seq)

    def clamped(self, seq: int, head: int) -> int:
        """``seq`` as far as this person may have got, when the newest number is ``head``."""
        return min(seq, head if self.left_seq is None else min(head, self.left_seq))

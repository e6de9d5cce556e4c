"""What an encrypted group goes through, as values. The words are those of MLS (RFC 9420, RFC 9750)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

# The place of a new beginning in the row of a generation: before its first commit, which is made in epoch 0.
BEGINNING = -1


@dataclass(frozen=True, slots=True)
class State:
    """Where a group stands. ``generation`` counts its beginnings, from 1; ``epoch`` the commits since the last one."""

    generation: int = 1
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """What lets one device of a member in."""

    user_id: str
    device_id: str
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A commit made in ``epoch``, which ends that epoch; or, without a ``commit``, a new beginning of the group."""

    id: str
    conversation_id: str
    generation: int
    epoch: int
    commit: str | None
    welcomes: tuple[Welcome, ...]
    sender_id: str
    device_id: str
    op_id: str
    at: datetime

    def repeats(self, other: Step) -> bool:
        """Whether both ask for the same thing."""
        mine = (self.conversation_id, self.generation, self.epoch, self.commit, self.welcomes)
        return mine == (other.conversation_id, other.generation, other.epoch, other.commit, other.welcomes)

    @property
    def after(self) -> State:
        """Where the group stands after it."""
        return State(self.generation, self.epoch + 1)

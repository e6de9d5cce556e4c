"""People as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

# Which half of a search, the folded name, the id.
Place = tuple[str, str, str]

ACTIVE, BANNED, DELETED = "active", "banned", "deleted"
USER, ADMIN = "user", "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A person as others may see them. A rate that is None is the server's."""

    user_id: str
    username: str
    display_name: str
    avatar_url: str | None
    rate_per_minute_minor: int | None
    video_rate_per_minute_minor: int | None
    currency: str
    status: str
    role: str

    @property
    def active(self) -> bool:
        """Whether this person may be reached at all."""
        return self.status == ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A person as they see themselves."""

    profile: Profile
    email: str | None
    phone: str | None
    email_verified: bool
    phone_verified: bool
    second_factor: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Two people, and whether one of them wants none of the other. ``callee`` None: nobody has that id."""

    caller: Profile
    callee: Profile | None
    blocked_by_caller: bool
    blocked_by_callee: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """One page of people. ``last`` is the place behind which the next page begins; None: this is the last one."""

    items: tuple[Profile, ...]
    last: Place | None

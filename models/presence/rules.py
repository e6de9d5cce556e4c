"""Many devices, one state; and when a change of it is worth telling.

A phone in a lift loses its socket and has it back two seconds later; an app goes to the background and comes back.
Watchers need not hear of that. So what is seen of a person waits for a moment, longer before somebody counts as gone
than before they count as back, and only what still holds then is told. A call is told at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

State = Literal["online", "away", "in_call", "offline"]
# What a device says of itself: in the foreground, or connected in the background.
DeviceState = Literal["online", "away"]

# A reconnect by itself takes 1 to 2 s (the official client's first try, with its jitter); those are not told.
OFFLINE_AFTER = timedelta(seconds=3)
# Looking at another app for a moment is not told either.
FOREGROUND_AFTER = timedelta(seconds=1)
# Of several changes in this time only the last is told, except a call.
BETWEEN = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Seen:
    """What others may know of a person. ``last_seen_at`` is when their last device went; None unless offline."""

    state: State
    last_seen_at: datetime | None = None


# What is seen of somebody of whom one may know nothing.
HIDDEN = Seen("offline")


def fold(devices: Iterable[DeviceState], *, busy: bool, last_seen_at: datetime | None = None) -> Seen:
    """One state from all devices: in a call before online before away before offline."""
    if busy:
        return Seen("in_call")
    states = set(devices)
    if "online" in states:
        return Seen("online")
    return Seen("away") if states else Seen("offline", last_seen_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What watchers know of one person, and what they will be told at ``due_at`` if it still holds then."""

    told: Seen
    told_at: datetime | None = None
    waiting: Seen | None = None
    due_at: datetime | None = None


def look(line: Line, seen: Seen, now: datetime) -> Line:
    """The line after ``seen`` is what holds now: told already, waiting on, or waiting from now on."""
    if seen == line.told:
        return replace(line, waiting=None, due_at=None)
    if line.waiting is not None and line.waiting.state == seen.state:
        return replace(line, waiting=seen)
    due_at = now + _patience(line.told.state, seen.state)
    if line.told_at is not None and seen.state != "in_call":
        due_at = max(due_at, line.told_at + BETWEEN)
    return replace(line, waiting=seen, due_at=due_at)


def settle(line: Line, now: datetime) -> Line:
    """The line after what was due by now has been told."""
    if line.waiting is None or line.due_at is None or line.due_at > now:
        return line
    return Line(told=line.waiting, told_at=now)


def _patience(told: State, seen: State) -> timedelta:
    if seen == "offline":
        return OFFLINE_AFTER
    if {told, seen} == {"online", "away"}:
        return FOREGROUND_AFTER
    return timedelta(0)

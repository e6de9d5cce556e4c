"""How often a phone may be made to ring: by the same person, by the same person anywhere, and by strangers.

Whoever talks to people never meets these bounds. They are for who rings to disturb: one person again and again, many
people in a row, or one person from many accounts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from models.calls.call import Call, Reason
from models.errors import Refusal
from models.ports import Clock, Window, Windows

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
# In an hour somebody begins as many calls as in ten of the busiest minutes.
HOUR_IN_MINUTES = 10
# Declines in a row before somebody is asked to wait: whoever has the six attempts of CONTRACT §1 has all of them.
DECLINES_MAX = 6
# By how many times the first cool-off each is longer: after so many declines, one more, two more, and all after that.
COOL_OFFS = (1, 5, 30, 120)
# Calls between two people that are looked at.
LOOKED_AT = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RingLimits:
    """``per_pair``, ``per_caller`` and ``strangers`` (who together make one phone ring) in a minute; ``cool_off`` is
    the first wait after ``DECLINES_MAX``, none if it is nothing.
    """

    per_pair: int = 6
    per_caller: int = 30
    strangers: int = 12
    cool_off: timedelta = timedelta(seconds=60)


class Past(Protocol):
    """What was between two people."""

    async def between(self, one: str, other: str, after: datetime, most: int) -> Sequence[Call]:
        """Their calls since then, newest first, at most that many."""
        ...

    async def have_met(self, caller_id: str, callee_id: str) -> bool:
        """Whether the callee has ever answered the caller, or called them."""
        ...


class Rings:
    """One per process."""

    def __init__(self, *, windows: Windows, past: Past, clock: Clock, limits: RingLimits) -> None:
        self._windows = windows
        self._past = past
        self._clock = clock
        self._limits = limits

    async def admit(self, caller_id: str, callee_id: str) -> None:
        """Count an attempt to ring somebody, who may be busy. Refuses with ``RATE_LIMITED``."""
        now, limits = self._clock.now(), self._limits
        pair = f"{caller_id}>{callee_id}"
        wait = await self._windows.take(
            Window(f"ring {pair}", limits.per_pair, MINUTE),
            Window(f"rings by {caller_id}", limits.per_caller, MINUTE),
            Window(f"rings by {caller_id} in an hour", limits.per_caller * HOUR_IN_MINUTES, HOUR),
            now=now.timestamp(),
        )
        # Only who has rung this person today already can have been declined by them.
        if not wait and await self._windows.take(Window(f"rung {pair}", 1, DAY), now=now.timestamp()):
            wait = await self._declined(caller_id, callee_id, now)
        if wait:
            raise Refusal("RATE_LIMITED", retry_after_ms=wait)

    async def admit_stranger(self, caller_id: str, callee_id: str) -> None:
        """Count what is about to ring at somebody. Refuses strangers with ``RATE_LIMITED`` when it is too much.

        People who have talked before are not asked to wait for strangers.
        """
        window = Window(f"rings at {callee_id}", self._limits.strangers, MINUTE)
        wait = await self._windows.take(window, now=self._clock.now().timestamp())
        if wait and not await self._past.have_met(caller_id, callee_id):
            raise Refusal("RATE_LIMITED", retry_after_ms=wait)

    async def _declined(self, caller_id: str, callee_id: str, now: datetime) -> int:
        if not self._limits.cool_off:
            return 0
        calls = await self._past.between(caller_id, callee_id, now - timedelta(seconds=DAY), LOOKED_AT)
        until = cool_off_until(calls, caller_id, self._limits.cool_off)
        return max(0, round((until - now) / timedelta(milliseconds=1))) if until else 0


def cool_off_until(calls: Sequence[Call], caller_id: str, first: timedelta) -> datetime | None:
    """Until when somebody is left alone whom these ``calls`` were with, newest first; None: they may be rung.

    Declines in a row count. A few are no reason, for the next attempt may be at a better time. What was not answered
    counts neither way; an answer, or a call in the other direction, begins anew.
    """
    declines: list[datetime] = []
    for call in calls:
        if call.caller.user_id != caller_id or call.accepted_at is not None:
            break
        if call.end_reason is Reason.DECLINED and call.ended_at is not None:
            declines.append(call.ended_at)
    if len(declines) < DECLINES_MAX:
        return None
    return declines[0] + first * COOL_OFFS[min(len(declines) - DECLINES_MAX, len(COOL_OFFS) - 1)]
